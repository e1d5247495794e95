#!/bin/bash
# moray bench: every row of the issue is there, what it writes is whole and right, and what cannot be
# measured is said. Short runs: the numbers mean nothing here.
#
#   bench.sh MORAY
set -u
here=$(dirname "$(realpath "$0")")
# shellcheck source=tests/tap.sh
. "$here/../tap.sh"

moray=$(realpath "$1")
peers=$(dirname "$moray")/apps/bench/peers
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 143' INT TERM HUP
cd "$work" || exit 1

[ -x "$(dirname "$moray")/apps/bench/bench" ] || tap_skip_all "bench was not built"
# Python reads the JSON; Meson needs it too.
command -v python3 >/dev/null || tap_skip_all "no python3"

# status NAME WANT TEXT COMMAND…: it ends with WANT, and says TEXT on stdout or stderr.
status() {
    local name=$1 want=$2 text=$3 output code=0
    shift 3
    output=$(tap_limit 60 "$@" 2>&1) || code=$?
    if [ "$code" = "$want" ] && [[ $output == *"$text"* ]]; then tap_ok "$name"; else
        tap_fail "$name" "exit status $code, not $want, or no '$text' in:
$output"
    fi
}

names="tasks.one_submitter tasks.nested tasks.across_ranks tasks.queued_1m tasks.balance
task.round_trip task.round_trip_idle task.round_trip_across actor.round_trip actor.stream get.local
put.small put.large fetch.large job.start job.idle counts.task train.overhead train.scaling"
listed=$("$moray" bench --list | cut -d' ' -f1 | awk '!seen[$0]++')
# shellcheck disable=SC2086 # one name a line
tap_output 10 "every row has its name and place" "$(printf '%s\n' $names)" echo "$listed"

status "a row that is not there is named" 2 "no row 'task.walk'" "$moray" bench --rows put.small,task.walk
status "runs that are no number" 2 "--runs" "$moray" bench --runs many
status "a file that cannot be written" 2 "cannot write" "$moray" bench --rows put.small --json no/where
status "a word too many" 2 "walk" "$moray" bench walk

rows=tasks.queued_1m,task.round_trip,task.round_trip_idle,task.round_trip_across,actor.round_trip
rows=$rows,actor.stream,get.local,put.,fetch.large,tasks.across_ranks,tasks.balance,job.,counts.task
[ ! -x "$peers/onetbb" ] || [ ! -x "$peers/openmp" ] || rows=$rows,tasks.one_submitter,tasks.nested
tap_run 300 "short runs of all rows but the training" \
    "$moray" bench --quick --rows "$rows" --json all.json

cat > check.py <<'END'
import json, sys
rows = json.load(open("all.json"))
keys = ["row", "params", "value", "unit", "min", "max", "runs", "peer", "peer_value", "ratio"]
peers = {"tasks.one_submitter": {"onetbb"}, "tasks.nested": {"onetbb", "openmp"},
         "task.round_trip_idle": {"futex"}, "task.round_trip_across": {"hops"},
         "put.large": {"memcpy"}, "fetch.large": {"fetch"}, "job.start": {"mpi"}}
def demand(what, row):
    if not what:
        sys.exit("not so: %s" % row)
for row in rows:
    demand(list(row) == keys, row)
    demand(all(isinstance(row[k], (int, float)) for k in ("value", "min", "max")), row)
    demand(row["min"] <= row["value"] <= row["max"] and row["runs"] == 2, row)
    demand(all("=" in part for part in row["params"].split(";")), row)
    names = [part.split("=")[0] for part in row["params"].split(";")]
    demand(len(names) == len(set(names)), row)
    if row["row"] in peers:
        demand(row["peer"] in peers[row["row"]] and row["peer_value"] > 0, row)
        demand(abs(row["ratio"] * row["peer_value"] / row["value"] - 1) < 1e-6, row)
    else:
        demand(row["peer"] is None and row["peer_value"] is None and row["ratio"] is None, row)
def variants(name):
    return [row["params"] for row in rows if row["row"] == name]
for name, starts in {
        "task.round_trip": ["ranks=1", "ranks=2"],
        "task.round_trip_across": ["fabric=ofi;ranks=2;gap=0", "fabric=ofi;ranks=2;gap=5ms",
                                   "fabric=mpi;ranks=2;gap=0", "fabric=mpi;ranks=2;gap=5ms"],
        "tasks.across_ranks": ["fabric=ofi", "fabric=mpi"], "fetch.large": ["fabric=ofi", "fabric=mpi"],
        "get.local": ["size=8;", "size=1073741824;quick", "size=1073741824;pages=cold",
                      "size=1073741824;pages=warm"],
        "job.start": ["share=1", "fabric=ofi;share=0", "fabric=mpi;share=0"],
        "job.idle": ["fabric=ofi", "fabric=mpi"],
        "counts.task": ["ranks=1", "fabric=ofi", "fabric=mpi"]}.items():
    have = variants(name)
    demand(len(have) == len(starts) and all(h.startswith(s) for h, s in zip(have, starts)), have)
for params in variants("tasks.nested"):
    demand("tasks=242784" in params, params)
for params in variants("counts.task"):
    for word in ("atomics", "allocations=", "wakeups=", "messages=", "bytes="):
        demand(word in params or word == "atomics" and "fabric" in params, params)
END
tap_run 10 "the file has all keys, variants in order, peers and ratios" python3 check.py

MORAY_WORKERS=0 tap_limit 60 "$moray" bench --quick --rows put.small --json failed.json >out 2>&1
code=$?
if [ $code = 1 ] && grep -q failed out && grep -q '"value": null' failed.json; then
    tap_ok "a row that cannot be measured is null, and the status 1"
else
    tap_fail "a row that cannot be measured is null, and the status 1" "status $code: $(cat out)"
fi

# Ended in the middle, it takes its programs along. Each of them has the mark in its environment.
marked() { grep -lsz "^BENCH_TEST_MARK=$work$" /proc/[0-9]*/environ 2>/dev/null | wc -l; }
BENCH_TEST_MARK=$work "$moray" bench --runs 1000 --rows job.idle >out 2>&1 &
bench=$!
for _ in $(seq 100); do [ "$(marked)" -ge 8 ] && break; sleep 0.1; done
started=$(marked)
kill -TERM $bench
wait $bench
for _ in $(seq 100); do [ "$(marked)" -eq 0 ] && break; sleep 0.1; done
left=$(marked)
if [ "$started" -ge 8 ] && [ "$left" = 0 ]; then tap_ok "SIGTERM ends what it measures"; else
    tap_fail "SIGTERM ends what it measures" "$started processes before, $left after: $(cat out)"
fi
tap_done
