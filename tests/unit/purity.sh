#!/bin/sh
# Fails if a pure core calls what it must not: clocks, threads, files, sockets, randomness, output.
# The linker's word, not a promise: what an archive needs and does not define itself must be in the
# list. Several archives count as one, so that a core may use another core's interface.
# usage: purity.sh ARCHIVE...   exit: 0 pure, 1 not, 2 no archive to look at
set -eu

[ $# -gt 0 ] || { echo "usage: purity.sh ARCHIVE..." >&2; exit 2; }
allowed='^(error_set_at|calloc|malloc|realloc|free|mem(cpy|move|set|cmp|chr)|bcmp|str(len|nlen|cmp|ncmp)|qsort|abort|__assert_fail|__stack_chk_fail|_GLOBAL_OFFSET_TABLE_)$'

symbols=$(nm --format=posix "$@" | awk 'NF >= 2')
[ -n "$symbols" ] || { echo "no symbols in $*: nothing was checked" >&2; exit 2; }
foreign=$(echo "$symbols" | awk -v allowed="$allowed" '
    $2 == "U" || $2 == "w" { needed[$1] = 1; next }
    { defined[$1] = 1 }
    END { for (name in needed) if (!(name in defined) && name !~ allowed) print name }' | sort)
if [ -n "$foreign" ]; then
    echo "not pure; these come from outside:" >&2
    echo "$foreign" | sed 's/^/    /' >&2
    exit 1
fi
