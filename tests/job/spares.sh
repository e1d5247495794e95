#!/bin/bash
# Processes for nested tasks that wait where nothing can run on their stack: as many as were asked for,
# and a word where there are no more.
#
#   spares.sh PROGRAM
set -u
# shellcheck source=tests/tap.sh
source "$(dirname "$0")/../tap.sh"

program=$1
export MORAY_STORE_BYTES=64MiB MORAY_WORKERS=2

tap_output 60 "MORAY_SPARES_MAX above the default is kept to: 100 tasks wait in each other" 100 \
    env MORAY_SPARES_MAX=110 "$program" 100
output=$(tap_limit 30 env MORAY_SPARES_MAX=2 "$program" 8 4000 2>&1)
if grep -q "^-[0-9]*$" <<<"$output" && grep -q "2 workers and 2 spares.*MORAY_SPARES_MAX" <<<"$output"; then
    tap_ok "when all wait and there can be no more, MORAY_SPARES_MAX is named"
else
    tap_fail "when all wait and there can be no more, MORAY_SPARES_MAX is named" "$output"
fi
tap_done
