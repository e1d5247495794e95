#!/bin/bash
# What can be checked of the sources is checked here: format, shell scripts, unfinished words.
#
#   tidy.sh SOURCE
set -u
cd "$1" || exit 1
# shellcheck source=tests/tap.sh
. tests/tap.sh

# The project's own files: not what a build or a run has left in the tree.
files() {
    find . \( -name '.?*' ! -name .ci -o -name 'build*' -type d -o -path ./shared \) -prune -o -type f \
        "$@" -print | sort
}
mapfile -t code < <(files \( -name '*.c' -o -name '*.h' -o -name '*.cc' \))
mapfile -t scripts < <(files ! -name '*.awk' -exec grep -lqE '^#!/bin/(ba)?sh' {} \; )
mapfile -t all < <(files)

# nothing_found NAME TEXT…: no line was printed by a check.
nothing_found() {
    if [ -z "$2" ]; then tap_ok "$1"; else tap_fail "$1" "$2"; fi
}

if command -v clang-format >/dev/null; then
    nothing_found "clang-format has nothing to change in ${#code[@]} files" \
        "$(clang-format --dry-run --Werror "${code[@]}" 2>&1 | grep error: | cut -d: -f1 | uniq -c)"
else
    tap_skip "clang-format has nothing to change" "clang-format is not installed"
fi
if command -v shellcheck >/dev/null; then
    nothing_found "shellcheck has nothing to say on ${#scripts[@]} scripts" \
        "$(shellcheck -x "${scripts[@]}" 2>&1)"
else
    tap_skip "shellcheck has nothing to say" "shellcheck is not installed"
fi
nothing_found "no unfinished business" \
    "$(grep -nE '\b(TO''DO|FIX''ME|XX''X)\b|not (yet )?implem''ented' "${all[@]}")"
nothing_found "no place of one machine" "$(grep -nE '(^|[^a-z.])/(work|home/[a-z]+|root)/' "${all[@]}")"
nothing_found "no blanks at the ends of lines" \
    "$(grep -nIE '[[:blank:]]+$' "${all[@]}" | cut -c1-100)"
tap_done
