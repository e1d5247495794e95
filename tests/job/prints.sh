#!/bin/bash
# What tasks and actors print: whole lines, in time, also of the killed (prints.c).
#
#   prints.sh PROGRAM RANKS [NAME=VALUE…]       RANKS 0: without a launcher
set -u
# shellcheck source=tests/tap.sh
source "$(dirname "$0")/../tap.sh"

program=$1
ranks=$2
shift 2
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
launch=()
[ "$ranks" = 0 ] || launch=(mpirun --oversubscribe -n "$ranks")

run() { tap_limit 30 env MORAY_OUTPUT_MARK=off "${settings[@]}" "${launch[@]}" "$program" "$1" </dev/null 2>"$errors" | tr -d '\r'; }
judge() { if [ "$2" = "$3" ]; then tap_ok "$1"; else tap_fail "$1" "wanted $3, got $2: $out"; fi; }

settings=("$@")
errors=$(mktemp)
trap 'rm -f "$errors"' EXIT

out=$(run pieces)
judge "line 46: lines that were printed in pieces come out whole" \
    "$(grep -c -E '^([a-h])\1{9}$' <<<"$out")/$(grep -c . <<<"$out")" 1600/1600

out=$(run half)
first=$(grep -n 'half a line' <<<"$out" | cut -d: -f1)
driver=$(grep -n 'the driver' <<<"$out" | cut -d: -f1)
judge "line 46: half a line comes out within 1 s" "$((${first:-99} < ${driver:-0}))" 1
judge "line 46: and so does what goes to stderr" "$(grep -c 'half an error' "$errors" || true)" 1

out=$(run killed)
judge "line 46: all lines of a killed task come out" "$(grep -c '^task line ' <<<"$out")" 100
judge "line 46: all lines of a killed actor come out" "$(grep -c '^actor line ' <<<"$out")" 100
judge "line 46: and what they had begun" "$(grep -c -E '^(task|actor) half' <<<"$out")" 2
before=$(sed '/the driver/,$d' <<<"$out" | grep -c -E '^(task|actor) ')
judge "line 46: within 1 s" "$before" 202

closed() { # NAME CLOSED
    tap_run 30 "$1 closed: what is printed goes nowhere, and the job goes on" env "${settings[@]}" \
        "${launch[@]}" bash -c "exec \"\$0\" closed $2" "$program"
}
closed "standard input and output" '<&- >&-'
closed "standard output and error" '>&- 2>&-'
closed "all standard streams" '<&- >&- 2>&-'
tap_done
