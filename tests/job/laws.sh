#!/bin/bash
# Runs a program of laws (law.h) and passes its TAP on, with three cases of its own at the end: the
# program ended well, every rank had nothing in use (semantics.md 38), and no wake-up was lost
# (decisions.md 11: a sleep ends after a second, and what is found then is counted).
#
#   laws.sh PROGRAM RANKS [NAME=VALUE…] [-- ARGUMENT…]
#
# RANKS 0: without a launcher. The rest are settings of the job, as MORAY_SHARE=0.
set -u
# shellcheck source=tests/tap.sh
. "$(dirname "$0")/../tap.sh"

program=$1
ranks=$2
shift 2
settings=()
while [ $# -gt 0 ] && [ "$1" != -- ]; do
    settings+=("$1")
    shift
done
[ $# -gt 0 ] && shift

export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_btl_vader_single_copy_mechanism=none
command=("$program" "$@")
[ "$ranks" = 0 ] || command=(mpirun --oversubscribe -n "$ranks" "${command[@]}")
[ "$ranks" = 0 ] && ranks=1

directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT
code=0
tap_limit "${LAWS_LIMIT:-240}" env MORAY_REPORT_LEAKS=1 TMPDIR="$directory" "${settings[@]}" \
    "${command[@]}" >"$directory/out" 2>"$directory/err" </dev/null || code=$?

tr -d '\r' <"$directory/out"
tap_count=$(grep -c -E '^(not )?ok [0-9]' "$directory/out")
# Of what a job may complain of, this is never the program's doing.
grep -q -a 'a process could not be started' "$directory/err" "$directory/out" && code="$code, and processes"
if [ "$code" = 0 ]; then
    tap_ok "the program ends well"
else
    tap_fail "the program ends well" "exit status $code of: ${settings[*]} ${command[*]}
$(cat "$directory/err")"
fi
left=$(grep -h -a -E 'moray: rank [0-9]+ (in use|still has)' "$directory/err" "$directory/out")
clean=$(printf '%s\n' "$left" | grep -c ' in use: 0 objects, 0 records, 0 bytes')
if [ "$clean" = "$ranks" ]; then
    tap_ok "line 38: nothing is in use on any rank at the end"
else
    tap_fail "line 38: nothing is in use on any rank at the end" "$left"
fi
lost=$(grep -h -a -E 'moray: rank [0-9]+ lost wake-ups' "$directory/err" "$directory/out")
# Bells are the business of tests/job/fabric.c: with two ranks that look at the same instant of every
# second, what one sends then is found by the other before its descriptor tells.
awake=$(printf '%s\n' "$lost" | grep -c ': 0 of processes, 0 of the agent,')
if [ "$awake" = "$ranks" ]; then
    tap_ok "decision 11: no sleep had to be ended by the look of every second"
else
    tap_fail "decision 11: no sleep had to be ended by the look of every second" "$lost
$(grep -h -a 'slept a second' "$directory/err" "$directory/out") (MORAY_LOG=debug tells who)"
fi
tap_done
