# Sourced by the test scripts: cases reported as TAP, with a time limit each. (No #! line: bash.)
#
#   tap_skip_all WHY                  the whole script is skipped: prints why, ends
#   tap_ok NAME · tap_fail NAME [WHY] · tap_skip NAME WHY        one case
#   tap_run SECONDS NAME COMMAND…     the case is: the command ends with 0 in time
#   tap_output SECONDS NAME WANT COMMAND…    … and its stdout is WANT, to the letter
#   tap_done                          the plan; the script then ends with 0, since TAP told the rest
# What a failed command printed follows as comments. TEST_TIMES=N multiplies the limits.
# shellcheck shell=bash

tap_count=0

tap_skip_all() { echo "1..0 # SKIP $*"; exit 0; }
tap_ok() { tap_count=$((tap_count + 1)); echo "ok $tap_count - $1"; }
tap_skip() { tap_count=$((tap_count + 1)); echo "ok $tap_count - $1 # SKIP $2"; }

tap_fail() {
    tap_count=$((tap_count + 1))
    echo "not ok $tap_count - $1"
    [ -z "${2:-}" ] || printf '%s\n' "$2" | tail -n 60 | sed 's/^/# /'
}

# `timeout` sends SIGTERM at the limit and, 10 s later, SIGKILL; --foreground leaves process groups
# as they are, so that a test's own signals reach whom they are meant for.
tap_limit() {
    local seconds=$1
    shift
    timeout --kill-after=10 "$((seconds * ${TEST_TIMES:-1}))" "$@"
}

tap_run() {
    local seconds=$1 name=$2 output code=0
    shift 2
    output=$(tap_limit "$seconds" "$@" 2>&1) || code=$?
    if [ "$code" = 0 ]; then
        tap_ok "$name"
    else
        tap_fail "$name" "exit status $code (124: past its limit of $seconds s) of: $*
$output"
    fi
}

tap_output() {
    local seconds=$1 name=$2 want=$3 output code=0 errors
    shift 3
    errors=$(mktemp)
    output=$(tap_limit "$seconds" "$@" 2>"$errors") || code=$?
    if [ "$code" = 0 ] && [ "$output" = "$want" ]; then
        tap_ok "$name"
    else
        tap_fail "$name" "exit status $code of: $*
wanted: $want
printed: $output
$(cat "$errors")"
    fi
    rm -f "$errors"
}

tap_done() { echo "1..$tap_count"; }
