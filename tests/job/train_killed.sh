#!/bin/bash
# A worker that dies in the middle of the training changes nothing but the time.
#
#   train_killed.sh TRAIN
#
# MORAY_CHAOS kills a random worker about every 300 ms: in the preparation, in a gradient, while it
# scores, between two tasks.
set -u
here=$(dirname "$(realpath "$0")")
# shellcheck source=tests/tap.sh
. "$here/../tap.sh"

train=$(realpath "$1")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 143' INT TERM HUP
cd "$work" || exit 1
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1

value() { sed -n "s/.*\"$1\": *\"\\{0,1\\}\\([^\",}]*\\).*/\\1/p" "$2"; }

options=(--epochs 4 --seed 9 --svg none)
tap_run 60 "plain: the bits to come to" "$train" --plain "${options[@]}" --json plain.json
retries=0
for ranks in 1 2; do
    for seed in 1 2 3; do
        name="$ranks ranks, workers killed by seed $seed: the same bits"
        rm -f killed.json
        output=$(MORAY_CHAOS=worker=300ms,seed=$seed MORAY_REPORT_LEAKS=1 tap_limit 120 \
            mpirun --oversubscribe -n $ranks "$train" "${options[@]}" --json killed.json 2>&1)
        if [ -s killed.json ] && [ "$(value digest killed.json)" = "$(value digest plain.json)" ]; then
            tap_ok "$name"
            retries=$((retries + $(value retries killed.json)))
        else
            tap_fail "$name" "$output"
        fi
        name="$ranks ranks, workers killed by seed $seed: no byte of the store is lost"
        if [ "$(grep -c 'in use: 0 objects, 0 records, 0 bytes' <<<"$output")" = $ranks ]; then
            tap_ok "$name"
        else
            tap_fail "$name" "$output"
        fi
    done
done
if [ "$retries" -gt 0 ]; then tap_ok "tasks were tried again ($retries times)"; else
    tap_fail "tasks were tried again" "no retries: nothing was killed, so nothing was tested"
fi
tap_done
