#!/bin/bash
# A rank gets messages that are proven and wrong (garbled.c): it ends the job with a word about it, or
# goes on; it never dies of a signal, and never hangs.
#
#   garbled.sh PROGRAM [FIRST-SEED COUNT]
set -u
# shellcheck source=tests/tap.sh
source "$(dirname "$0")/../tap.sh"

program=$1 first=${2:-1} count=${3:-12}
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
export MORAY_HEAD=node MORAY_WORKERS=2 MORAY_SHARE=0 MORAY_STORE_BYTES=64MiB

for seed in $(seq "$first" $((first + count - 1))); do
    fabric=$([ $((seed % 2)) = 0 ] && echo mpi || echo ofi)
    every=$((seed % 3 * 20 + 10)) code=0
    output=$(MORAY_FABRIC=$fabric tap_limit 30 mpirun --oversubscribe -n 2 "$program" "$seed" \
        "$every" 2>&1 </dev/null) || code=$?
    name="seed $seed, $fabric, one in $every: no crash, no hang"
    if grep -q "SIG[A-Z]*$\|Assertion\|AddressSanitizer\|runtime error:\|signal" <<<"$output" ||
        [ "$code" -ge 124 ] || { [ "$code" != 0 ] && ! grep -q "^moray" <<<"$output"; }; then
        tap_fail "$name" "exit status $code: $output"
    else
        tap_ok "$name, status $code"
    fi
done
tap_done
