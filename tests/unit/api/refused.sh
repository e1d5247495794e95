#!/bin/sh
# The compiler refuses each program in bad/, with words a user understands; and takes what is right.
# A program says what it must be told:  c: EXTENDED REGEX  and  c++: EXTENDED REGEX  in its first lines;
# one without a line for a language is not tried in it.
# usage: refused.sh INCLUDE [COMPILER...]   (without compilers: those of gcc g++ clang clang++ that are
# there). Prints TAP.
set -eu

include=$1
shift
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
number=0

ok() { # ok STATUS NAME: 0 is ok
    number=$((number + 1))
    if [ "$1" -eq 0 ]; then echo "ok $number - $2"; else echo "not ok $number - $2"; fi
}

if [ $# -eq 0 ]; then
    for compiler in gcc g++ clang clang++; do
        if command -v "$compiler" >/dev/null; then set -- "$@" "$compiler"; fi
    done
fi
[ $# -gt 0 ] || { echo "1..0 # SKIP no compiler"; exit 0; }

compile() { # compile COMPILER LANGUAGE STANDARD FILE OPTIONS...: the words are in $work/said
    compiler=$1 language=$2 standard=$3 file=$4
    shift 4
    LC_ALL=C timeout 60 "$compiler" -x "$language" -std="$standard" -Wall -Wextra -Werror -I"$include" \
        -I"$here" -c "$@" -o "$work/out.o" "$file" >"$work/said" 2>&1
}

# Alone, with every warning on: the header, and a use of it.
printf '#include <moray.h>\n' >"$work/alone.c"
for compiler in "$@"; do
    case $compiler in
    *++*) language=c++ standards='c++17 c++20 gnu++17' ;;
    *) language=c standards='c11 gnu11 gnu17' ;;
    esac
    for standard in $standards; do
        status=0
        compile "$compiler" "$language" "$standard" "$work/alone.c" -Wpedantic -Wshadow || status=$?
        ok "$status" "the header alone: $compiler -std=$standard"
        [ "$status" -eq 0 ] || sed 's/^/# /' "$work/said" | head -20
        status=0
        compile "$compiler" "$language" "$standard" "$here/right.c" -Wpedantic -Wshadow || status=$?
        ok "$status" "a right program: $compiler -std=$standard"
        [ "$status" -eq 0 ] || sed 's/^/# /' "$work/said" | head -20
    done
done

# If these were taken, the others' refusals would prove nothing about their own mistakes.
for compiler in "$@"; do
    case $compiler in
    *++*) language=c++ standard=c++17 ;;
    *) language=c standard=gnu11 ;;
    esac
    status=0
    compile "$compiler" "$language" "$standard" "$here/common.h" || status=$?
    ok "$status" "what the wrong programs call is right: $compiler"
done

for file in "$here"/bad/*.c; do
    for compiler in "$@"; do
        case $compiler in
        *++*) language=c++ standard=c++17 ;;
        *) language=c standard=gnu11 ;;
        esac
        wanted=$(sed -n "1,3s|^/\{0,1\}[ *]*$language: \(.*\)|\1|p" "$file" | sed 's| \*/$||')
        [ -n "$wanted" ] || continue
        name="$(basename "$file" .c): $compiler"
        if compile "$compiler" "$language" "$standard" "$file" -fsyntax-only; then
            ok 1 "$name (it was taken)"
        elif grep -E 'error' "$work/said" | grep -qE "$wanted"; then
            ok 0 "$name"
        else
            ok 1 "$name (it was refused in other words than: $wanted)"
            sed 's/^/# /' "$work/said" | head -20
        fi
    done
done
echo "1..$number"
