#!/bin/bash
# Actors for which there is no room at once: they wait, and are told why if that is in vain. Tasks for
# which a node has no room are told so.
#
#   rooms.sh PROGRAM
set -u
# shellcheck source=tests/tap.sh
source "$(dirname "$0")/../tap.sh"

program=$1
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
export MORAY_STORE_BYTES=64MiB MORAY_HEAD=node MORAY_SHARE=0 MORAY_REPORT_LEAKS=1
mpirun=(mpirun --oversubscribe)

# ends NAME WORD RANKS COMMAND…: it prints "done", and WORD, and leaves nothing on any rank.
ends() {
    local name=$1 word=$2 ranks=$3 output code=0
    shift 3
    output=$(tap_limit 60 "$@" 2>&1) || code=$?
    if [ "$code" = 0 ] && grep -q "^done" <<<"$output" && grep -q "$word" <<<"$output" &&
        [ "$(grep -c ' in use: 0 objects, 0 records, 0 bytes' <<<"$output")" = "$ranks" ]; then
        tap_ok "$name"
    else
        tap_fail "$name" "exit status $code: $output"
    fi
}

# fails NAME WORD COMMAND…: it ends with a failure that names WORD.
fails() {
    local name=$1 word=$2 output code=0
    shift 2
    output=$(tap_limit 60 "$@" 2>&1) || code=$?
    if [ "$code" != 0 ] && [ "$code" != 124 ] && grep -q "$word" <<<"$output"; then
        tap_ok "$name"
    else
        tap_fail "$name" "exit status $code: $output"
    fi
}

few=(MORAY_WORKERS=1 MORAY_PROCESSES_MAX=4 MORAY_SPARES_MAX=1) # leaves 2 a rank for actors
ends "one actor too many waits for a process, then names MORAY_PROCESSES_MAX" \
    "MORAY_PROCESSES_MAX" 1 env "${few[@]}" "$program" processes 2
ends "on two nodes too, where each refuses" "MORAY_PROCESSES_MAX" 2 \
    env "${few[@]}" "${mpirun[@]}" -n 2 "$program" processes 4
ends "of many actors each has its turn, and its own calls" "^done" 1 \
    env "${few[@]}" "$program" many 60
ends "on two nodes too, each its turn" "^done" 2 \
    env "${few[@]}" "${mpirun[@]}" -n 2 "$program" many 60
ends "an actor goes where what it asks for can be" "^done" 2 \
    "${mpirun[@]}" -n 1 env MORAY_CORES=1 "$program" unlike : \
    -n 1 env MORAY_WORKERS=2 "$program" unlike
ends "an actor waits for the first node whose cores are free again" "^done" 2 \
    env MORAY_WORKERS=2 "${mpirun[@]}" -n 2 "$program" held
ends "where a node has no room for all results of a task, each is right or says so" "^done" 2 \
    "${mpirun[@]}" -n 1 "$program" results 12000 : \
    -n 1 env MORAY_QUEUE_MAX=64 "$program" results 12000
fails "a moray_setup for which a rank has no room ends the job" "no room for the 65536 bytes of a moray_setup" \
    "${mpirun[@]}" -n 1 "$program" setup : -n 1 env MORAY_STORE_BYTES=16MiB MORAY_WORKERS=2 "$program" setup
tap_done
