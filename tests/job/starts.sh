#!/bin/bash
# Jobs of several ranks that cannot start: each ends within 5 s, with a status that is not 0, and says
# what is to be changed.
#
#   starts.sh SAME LACKS OTHER_TYPE ONE_MORE OTHER_STATE      the same program and four that differ
set -u
# shellcheck source=tests/tap.sh
source "$(dirname "$0")/../tap.sh"

same=$1
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
export MORAY_HEAD=node MORAY_WORKERS=1
now_ms() { echo $(($(date +%s%N) / 1000000)); }

# refused NAME TEXT COMMAND…: TEXT is what is said, in one line.
refused() {
    local name=$1 text=$2 output code=0 begin_ms took_ms
    shift 2
    begin_ms=$(now_ms)
    output=$(tap_limit 20 "$@" 2>&1 </dev/null) || code=$?
    took_ms=$(($(now_ms) - begin_ms))
    if [ "$code" != 0 ] && [ "$code" != 124 ] && grep -q -- "^moray.*$text" <<<"$output" &&
        [ "$took_ms" -le $((5000 * ${TEST_TIMES:-1})) ]; then
        tap_ok "$name"
    else
        tap_fail "$name" "exit status $code after $took_ms ms, wanted the text $text: $output"
    fi
}

tap_output 20 "the same program on both ranks starts" 7 \
    mpirun --oversubscribe -n 1 "$same" : -n 1 "$same"
for fabric in ofi mpi; do
    export MORAY_FABRIC=$fabric
    differ() { refused "$fabric: $1" "$2" mpirun --oversubscribe -n 1 "$3" : -n 1 "$4"; }
    differ "a function that rank 1 lacks" "differ: changing(.* is not in that of rank 1" \
        "$same" "$2"
    differ "a function of another type on rank 1" \
        "differ: changing(int32_t:4) .* is on rank 1 changing(double:8)" "$same" "$3"
    differ "a function that rank 0 lacks" "differ: one_more(.* of rank 1 is not in that of rank 0" \
        "$same" "$4"
    differ "an actor of another state on rank 1" "differ: actor counter(8 bytes) .* is on rank 1 actor counter(16 bytes)" "$same" "$5"
done
export MORAY_FABRIC=ofi
apart=(env -u MORAY_WORKERS mpirun --oversubscribe -n 1 env MORAY_WORKERS=4 "$same" : -n 1 env)
refused "more workers by rank 0 than rank 1 has processes for" "rank 1 began with a MORAY_PROCESSES_MAX of 4" \
    "${apart[@]}" MORAY_CORES=1 MORAY_PROCESSES_MAX=4 MORAY_SPARES_MAX=1 "$same"
tap_output 20 "as many workers by rank 0 as rank 1 has processes for" 7 \
    "${apart[@]}" MORAY_CORES=1 MORAY_PROCESSES_MAX=6 MORAY_SPARES_MAX=1 "$same"
output=$(tap_limit 20 mpirun --oversubscribe -n 1 env MORAY_STORE_BYTES=64MiB "$same" : -n 1 "$same" 2>&1)
if grep -q "^7" <<<"$output" && grep -q "rank 1 .*MORAY_STORE_BYTES=64MiB, which came too late" <<<"$output"; then
    tap_ok "a rank that did not know rank 0's MORAY_STORE_BYTES in time says so"
else
    tap_fail "a rank that did not know rank 0's MORAY_STORE_BYTES in time says so" "$output"
fi
for provider in udp 'UDP;ofi_rxd' shm net sockets; do
    refused "the provider $provider is refused unless it is forced" "MORAY_PROVIDER='$provider!'" \
        env MORAY_PROVIDER="$provider" mpirun --oversubscribe -n 2 "$same"
done
tap_output 20 "a provider that behaves may be named" 7 \
    env MORAY_PROVIDER='tcp;ofi_rxm' mpirun --oversubscribe -n 2 "$same"
refused "a provider that is not there is named" "no provider bogus .*leave MORAY_PROVIDER empty" \
    env MORAY_SHARE=0 MORAY_PROVIDER=bogus mpirun --oversubscribe -n 2 "$same" long
refused "a FI_PROVIDER that hides Moray's is named" "no provider tcp.*FI_PROVIDER=verbs .*unset it" \
    env MORAY_SHARE=0 FI_PROVIDER=verbs mpirun --oversubscribe -n 2 "$same" long
# From how many on it is Moray, not the shell or MPI, that has one too few differs from place to place.
for files in 24 26 28 30 32; do
    output=$(tap_limit 20 mpirun --oversubscribe -n 2 bash -c "ulimit -n $files; exec $same" 2>&1 </dev/null)
    ! grep -q "^moray.*Too many open files (ulimit -n" <<<"$output" || break
done
if [[ $output == *"(ulimit -n"* ]]; then tap_ok "too few descriptors: the limit is named"; else
    tap_fail "too few descriptors: the limit is named" "$output"
fi
tap_output 20 "a ! takes the provider that was named" 7 \
    env MORAY_PROVIDER='tcp;ofi_rxm!' mpirun --oversubscribe -n 2 "$same"
tap_done
