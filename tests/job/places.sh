#!/bin/bash
# Where tasks with resources run, by the settings that decide it: MORAY_SPILL_QUEUE, MORAY_NEAR_BYTES.
#
#   places.sh PROGRAM
set -u
# shellcheck source=tests/tap.sh
source "$(dirname "$0")/../tap.sh"

program=$1
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
export MORAY_HEAD=node MORAY_SHARE=0 MORAY_WORKERS=2

# prints NAME FROM TO WHAT [SETTING…]: the program prints a number between the two.
prints() {
    local name=$1 from=$2 to=$3 what=$4 output code=0
    shift 4
    output=$(tap_limit 20 env "$@" mpirun --oversubscribe -n 2 "$program" "$what" 2>&1) || code=$?
    output=$(tr -d '\r' <<<"$output")
    if [ "$code" = 0 ] && [[ $output =~ ^[0-9]+$ ]] && [ "$output" -ge "$from" ] &&
        [ "$output" -le "$to" ]; then
        tap_ok "$name"
    else
        tap_fail "$name" "exit status $code, wanted a number from $from to $to: $output"
    fi
}

prints "a queue shorter than MORAY_SPILL_QUEUE stays" 0 0 queue MORAY_SPILL_QUEUE=1000
prints "what passes MORAY_SPILL_QUEUE goes where the wait is least" 8 32 queue MORAY_SPILL_QUEUE=1
prints "a task that lacks fewer than MORAY_NEAR_BYTES stays" 0 0 bytes MORAY_NEAR_BYTES=1GiB
prints "a task that lacks MORAY_NEAR_BYTES goes to them" 1 1 bytes MORAY_NEAR_BYTES=1MiB
tap_done
