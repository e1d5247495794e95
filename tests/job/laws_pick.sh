#!/bin/bash
# laws.sh itself: a text that picks no law is a failure that says so, one that picks some is none.
#
#   laws_pick.sh PROGRAM TEXT      TEXT stands in the name of one of the program's laws
set -u
here=$(dirname "$0")
# shellcheck source=tests/tap.sh
source "$here/../tap.sh"

picked() { tap_limit 60 "$here/laws.sh" "$1" 0 MORAY_STORE_BYTES=64MiB -- "$2" 2>&1; }

output=$(picked "$1" "a name that no law has")
if grep -q '^not ok .*a law is picked' <<<"$output" && grep -q '^not ok .*the program ends well' <<<"$output"; then
    tap_ok "a text that picks no law is a failure"
else
    tap_fail "a text that picks no law is a failure" "$output"
fi
output=$(picked "$1" "$2")
if grep -q "^ok 1 - .*$2" <<<"$output" && ! grep -q '^not ok' <<<"$output"; then
    tap_ok "a text that picks a law runs it"
else
    tap_fail "a text that picks a law runs it" "$output"
fi
tap_done
