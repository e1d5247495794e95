#!/bin/bash
# Processes for nested tasks that wait where nothing can run on their stack: as many as were asked for,
# and a word where there are no more, or can be no more.
#
#   spares.sh PROGRAM FEW_FORKS
set -u
# shellcheck source=tests/tap.sh
source "$(dirname "$0")/../tap.sh"

program=$1
few_forks=$2
export MORAY_STORE_BYTES=64MiB MORAY_WORKERS=2

tap_output 60 "MORAY_SPARES_MAX above the default is kept to: 100 tasks wait in each other" 100 \
    env MORAY_SPARES_MAX=110 "$program" 100
output=$(tap_limit 30 env MORAY_SPARES_MAX=2 "$program" 8 4000 2>&1)
if grep -q "^-[0-9]*$" <<<"$output" && grep -q "2 workers and 2 spares.*MORAY_SPARES_MAX" <<<"$output"; then
    tap_ok "when all wait and there can be no more, MORAY_SPARES_MAX is named"
else
    tap_fail "when all wait and there can be no more, MORAY_SPARES_MAX is named" "$output"
fi

output=$(tap_limit 30 env MORAY_SPARES_MAX=2 "$program" 8 4000 0.5 2>&1)
if grep -q "^-[0-9]*$" <<<"$output" && grep -q "no process.*2 workers and 2 spares.*MORAY_SPARES_MAX" <<<"$output"; then
    tap_ok "so too where the tasks ask for cores"
else
    tap_fail "so too where the tasks ask for cores" "$output"
fi

# few NAME EXPECTED MODE SETTING…: it ends with the number, and tells of the limit once.
few() {
    local name=$1 expected=$2 mode=$3 output code=0
    shift 3
    output=$(tap_limit 15 env "$@" "$few_forks" "$mode" 2>&1) || code=$?
    if [ "$code" = 0 ] && grep -qx "$expected" <<<"$output" &&
        [ "$(grep -c "could not be started" <<<"$output")" = 1 ]; then
        tap_ok "$name"
    else
        tap_fail "$name" "exit status $code, $(head -c 2000 <<<"$output")"
    fi
}
few "where forks fail, who waits runs what it waits for" 4 helped FORKS_FAIL_FROM=5
few "a task that found no process gets one when forks do well again" 2 general FORKS_FAIL_FROM=5 \
    FORKS_FAIL_TO=8
tap_done
