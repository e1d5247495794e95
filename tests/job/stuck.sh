#!/bin/bash
# An actor that does not finish is forced, 30 s after its last handle is gone, also where the call that it
# does not finish came from another rank (stuck.c).
#
#   stuck.sh PROGRAM
set -u
# shellcheck source=tests/tap.sh
source "$(dirname "$0")/../tap.sh"

program=$1
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
export MORAY_STORE_BYTES=64MiB MORAY_REPORT_LEAKS=1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 143' INT TERM HUP

tap_limit 120 "$program" >"$work/alone" 2>&1 </dev/null &
tap_limit 120 env MORAY_SHARE=0 mpirun --oversubscribe -n 2 "$program" >"$work/across" 2>&1 </dev/null &
wait

forced() { # NAME FILE FROM TO RANKS
    local seconds
    seconds=$(sed -n 's/^code 10 after \([0-9]*\) s, its process is gone$/\1/p' "$work/$2")
    if [ "${seconds:-0}" -ge "$3" ] && [ "$seconds" -le "$4" ] &&
        [ "$(grep -c ' in use: 0 objects, 0 records, 0 bytes' "$work/$2")" = "$5" ]; then
        tap_ok "$1"
    else
        tap_fail "$1" "$(cat "$work/$2")"
    fi
}
forced "line 33: an actor that does not finish is forced after 30 s" alone 29 40 1
forced "line 33: and one of another rank too" across 29 40 2
tap_done
