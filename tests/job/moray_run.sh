#!/bin/bash
# The command moray: what it runs, what it says, what it ends with.
#
#   moray_run.sh MORAY SECTION5
set -u
here=$(dirname "$(realpath "$0")")
# shellcheck source=tests/tap.sh
. "$here/../tap.sh"

moray=$(realpath "$1") section5=$(realpath "$2")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 143' INT TERM HUP
cd "$work" || exit 1
unset OMPI_ALLOW_RUN_AS_ROOT OMPI_ALLOW_RUN_AS_ROOT_CONFIRM # the command's own work

# status NAME WANT TEXT COMMAND…: it ends with WANT, and says TEXT on stdout or stderr.
status() {
    local name=$1 want=$2 text=$3 output code=0
    shift 3
    output=$(tap_limit 30 "$@" 2>&1) || code=$?
    if [ "$code" = "$want" ] && [[ $output == *"$text"* ]]; then tap_ok "$name"; else
        tap_fail "$name" "exit status $code, not $want, or no '$text' in:
$output"
    fi
}

want=$("$section5" 2>/dev/null)
for ranks in 1 2 4; do
    tap_output 30 "$ranks ranks print what the program prints alone" "$want" \
        "$moray" run -n $ranks "$section5"
done
status "the line is printed" 0 "mpirun -n 2" "$moray" run -n 2 "$section5"
status "one rank starts no launcher" 0 "moray run: $section5" "$moray" run -n 1 "$section5"
tap_output 10 "arguments arrive as they are" "a b|--c|'" "$moray" run -n 1 -- \
    bash -c 'IFS="|"; echo "$*"' - 'a b' --c "'"
status "an exit status is passed on" 7 "" "$moray" run -- sh -c 'exit 7'
status "an exit status is passed on by mpirun" 7 "" "$moray" run -n 2 -- sh -c 'exit 7'
status "a signal is passed on by mpirun" 139 "" "$moray" run -n 2 -- sh -c 'kill -SEGV $$'
status "a program that is not there is named" 127 "./nothing" "$moray" run -n 2 ./nothing
# shellcheck disable=SC2016 # the inner shell's
status "without a standard input it waits for the program as long as that takes" 0 "six seconds" \
    bash -c 'exec "$0" run -n 2 -- sh -c "sleep 6; echo six seconds" <&-' "$moray"
touch plain
status "a file that is no program is named" 126 "./plain" "$moray" run -n 2 ./plain
status "no program" 2 "no program" "$moray" run -n 2
status "no ranks" 2 "-n must be" "$moray" run -n 0 "$section5"
status "text for ranks" 2 "-n must be" "$moray" run -n two "$section5"
status "a chaos that cannot be" 2 "worker=TIME" "$moray" run --chaos 100ms "$section5"
status "an unknown launcher" 2 "--launcher" "$moray" run --launcher qsub "$section5"
status "an unknown option" 2 "--help" "$moray" run --fast "$section5"
status "an unknown command" 2 "no command 'walk'" "$moray" walk
status "no command" 2 "Usage" "$moray"
status "the version" 0 "moray " "$moray" version
status "the settings and where they come from" 0 "environment" env MORAY_WORKERS=3 "$moray" settings
status "a setting that cannot be is named" 2 "MORAY_WORKERS=many" \
    env MORAY_WORKERS=many "$moray" settings

# --gdb: a worker waits before the task; with gdb attached, the job goes on.
status "no such function for gdb" 1 "--gdb nothing" "$moray" run --gdb nothing "$section5"
if command -v gdb >/dev/null; then
    "$moray" run --gdb add "$section5" >out 2>err &
    job=$!
    for _ in $(seq 100); do
        pid=$(sed -n 's/.*waits before add: gdb -p \([0-9]*\).*/\1/p' err)
        [ -z "$pid" ] || break
        sleep 0.1
    done
    sleep 0.5
    if [ -n "$pid" ] && [ ! -s out ]; then tap_ok "a worker waits before the task"; else
        tap_fail "a worker waits before the task" "$(cat out err)"
    fi
    tap_limit 60 gdb -p "$pid" -batch -ex continue -ex backtrace -ex detach >trace 2>&1
    tap_limit 20 tail --pid=$job -f /dev/null || kill $job
    if [ "$(cat out)" = "$want" ] && grep -q stop_and_run trace; then
        tap_ok "gdb shows it there, and then the job goes on"
    else
        tap_fail "gdb shows it there, and then the job goes on" "$(cat out err trace)"
    fi
else
    tap_skip "gdb" "gdb is not installed"
fi
tap_done
