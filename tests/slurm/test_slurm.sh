#!/bin/bash
# Moray under Slurm, on a private cluster of two nodes that are two hosts (tests/slurm/cluster).
#
#   test_slurm.sh MORAY SECTION5 TRAIN SBATCH
#
# The program of section 5 and slurm/train.sbatch by srun --mpi=pmix and by mpirun inside an
# allocation, both fabrics: right output, one digest, bytes on the nodes' network cards, nothing left
# on the nodes, also after scancel.
set -u
here=$(dirname "$(realpath "$0")")
# shellcheck source=tests/tap.sh
. "$here/../tap.sh"

moray=$(realpath "$1") section5=$(realpath "$2") train=$(realpath "$3") batch=$(realpath "$4")

PATH=$PATH:/usr/sbin:/sbin
[ "$(id -u)" = 0 ] || tap_skip_all "a private Slurm needs root"
for need in ip unshare nsenter mpirun srun sbatch slurmctld slurmd munged; do
    command -v "$need" >/dev/null || tap_skip_all "$need is not installed"
done
compgen -G '/usr/lib/*/slurm-wlm/mpi_pmix.so' >/dev/null ||
    tap_skip_all "Slurm's plugin mpi_pmix is not installed (Debian: slurm-wlm-basic-plugins)"

work=$(mktemp -d)
export HOSTS_DIR=$work/state
cluster=$here/cluster
# shellcheck disable=SC2317 # called by the trap
clean_up() { "$cluster" down; rm -rf "$work"; }
trap clean_up EXIT
trap 'exit 143' INT TERM HUP

if ! "$here/../hosts/hosts" up 1 >"$work/up" 2>&1; then
    tap_skip_all "no network namespaces here: $(tail -n 1 "$work/up")"
fi
"$cluster" down
cd "$work" || exit 1
tap_run 30 "a private Slurm of two nodes comes up" "$cluster" up 2
if [ ! -e "$work/state/slurm/own" ]; then
    "$cluster" logs | sed 's/^/# /'
    tap_done
    exit
fi

nothing_left() { # NAME: waits up to 5 s for it, since Slurm ends a step after its srun
    local left
    for _ in $(seq 50); do
        left=$("$cluster" left)
        [ -n "$left" ] || break
        sleep 0.1
    done
    if [ -z "$left" ]; then tap_ok "$1"; else tap_fail "$1" "$left"; fi
}

digest() { sed -n 's/.*"digest": *"\{0,1\}\([^",}]*\).*/\1/p' "$1"; }

want=$(tap_limit 30 "$section5" 2>/dev/null)
tap_output 60 "the program of section 5 by srun" "$want" \
    "$cluster" run srun --mpi=pmix -N 2 -n 2 "$section5"
tap_output 60 "the program of section 5 by mpirun in an allocation" "$want" \
    "$cluster" run salloc -Q -N 2 -n 2 mpirun "$section5"
tap_output 60 "the program of section 5 by moray run in an allocation" "$want" \
    "$cluster" run salloc -Q -N 2 -n 2 "$moray" run --quiet "$section5"
nothing_left "nothing is left on the nodes"

for fabric in ofi mpi; do
    for launch in srun mpirun; do
        name=$fabric-$launch
        before=$("$cluster" bytes h2)
        tap_run 150 "the training by $launch, fabric $fabric" \
            "$cluster" run env LAUNCH=$launch TRAIN="$train" MORAY_FABRIC=$fabric \
            sbatch -Q -W -N 2 -o "$work/$name.out" "$batch" \
            --epochs 1 --seed 7 --svg none --json "$work/$name.json"
        [ ! -e "$work/$name.json" ] && [ -e "$work/$name.out" ] && sed 's/^/# /' "$work/$name.out"
        after=$("$cluster" bytes h2)
        # Shards of images are more than this; start and control messages alone are less.
        if [ $((after - before)) -gt 10000000 ]; then
            tap_ok "the network carried it ($name)"
        else
            tap_fail "the network carried it ($name)" "$((after - before)) bytes passed h2's card"
        fi
    done
done
digests=$(for file in "$work"/*.json; do digest "$file"; done | sort -u)
if [ "$(find "$work" -maxdepth 1 -name '*.json' | wc -l)" = 4 ] && [ -n "$digests" ] &&
    [ "$(wc -l <<< "$digests")" = 1 ]; then
    tap_ok "the training has one digest, however it was started"
else
    tap_fail "the training has one digest, however it was started" "$digests"
fi
nothing_left "nothing is left on the nodes after the training"

# An endless training, cancelled while it runs.
"$cluster" run env TRAIN="$train" sbatch -Q -N 2 -o "$work/cancel.out" "$batch" --epochs 1000 \
    --svg none >/dev/null
for _ in $(seq 100); do
    [ "$("$cluster" run squeue -h -o %T)" != RUNNING ] || break
    sleep 0.1
done
sleep 3
"$cluster" run scancel --user=root
nothing_left "scancel ends the training within 5 s and leaves nothing"
tap_done
