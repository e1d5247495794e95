#!/bin/bash
# However a job ends, it ends within 5 s, with a status that is not 0 where it failed, and leaves
# nothing: no process, memory, file or socket.
#
#   test_ends.sh MORAY PROGRAM WAY…      PROGRAM is tests/ends/ends; ways: alone, without a launcher,
#                                        three ranks with the fabric ofi or mpi, the same on two
#                                        hosts: hosts-ofi, hosts-mpi, or kills at random times of
#                                        the first second: early-ofi, early-mpi
#
# EARLY=N kills so often (12), EARLY_SEED=N at other times.
# Processes are found by a variable of ours in their environment, which every descendant inherits,
# processes of users and of Open MPI too. As root the test runs in a network of its own, with a
# /dev/shm of its own, so that all sockets and files there are the job's.
set -u
here=$(dirname "$(realpath "$0")")
# shellcheck source=tests/tap.sh
. "$here/../tap.sh"

hosts=$here/../hosts/hosts
PATH=$PATH:/usr/sbin:/sbin
if [[ " $* " == *" hosts-"* ]]; then # hosts have all that for themselves
    [ "$(id -u)" = 0 ] || tap_skip_all "network namespaces need root"
elif [ "$(id -u)" = 0 ] && [ -z "${ENDS_ALONE:-}" ] && unshare --net --mount true 2>/dev/null; then
    # shellcheck disable=SC2016 # expanded by the inner shell
    ENDS_ALONE=1 exec unshare --net --mount bash -c \
        'ip link set lo up; mount -t tmpfs moray-ends /dev/shm; exec "$@"' alone "$0" "$@"
fi

moray=$(realpath "$1") program=$(realpath "$2")
shift 2
limit_ms=$((5000 * ${TEST_TIMES:-1}))

work=$(mktemp -d)
export TMPDIR=$work/tmp OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
mkdir "$TMPDIR"
tag=moray-ends-$$
sockets() { awk '$NF ~ /^@/ { print $NF }' /proc/net/unix | sort -u; }

# Live processes of the job. A dead one that nobody has reaped yet is none.
processes() {
    local process
    grep -lsF "ENDS_TAG=$tag" /proc/[0-9]*/environ | while IFS=/ read -r _ _ process _; do
        grep -qs '^State:.[ZX]' "/proc/$process/status" || echo "$process"
    done
}
# shellcheck disable=SC2317 # called by the trap
clean_up() {
    local pid
    for pid in $(processes); do kill -9 "$pid" 2>/dev/null; done
    [ -z "${HOSTS_DIR:-}" ] || "$hosts" down
    rm -rf "$work"
}
trap clean_up EXIT
trap 'exit 143' INT TERM HUP

line_of() { { tr '\0' ' ' < "/proc/$1/cmdline"; } 2>/dev/null; }
name_of() { cat "/proc/$1/comm" 2>/dev/null; }
rank_of() { { tr '\0' '\n' < "/proc/$1/environ"; } 2>/dev/null | sed -n 's/^OMPI_COMM_WORLD_RANK=//p'; }
parent_of() { sed -n 's/^PPid:\t//p' "/proc/$1/status" 2>/dev/null; }

# The process that is meant by a word: moray, launcher, rank N, zygote N (that of rank N).
find_process() {
    local what=$1 number=${2:-} pid name
    name=$(basename "$program")
    for pid in $(processes); do
        case $what in
        launcher) case $(name_of "$pid") in mpirun | orterun) echo "$pid"; return ;; esac ;;
        rank) # not its zygote, which has another name, nor workers, which are the zygote's
            [ "$(name_of "$pid")" = "${name:0:15}" ] && [ "$(rank_of "$pid")" = "$number" ] &&
                case $(name_of "$(parent_of "$pid")") in
                mpirun | orterun | orted) echo "$pid"; return ;;
                esac ;;
        zygote)
            [ "$(name_of "$pid")" = moray-zygote ] && [ "$(rank_of "$pid")" = "$number" ] &&
                { echo "$pid"; return; } ;;
        esac
    done
}

left() {
    local pid
    for pid in $(processes); do
        echo "process $pid $(name_of "$pid") $(line_of "$pid")"
        grep -ho '/memfd:moray[^ ]*' "/proc/$pid/maps" 2>/dev/null | sort -u | sed 's/^/memory /'
    done
    if [ -n "${HOSTS_DIR:-}" ]; then
        "$hosts" left
        return
    fi
    comm -13 "$work/sockets" <(sockets) | sed 's/^/socket /'
    find "$TMPDIR" -mindepth 1 | sed 's/^/file /'
    [ -z "${ENDS_ALONE:-}" ] || find /dev/shm -mindepth 1 | sed 's/^/file /'
}

