#!/bin/sh
# Every function that moray.h declares is in the library, and every function that the library shows is
# declared there: nothing promised and missing, nothing shown in secret.
# usage: exported.sh COMPILER HEADER LIBRARY   exit: 0 so, 1 not, 2 nothing to compare
set -eu

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# A declaration at file scope is a line that begins with a type and ends with ";" once its lines are
# joined; inline functions have a body, so they end otherwise.
"$1" -E -P "$2" | tr '\n' ' ' | sed 's/{[^{}]*}//g; s/{[^{}]*}//g; s/;/;\n/g' |
    sed -nE 's/^.*[ *](moray_[a-z0-9_]+) *\(.*\) *(__attribute__ *\(\(.*\)\))? *;$/\1/p' | grep -v '^moray_submit_into$\|^moray_pass$' |
    sort -u >"$work/declared"
nm -D --defined-only --format=posix "$3" | awk '$2 == "T" { print $1 }' | sort -u >"$work/shown"
if [ ! -s "$work/declared" ] || [ ! -s "$work/shown" ]; then
    echo "nothing to compare" >&2
    exit 2
fi
comm -23 "$work/declared" "$work/shown" | sed 's/^/declared, but not in the library: /' >"$work/wrong"
comm -13 "$work/declared" "$work/shown" | sed 's/^/in the library, but not declared: /' >>"$work/wrong"
cat "$work/wrong"
[ ! -s "$work/wrong" ]
