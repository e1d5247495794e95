#!/bin/bash
# Starts that cannot be: each ends with status 1 within its limit, names what to change, and leaves
# nothing in TMPDIR.
#
#   bad_input.sh PROGRAM
set -u
# shellcheck source=tests/tap.sh
source "$(dirname "$0")/../tap.sh"

program=$1
TMPDIR=$(mktemp -d)
trap 'rm -rf "$TMPDIR"' EXIT
export TMPDIR
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1

# refused NAME WORD MODE [SETTING…]
refused() {
    local name=$1 word=$2 mode=$3 output code=0
    shift 3
    output=$(tap_limit 20 env "$@" "$program" "$mode" 2>&1 </dev/null) || code=$?
    if [ "$code" = 77 ]; then
        tap_skip "bad input: $name" "MPI cannot be started here"
    elif [ "$code" = 1 ] && grep -q -- "$word" <<<"$output" && ! grep -q '^started' <<<"$output"; then
        tap_ok "bad input: $name"
    else
        tap_fail "bad input: $name" "exit status $code, wanted 1 and the word $word: $output"
    fi
}

refused "moray_init after MPI_Init" MPI mpi
refused "an uncaught error ends the job with its story (decision 42)" "a story of 12" uncaught
refused "the first thread ends by pthread_exit" "pthread_join" main_ends
refused "a moray_setup function that kills its process" "first task.*moray_setup.*SIGABRT" setup
tap_output 20 "a start in vain leaves nothing, and another may follow" "0 descriptors more
started" "$program" again
tap_output 20 "no wait that the job's end cuts short returns" "2 waited, 0 went on" \
    env MORAY_SPARES_MAX=8 "$program" waits
tap_output 20 "who waits for room in its queue leaves at the job's end" "1 left, 0 went on" \
    env MORAY_WORKERS=1 MORAY_QUEUE_MAX=16 "$program" floods
tap_output 20 "another thread of the driver that waits at the job's end goes on" \
    "the thread's wait gave MORAY_LOST" "$program" thread_waits
output=$(tap_limit 20 env MORAY_STORE_BYTES=256MiB "$program" threads 2>&1)
case $output in
"no call overlaps") tap_ok "first calls of other threads wait for the first thread's" ;;
"the put took no time") tap_skip "first calls of other threads wait for the first thread's" "$output" ;;
*) tap_fail "first calls of other threads wait for the first thread's" "$output" ;;
esac
# Those that become ready find no cell either that would tell of them, if their queue is short.
for how in 16384 16 '16 general'; do
    name="where the table of what waits is full, calls are refused and take nothing ($how)"
    read -r queue_max general <<<"$how"
    # shellcheck disable=SC2086 # none, or a word
    output=$(tap_limit 40 env MORAY_QUEUE_MAX="$queue_max" MORAY_REPORT_LEAKS=1 "$program" cells $general 2>&1)
    if grep -qx "full, then 2" <<<"$output" && ! grep -q "is not refused" <<<"$output" &&
        grep -q "in use: 0 objects, 0 records, 0 bytes" <<<"$output"; then
        tap_ok "$name"
    else
        tap_fail "$name" "$output"
    fi
done
tap_output 20 "who took all records and let them go does not stop the others" "full, then 2080" \
    env MORAY_QUEUE_MAX=16 "$program" records
tap_output 20 "MORAY_CHAOS takes the units that moray run lets through" started \
    env MORAY_CHAOS=worker=5000000us,seed=2 "$program" idle
refused "an arena larger than the memory limit" MORAY_STORE_BYTES idle MORAY_STORE_BYTES=60TiB
refused "zero workers" MORAY_WORKERS idle MORAY_WORKERS=0
refused "more workers than a rank can have" "1 to 192" idle MORAY_WORKERS=193
warned() { # NAME WORD SETTING…: it starts, and says the word
    local name=$1 word=$2 output code=0
    shift 2
    output=$(tap_limit 20 env "$@" "$program" idle 2>&1 </dev/null) || code=$?
    if [ "$code" = 0 ] && grep -q -- "$word" <<<"$output" && grep -q '^started' <<<"$output"; then
        tap_ok "bad input: $name"
    else
        tap_fail "bad input: $name" "exit status $code, wanted 0 and the word $word: $output"
    fi
}
warned "more cores than the host has" "MORAY_CORES asks for 99.* more than the" MORAY_CORES=99
warned "more cores than a rank has workers" "at most 192 workers" MORAY_CORES=250
tap_run 20 "bad input: 85% of the memory for objects leaves room for the rest" \
    env MORAY_STORE_BYTES=85% "$program" idle
[ "$(awk '/MemTotal/ { print $2 }' /proc/meminfo)" -gt 200000000 ] || # a large host has that room
    refused "more queue than the memory has room for" "lower MORAY_STORE_BYTES or MORAY_QUEUE_MAX" idle \
        MORAY_STORE_BYTES=85% MORAY_QUEUE_MAX=67108864
for bad in text -1 1e3 99999999999999999999999 4x '1 2'; do
    refused "MORAY_WORKERS=$bad" MORAY_WORKERS idle "MORAY_WORKERS=$bad"
    refused "MORAY_QUEUE_MAX=$bad" MORAY_QUEUE_MAX idle "MORAY_QUEUE_MAX=$bad"
done
for bad in lots -5 0 86% 101% 0% 1EiB 99999999999999999999GiB; do
    refused "MORAY_STORE_BYTES=$bad" MORAY_STORE_BYTES idle "MORAY_STORE_BYTES=$bad"
done
for setting in MORAY_SPIN_US=-1 MORAY_SPIN_US=soon MORAY_FABRIC=pigeon MORAY_SHARE=perhaps \
    MORAY_HEAD=tail MORAY_ATTEMPTS=0 MORAY_ATTEMPTS=-3 MORAY_LOG=loud MORAY_CORES=x \
    MORAY_CORES=5-2 MORAY_CORES=100000 MORAY_CHAOS=worker MORAY_CHAOS=worker=-1ms \
    MORAY_CHAOS=worker=1ms,seed=x MORAY_CHAOS=worker=1s,fast \
    MORAY_PROCESSES_MAX=1 MORAY_NEAR_BYTES=close MORAY_NO_SUCH_SETTING=1; do
    refused "$setting" "${setting%%=*}" idle "$setting"
done
refused "more spares than processes" MORAY_SPARES_MAX idle MORAY_SPARES_MAX=300
refused "more workers than processes" "MORAY_PROCESSES_MAX.* 8 workers and needs 2 more" idle MORAY_WORKERS=8 MORAY_PROCESSES_MAX=4
left=$(find "$TMPDIR" -mindepth 1)
if [ -z "$left" ]; then tap_ok "bad input: nothing is left"; else
    tap_fail "bad input: nothing is left" "$left"
fi
tap_done