now_ms() { echo $(($(date +%s%N) / 1000000)); }

wait_for_ready() {
    local until_ms
    until_ms=$(($(now_ms) + 20000 * ${TEST_TIMES:-1}))
    until grep -qs ready "$work/out"; do
        [ "$(now_ms)" -lt "$until_ms" ] && kill -0 "$1" 2>/dev/null || return 1
        sleep 0.05
    done
}

# Who is to be killed; before the program is ready he may not be there yet.
find_to_kill() { # WHAT NUMBER JOB
    local pid=""
    if [ "$1" = moray ]; then pid=$3; else pid=$(find_process "$1" "$2"); fi
    while [ -z "$pid" ] && [ -n "${after_ms:-}" ] && kill -0 "$3" 2>/dev/null; do
        sleep 0.02
        pid=$(find_process "$1" "$2")
    done
    echo "$pid"
}

said() { grep '^moray' "$work/err" | grep -q "$says"; }

# ends NAME STATUS MODE "ACTION" COMMAND…: the command, given MODE, says that it is ready, the action
# is done, and the job is gone in time. STATUS: a number, "failed" (not 0) or "any".
# The action is "kill SIGNAL WHAT [NUMBER]", or "-". With after_ms=N the action does not wait for the
# program to be ready, but comes N ms after the start, or as soon as there is somebody to be killed.
ends() {
    local name=$1 status=$2 mode=$3 action=$4 signal what number pid job code=0 begin_ms said_ms left=start
    local wrong=""
    shift 4
    sockets > "$work/sockets"
    : > "$work/out"
    # A shell's background jobs ignore SIGINT unless told otherwise.
    env --default-signal ENDS_TAG=$tag "$@" "$program" "$mode" >"$work/out" 2>"$work/err" </dev/null &
    job=$!
    if [ -n "${after_ms:-}" ]; then
        sleep "$(printf '0.%03d' "$after_ms")"
    elif ! wait_for_ready $job && [ "$action" != - ]; then
        wrong="it never became ready;"
    fi
    if [ "$action" != - ]; then
        read -r _ signal what number <<< "$action"
        pid=$(find_to_kill "$what" "$number" $job)
        [ -n "$pid" ] || wrong="$wrong there is no $what $number to be killed;"
        [ -z "$pid" ] || kill "-$signal" "$pid"
    fi
    begin_ms=$(now_ms)
    if [ "${says:-}" ]; then
        # Who was lost is said by those that are left, not only by mpirun; and they know it within 2 s.
        until said || [ $(($(now_ms) - begin_ms)) -gt "$limit_ms" ]; do sleep 0.02; done
        said_ms=$(($(now_ms) - begin_ms))
        said || wrong="$wrong nobody said '$says';"
        [ "$said_ms" -le $((2000 * ${TEST_TIMES:-1})) ] || wrong="$wrong it was said after $said_ms ms;"
    fi
    until left=$(left); [ -z "$left" ] || [ $(($(now_ms) - begin_ms)) -gt "$limit_ms" ]; do sleep 0.05; done
    [ -z "$left" ] || wrong="$wrong after $((limit_ms / 1000)) s there is still: $left;"
    for pid in $(processes); do kill -9 "$pid" 2>/dev/null; done
    { wait $job || code=$?; } 2>/dev/null
    case $status in
    any) ;;
    failed) [ "$code" != 0 ] || wrong="$wrong it failed, and the exit status is 0;" ;;
    *) [ "$code" = "$status" ] || wrong="$wrong the exit status is $code, not $status;" ;;
    esac
    if [ -z "$wrong" ]; then tap_ok "$name"; else
        tap_fail "$name" "$wrong
