#!/bin/bash
# What processes a job has, and on which cores, as the system sees them (processes.c; decisions.md 16,
# 17, 18, 20): however it was started, its workers have the job's cores, one each.
#
#   processes.sh PROGRAM MORAY
set -u
# shellcheck source=tests/tap.sh
source "$(dirname "$0")/../tap.sh"

program=$1 moray=$2
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 MORAY_STORE_BYTES=64MiB
unset MORAY_CORES MORAY_WORKERS MORAY_HEAD MORAY_SHARE

shape_of() { # ARENAS-OF-THE-DRIVER MPI
    local arenas="arenas to write, each mapped to read as well"
    echo "worker: one thread, no MPI, 1 $arenas
zygote: one thread, no MPI, 1 $arenas
driver: more than one thread, $2 MPI, $1 $arenas
0 variables of the launcher"
}
tap_output 20 "the zygote was forked before threads; one rank starts no MPI" "$(shape_of 1 no)" \
    "$program" shape
tap_output 20 "the zygote was forked before MPI; a head alone is in its node's arena" \
    "$(shape_of 2 with)" mpirun --oversubscribe -n 2 "$program" shape
tap_output 20 "without sharing it is not" "$(shape_of 1 with)" \
    env MORAY_SHARE=0 mpirun --oversubscribe -n 2 "$program" shape
tap_output 20 "only rank 0 goes on after moray_init" "0 of 4" \
    mpirun --oversubscribe -n 4 "$program" rank

killed="workers were killed, 0 other zygotes, the actor counts 200 of 200"
for ranks in 1 2; do
    tap_output 60 "moray run --chaos kills workers and nobody else, $ranks ranks" "$killed" \
        "$moray" run --quiet -n $ranks --chaos worker=100ms,seed=3 "$program" chaos
done

# The first two cores that we may use; one thread of each.
mapfile -t allowed < <(sed -n 's/^Cpus_allowed_list:\t//p' /proc/self/status | tr , '\n' |
    while IFS=- read -r from to; do seq "$from" "${to:-$from}"; done)
a=${allowed[0]} b=""
for cpu in "${allowed[@]:1}"; do
    grep -qxE "(.*[,-])?$a([,-].*)?" "/sys/devices/system/cpu/cpu$cpu/topology/thread_siblings_list" ||
        { b=$cpu; break; }
done
if [ -z "$b" ]; then
    tap_skip "which cores workers have" "one core is too few to tell"
    tap_done
    exit
fi
both=$(taskset -c "$a,$b" sed -n 's/^Cpus_allowed_list:\t//p' /proc/self/status)

# cores NAME DRIVER WORKERS COMMAND…: the cores that the driver may run on, and each worker, by rank.
cores() {
    local name=$1 driver=$2 workers=$3
    shift 3
    tap_output 20 "$name: the workers" "$workers" taskset -c "$a,$b" "$@" "$program" cores
    tap_output 20 "$name: the driver" "0: $driver" taskset -c "$a,$b" "$@" "$program" driver
}
of_rank() { printf '%s: %s\n' "$1" "$a" "$1" "$b"; }
floating="1: $both
2: $both
3: $both"
cores "alone" "$both" "$(of_rank 0)"
cores "mpirun -n 1" "$both" "$(of_rank 0)" mpirun -n 1
cores "mpirun -n 2" "$both" "$(of_rank 1)" mpirun -n 2
cores "mpirun --oversubscribe -n 4" "$both" "$floating" mpirun --oversubscribe -n 4
cores "mpirun --host localhost:4 -n 4" "$both" "$floating" mpirun --host localhost:4 -n 4
cores "mpirun --bind-to none -n 2" "$both" "$(of_rank 1)" mpirun --bind-to none -n 2
cores "two nodes share the host" "$a" "0: $a
1: $b" env MORAY_HEAD=node mpirun --oversubscribe -n 2
cores "a job that has one core" "$b" "0: $b" taskset -c "$b"
cores "MORAY_CORES=1" "$both" "0: $a" env MORAY_CORES=1
cores "MORAY_CORES=$b-$b" "$both" "0: $b" env "MORAY_CORES=$b-$b"
cores "MORAY_WORKERS=1" "$both" "0: $a" env MORAY_WORKERS=1
cores "more workers than cores" "$both" "0: $both
0: $both
0: $both" env MORAY_WORKERS=3
tap_output 20 "more workers than cores, by rank 0's setting: the workers" "1: $both
1: $both
1: $both" mpirun --oversubscribe -n 1 taskset -c "$a,$b" env MORAY_WORKERS=3 "$program" cores : \
    -n 1 taskset -c "$a,$b" "$program" cores
tap_done
