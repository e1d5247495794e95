#!/bin/bash
# What is written in plain C under valgrind's memcheck: no bad access, no value that was never set, and
# every byte given back. The pure cores by their unit tests; the lane, between processes, by the program
# of section 5 (its library and libraries of others may keep what they hold until the end).
#
#   valgrind.sh BUILD
set -u
# shellcheck source=tests/tap.sh
. "$(dirname "$(realpath "$0")")/../tap.sh"

build=$1
export CK_FORK=no CK_DEFAULT_TIMEOUT=0 MORAY_STORE_BYTES=64MiB

# clean NAME OPTION COMMAND…
clean() {
    local name=$1 option=$2 output code=0
    shift 2
    output=$(tap_limit 120 valgrind -q --error-exitcode=99 \
        --trace-children=yes "$option" "$@" 2>&1 </dev/null) || code=$?
    if [ "$code" = 0 ] && ! grep -q '^==[0-9]*== ' <<<"$output"; then
        tap_ok "$name"
    else
        tap_fail "$name" "exit status $code: $(tail -n 40 <<<"$output")"
    fi
}

command -v valgrind >/dev/null || tap_skip_all "valgrind is not installed"
for unit in base_map directory kv nodes pubsub actors liveness policy_local; do
    clean "the unit tests of $unit" --leak-check=full "$build/tests/test_$unit"
done
clean "section 5, alone" --leak-check=no "$build/apps/quickstart/section5"
tap_done
