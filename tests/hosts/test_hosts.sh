#!/bin/bash
# Moray between hosts that share no loopback, socket, /dev/shm or environment, over both fabrics.
#
#   test_hosts.sh SECTION5 TRAIN [LAWS…]
#
# SECTION5 is the program of the brief, TRAIN the training, LAWS… programs of laws (tests/job).
# Each must end with 0 on two hosts (and on four ranks over two hosts), the laws with nothing in use,
# the first must print the same as on one host, the training must come to the same digest; the cards must have carried the
# bytes, and nothing may be left on any host.
set -u
here=$(dirname "$(realpath "$0")")
# shellcheck source=tests/tap.sh
. "$here/../tap.sh"

section5=$(realpath "$1") train=$(realpath "$2")
shift 2
tests=()
for test; do tests+=("$(realpath "$test")"); done

[ "$(id -u)" = 0 ] || tap_skip_all "network namespaces need root"
for need in ip unshare mpirun; do
    PATH=$PATH:/usr/sbin:/sbin command -v "$need" >/dev/null || tap_skip_all "$need is not installed"
done
PATH=$PATH:/usr/sbin:/sbin

work=$(mktemp -d)
export HOSTS_DIR=$work/state
hosts=$here/hosts
# shellcheck disable=SC2317 # called by the trap
clean_up() { "$hosts" down; rm -rf "$work"; }
trap clean_up EXIT
trap 'exit 143' INT TERM HUP

"$hosts" up 2 >"$work/up" 2>&1 || tap_skip_all "no network namespaces here: $(tail -n 1 "$work/up")"
cd "$work" || exit 1

# The case NAME: nothing is left on the hosts, two seconds after the end at the latest.
nothing_left() {
    local left
    for _ in $(seq 20); do
        left=$("$hosts" left)
        [ -n "$left" ] || break
        sleep 0.1
    done
    if [ -z "$left" ]; then tap_ok "$1"; else tap_fail "$1" "$left"; fi
}

# The case NAME: a program of laws (tests/job/law.h) ends well, and nothing is in use on either rank.
laws_hold() {
    local output code=0
    output=$(tap_limit 120 env MORAY_STORE_BYTES=256MiB MORAY_REPORT_LEAKS=1 \
        "$hosts" mpirun -n 2 "$2" 2>&1) || code=$?
    if [ "$code" = 0 ] &&
        [ "$(grep -c ' in use: 0 objects, 0 records, 0 bytes' <<<"$output")" = 2 ]; then
        tap_ok "$1"
    else
        tap_fail "$1" "exit status $code of: $2
$(grep -v '^ok ' <<<"$output")"
    fi
}

digest() { sed -n 's/.*"digest": *"\{0,1\}\([^",}]*\).*/\1/p' "$1"; }

want=$(MORAY_FABRIC=ofi tap_limit 30 "$section5" 2>/dev/null)
for fabric in ofi mpi; do
    export MORAY_FABRIC=$fabric
    before=$("$hosts" bytes h2)
    for ranks in 2 4; do
        tap_output 60 "$fabric: the program of section 5, $ranks ranks on two hosts" "$want" \
            "$hosts" mpirun -n "$ranks" "$section5"
    done
    for test in ${tests[@]+"${tests[@]}"}; do
        laws_hold "$fabric: $(basename "$test") on two hosts" "$test"
    done
    tap_run 120 "$fabric: the training on two hosts" \
        "$hosts" mpirun -n 2 "$train" --epochs 1 --seed 7 --svg none --json "$work/$fabric.json"
    after=$("$hosts" bytes h2)
    # A shard of images is more than this; start and control messages alone are less.
    if [ $((after - before)) -gt 10000000 ]; then
        tap_ok "$fabric: the network carried it"
    else
        tap_fail "$fabric: the network carried it" "$((after - before)) bytes passed through h2's card"
    fi
    nothing_left "$fabric: nothing is left on the hosts"
done
unset MORAY_FABRIC
tap_run 120 "the training on one host" "$train" --epochs 1 --seed 7 --svg none --json "$work/one.json"
if [ -n "$(digest "$work/one.json")" ] &&
    [ "$(digest "$work/ofi.json")" = "$(digest "$work/one.json")" ] &&
    [ "$(digest "$work/mpi.json")" = "$(digest "$work/one.json")" ]; then
    tap_ok "the training has one digest everywhere"
else
    tap_fail "the training has one digest everywhere" "$(cat "$work"/*.json)"
fi
tap_done
