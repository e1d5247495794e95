#!/bin/bash
# The training gives the same bits however it is run, and is good enough, fast enough, well behaved.
#
#   train.sh TRAIN
#
# The yardstick is `train --plain`: the same computation without the runtime.
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

# same NAME FIELD=WANT… -- COMMAND…: the command trains for one epoch with seed 5 and comes to the
# digest of the yardstick; the other fields of its figures are as wanted.
same() {
    local name=$1 output code=0 field wrong="" wants=()
    shift
    while [ "$1" != -- ]; do wants+=("$1"); shift; done
    shift
    rm -f figures.json
    output=$(tap_limit 60 "$@" --epochs 1 --seed 5 --svg none --json figures.json 2>&1) || code=$?
    [ "$code" = 0 ] || wrong="exit status $code;"
    for field in digest="$digest" ${wants[@]+"${wants[@]}"}; do
        [ -s figures.json ] && [ "$(value "${field%%=*}" figures.json)" = "${field#*=}" ] ||
            wrong="$wrong ${field%%=*} is not ${field#*=};"
    done
    if [ -z "$wrong" ]; then tap_ok "$name"; else tap_fail "$name" "$wrong $*
$output"; fi
}

# nothing_kept NAME RANKS COMMAND…: at the end every rank says that nothing of the store is in use.
nothing_kept() {
    local name=$1 ranks=$2 output code=0
    shift 2
    output=$(MORAY_REPORT_LEAKS=1 tap_limit 60 "$@" --epochs 1 --svg none 2>&1) || code=$?
    if [ "$code" = 0 ] &&
        [ "$(grep -c 'in use: 0 objects, 0 records, 0 bytes' <<<"$output")" = "$ranks" ]; then
        tap_ok "$name"
    else
        tap_fail "$name" "exit status $code: $output"
    fi
}

# refused NAME STATUS TEXT COMMAND…: it ends with that status and says the text.
refused() {
    local name=$1 status=$2 text=$3 output code=0
    shift 3
    output=$(tap_limit 30 "$@" 2>&1) || code=$?
    if [ "$code" = "$status" ] && [[ $output == *"$text"* ]]; then tap_ok "$name"; else
        tap_fail "$name" "exit status $code, not $status, or no '$text' in: $output"
    fi
}

tap_run 60 "plain: trains" "$train" --plain --epochs 1 --seed 5 --svg none --json plain.json
digest=$(value digest plain.json)
same "plain: one process comes to the same bits as two" workers=1 ranks=1 -- \
    "$train" --plain --processes 1
same "alone: the same bits as plain processes" ranks=1 -- "$train"
same "one worker: the same bits" workers=1 -- env MORAY_WORKERS=1 "$train"
same "two workers: the same bits" workers=2 -- env MORAY_WORKERS=2 "$train"
for ranks in 1 2 4; do
    same "mpirun, $ranks ranks: the same bits" ranks=$ranks retries=0 -- \
        mpirun --oversubscribe -n $ranks "$train"
done
for fabric in ofi mpi; do
    same "$fabric, no shared memory, 2 ranks: the same bits" ranks=2 -- \
        env MORAY_SHARE=0 MORAY_FABRIC=$fabric mpirun --oversubscribe -n 2 "$train"
done

nothing_kept "1 rank keeps nothing" 1 "$train"
nothing_kept "3 ranks keep nothing" 3 mpirun --oversubscribe -n 3 "$train"
nothing_kept "2 ranks without shared memory keep nothing" 2 \
    env MORAY_SHARE=0 mpirun --oversubscribe -n 2 "$train"

tap_run 60 "another seed trains" "$train" --plain --epochs 1 --seed 6 --svg none --json other.json
if [ "$(value digest other.json)" != "$digest" ]; then tap_ok "another seed: other bits"; else
    tap_fail "another seed: other bits" "seeds 5 and 6 come to the same digest"
fi

if tap_limit 120 "$train" --json whole.json >whole.out 2>&1; then
    tap_ok "the whole training, within two minutes"
else
    tap_fail "the whole training, within two minutes" "$(cat whole.out)"
fi
if awk -v a="$(value accuracy whole.json)" 'BEGIN { exit !(a >= 0.88) }'; then
    tap_ok "88 % of the test images are named rightly"
else
    tap_fail "88 % of the test images are named rightly" "$(cat whole.json whole.out)"
fi
for field in accuracy loss seconds images_per_second digest ranks workers retries; do
    [ -n "$(value $field whole.json)" ] || lacks="${lacks:-}$field "
done
if [ -z "${lacks:-}" ] && [ "$(grep -c '":' whole.json)" = 8 ]; then
    tap_ok "the figures have all their fields"
else
    tap_fail "the figures have all their fields" "without ${lacks:-}: $(cat whole.json)"
fi
epochs=$(grep -c -E '^epoch +[0-9]+ .*loss [0-9.]+ .*accuracy [0-9.]+ %  [0-9]+ images/s$' whole.out)
if [ "$epochs" -ge 2 ] && [ "$epochs" = "$(grep -c '^epoch' whole.out)" ]; then
    tap_ok "each epoch tells loss, accuracy and images/s"
else
    tap_fail "each epoch tells loss, accuracy and images/s" "$(cat whole.out)"
fi
# Ten rows of ten numbers, which are the test images of each kind: 1000.
confusion=$(awk 'NF == 11 && $2 + $3 + $4 + $5 + $6 + $7 + $8 + $9 + $10 + $11 == 1000' whole.out | grep -c .)
if [ "$confusion" = 10 ]; then tap_ok "the confusion table counts all test images"; else
    tap_fail "the confusion table counts all test images" "$(cat whole.out)"
fi
if grep -q 'BLAS kernel [A-Z]' whole.out; then tap_ok "the BLAS kernel is fixed, and said"; else
    tap_fail "the BLAS kernel is fixed, and said" "$(cat whole.out)"
fi
if [ -s train.svg ] && grep -q '</svg>' train.svg; then tap_ok "the curve is drawn"; else
    tap_fail "the curve is drawn" "$(ls -l)"
fi
if grep -q $'\r' whole.out; then tap_fail "quiet in a pipe" "$(cat -A whole.out)"; else
    tap_ok "quiet in a pipe"
fi
progress=$(MORAY_PROGRESS=on tap_limit 60 "$train" --plain --epochs 1 --svg none)
if [[ $progress == *$'\r'* ]]; then tap_ok "MORAY_PROGRESS=on shows progress in a pipe"; else
    tap_fail "MORAY_PROGRESS=on shows progress in a pipe" "$progress"
fi

refused "a wrong option is named" 2 "--wrong" "$train" --wrong
refused "text for a number" 2 "--epochs many" "$train" --epochs many
refused "no epochs at all" 2 "from 1 to" "$train" --epochs 0
refused "a negative seed" 2 "--seed -1" "$train" --seed -1
refused "no data: the package is named" 1 "dataset-fashion-mnist" "$train" --data "$work/none"
refused "no data, plain" 1 "dataset-fashion-mnist" "$train" --plain --data "$work/none"
for way in "" --plain; do
    # shellcheck disable=SC2086 # no word or one
    refused "figures that cannot be written are no minute's work lost ${way:-distributed}" 1 \
        "$work/none/x.json" "$train" $way --epochs 1000 --json "$work/none/x.json"
    # shellcheck disable=SC2086
    refused "nor is a curve ${way:-distributed}" 1 "$work/none/x.svg" \
        "$train" $way --epochs 1000 --svg "$work/none/x.svg"
done
tap_done