$(cat "$work/out" "$work/err")"
        # So that the next case is judged by itself:
        rm -rf "${TMPDIR:?}"/*
        [ -z "${ENDS_ALONE:-}" ] || find /dev/shm -mindepth 1 -delete
        [ -z "${HOSTS_DIR:-}" ] || { "$hosts" down; "$hosts" up 2; }
    fi
}

with_no_launcher() {
    ends "alone: moray_finalize" 0 finalize -
    ends "alone: return of main" any return -
    ends "alone: exit(3) in the driver" 3 exit -
    ends "alone: abort in the driver" 134 abort -
    ends "alone: SIGSEGV in the driver" 139 segv -
    ends "alone: SIGINT" failed wait "kill INT moray"
    ends "alone: SIGTERM" failed wait "kill TERM moray"
    ends "alone: SIGKILL" 137 wait "kill KILL moray"
    ends "alone: SIGKILL of the zygote" failed wait "kill KILL zygote"
}

several() { # FABRIC
    local fabric=$1 run recovery
    export MORAY_FABRIC=$fabric
    run=("$moray" run --quiet -n 3)
    # mpirun ends nobody here: the ranks themselves must see the loss.
    recovery=("${run[@]}" --launcher-options --enable-recovery)
    ends "$fabric: moray_finalize" 0 finalize - "${run[@]}"
    ends "$fabric: return of main" any return - "${run[@]}"
    ends "$fabric: exit(3) in the driver" 3 exit - "${run[@]}"
    ends "$fabric: abort in the driver" 134 abort - "${run[@]}"
    ends "$fabric: SIGSEGV in the driver" 139 segv - "${run[@]}"
    ends "$fabric: SIGINT to moray run" 130 wait "kill INT moray" "${run[@]}"
    ends "$fabric: SIGTERM to moray run" 143 wait "kill TERM moray" "${run[@]}"
    ends "$fabric: SIGKILL of moray run" 137 wait "kill KILL moray" "${run[@]}"
    ends "$fabric: SIGINT to mpirun" failed wait "kill INT launcher" "${run[@]}"
    ends "$fabric: SIGTERM to mpirun" failed wait "kill TERM launcher" "${run[@]}"
    ends "$fabric: SIGKILL of mpirun under moray run" failed wait "kill KILL launcher" "${run[@]}"
    ends "$fabric: SIGKILL of mpirun by itself" 137 wait "kill KILL moray" \
        mpirun --oversubscribe -n 3 --mca pml ob1
    ends "$fabric: SIGKILL of rank 0" failed wait "kill KILL rank 0" "${run[@]}"
    ends "$fabric: SIGKILL of rank 2" failed wait "kill KILL rank 2" "${run[@]}"
    says="rank 2" ends "$fabric: SIGKILL of rank 2, seen by Moray alone" any wait \
        "kill KILL rank 2" "${recovery[@]}"
    ends "$fabric: SIGKILL of rank 0, seen by Moray alone" any wait "kill KILL rank 0" \
        "${recovery[@]}"
    says="rank 2" ends "$fabric: SIGKILL of rank 2's zygote" failed wait "kill KILL zygote 2" \
        "${run[@]}"
}

# While the job is being set up: whoever is killed, and whenever.
early() { # FABRIC
    local victims=(moray launcher "rank 0" "rank 1" "rank 2" "zygote 0" "zygote 2") victim i
    export MORAY_FABRIC=$1
    RANDOM=${EARLY_SEED:-1}
    for i in $(seq "${EARLY:-12}"); do
        victim=${victims[i % ${#victims[@]}]} after_ms=$((RANDOM % 1000))
        [ $((i % 2)) = 0 ] || after_ms=$((after_ms / 4)) # half of them before anything is up
        ends "$1: SIGKILL of $victim, $after_ms ms after the start" failed wait \
            "kill KILL $victim" "$moray" run --quiet -n 3
    done
    after_ms=""
}

# Ranks 0 and 2 on one host, rank 1 on another. What our own command does is not asked here.
between_hosts() { # FABRIC
    local name="$1 between hosts" run recovery
    export MORAY_FABRIC=$1 HOSTS_DIR=$work/hosts
    "$hosts" up 2 || { tap_fail "$name: hosts"; return; }
    run=("$hosts" mpirun -x ENDS_TAG -n 3)
    recovery=("${run[@]}" --enable-recovery)
    ends "$name: moray_finalize" 0 finalize - "${run[@]}"
    ends "$name: exit(3) in the driver" 3 exit - "${run[@]}"
    ends "$name: SIGSEGV in the driver" 139 segv - "${run[@]}"
    ends "$name: SIGTERM to mpirun" failed wait "kill TERM moray" "${run[@]}"
    ends "$name: SIGKILL of mpirun" 137 wait "kill KILL moray" "${run[@]}"
    ends "$name: SIGKILL of rank 0" failed wait "kill KILL rank 0" "${run[@]}"
    says="rank 1" ends "$name: SIGKILL of rank 1, seen by Moray alone" any wait \
        "kill KILL rank 1" "${recovery[@]}"
    ends "$name: SIGKILL of rank 0, seen by Moray alone" any wait "kill KILL rank 0" \
        "${recovery[@]}"
    says="rank 1" ends "$name: SIGKILL of rank 1's zygote" failed wait "kill KILL zygote 1" \
        "${run[@]}"
    "$hosts" down
    unset HOSTS_DIR
}

for way; do
    case $way in
    alone) with_no_launcher ;;
    hosts-*) between_hosts "${way#hosts-}" ;;
    early-*) early "${way#early-}" ;;
    *) several "$way" ;;
    esac
done
tap_done
