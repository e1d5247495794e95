#!/bin/bash
# The programs of the README print what it says, alone and with 1, 2 and 4 ranks.
#
#   test_quickstart.sh FOLDER-OF-THE-PROGRAMS TESTS-FOLDER
set -u
programs=$(realpath "$1")
# shellcheck source=tests/tap.sh
. "$2/tap.sh"
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1

while read -r program want <&3; do
    tap_output 30 "$program alone" "$want" "$programs/$program"
    for ranks in 1 2 4; do
        tap_output 30 "$program, $ranks ranks" "$want" \
            mpirun --oversubscribe -n $ranks "$programs/$program"
    done
done 3<<END
add 10
counter 1 3 6 10
pipeline 338350
section5 10 2 3
END
for program in add counter pipeline section5; do
    lines=$(wc -l < "$(dirname "$0")/$program.c")
    if [ "$lines" -lt 40 ]; then tap_ok "$program has under 40 lines"; else
        tap_fail "$program has under 40 lines" "$lines"
    fi
done
tap_done
