#!/bin/bash
# Whole jobs under AddressSanitizer and UndefinedBehaviorSanitizer: the programs of laws and that of
# section 5, alone and on 2 ranks over both fabrics. No word of a sanitizer may come.
#
#   sanitizers.sh BUILD SOURCE      makes a build of its own in BUILD/sanitized (a minute the first time)
#
# Leaks are not looked for: Open MPI has its own. Signals stay ours, since laws are about them.
set -u
here=$(dirname "$(realpath "$0")")
# shellcheck source=tests/tap.sh
. "$here/../tap.sh"

build=$1/sanitized source=$2
programs=(apps/quickstart/section5 tests/laws_objects tests/laws_object_lifetime tests/laws_references
    tests/laws_tasks tests/laws_inherited tests/laws_actors tests/laws_actor_deaths
    tests/laws_actor_lifetime tests/laws_nesting tests/laws_gcs tests/laws_bad_input tests/test_message)
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
export ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1
for signal in segv abort sigbus sigfpe sigill; do ASAN_OPTIONS+=:handle_$signal=0; done
export MORAY_STORE_BYTES=256MiB

make_build() {
    [ -e "$build/build.ninja" ] ||
        meson setup "$build" "$source" -Dbuildtype=debug -Doptimization=1 -Db_lundef=false \
            -Db_sanitize=address,undefined || return
    ninja -C "$build" "${programs[@]}"
}

# clean NAME COMMAND…: it ends well and no sanitizer speaks.
clean() {
    local name=$1 output code=0
    shift
    output=$(tap_limit 120 "$@" 2>&1 </dev/null) || code=$?
    if [ "$code" = 0 ] && ! grep -q "^not ok\|AddressSanitizer\|runtime error:" <<<"$output"; then
        tap_ok "$name"
    else
        tap_fail "$name" "exit status $code: $(grep -v '^ok' <<<"$output")"
    fi
}

ulimit -s 65536 # laws pass blocks of 1.5 MiB by value, and a sanitizer's frames are several times as large
cd "$1" || exit 1
if ! output=$(make_build 2>&1); then
    tap_fail "a build with sanitizers" "$output"
    tap_done
    exit
fi
tap_ok "a build with sanitizers"
clean "rows of messages" "$build/tests/test_message"
clean "section 5, alone" "$build/apps/quickstart/section5"
for fabric in ofi mpi; do
    clean "section 5, 2 ranks, $fabric" env MORAY_FABRIC=$fabric MORAY_SHARE=0 \
        mpirun --oversubscribe -n 2 "$build/apps/quickstart/section5"
done
for name in tasks inherited bad_input; do
    clean "laws of $name, alone" "$here/laws.sh" "$build/tests/laws_$name" 0
done
for name in objects:ofi object_lifetime:ofi references:ofi tasks:mpi inherited:mpi actors:ofi \
    actor_deaths:ofi actor_lifetime:ofi nesting:mpi gcs:ofi; do
    clean "laws of ${name%:*}, 2 ranks, ${name#*:}" "$here/laws.sh" \
        "$build/tests/laws_${name%:*}" 2 "MORAY_FABRIC=${name#*:}"
done
tap_done
