#!/bin/sh
# Trains on two "hosts", network namespaces of this machine with TCP between them, once with every exchange, and
# compares the losses; then the bare all-to-all, every value checked. Exit code 77, with the reason, where that cannot be: a test that is skipped.
#   two_hosts.sh MOESAIC CONFIG MPIRUN
# mpirun starts its daemon on the other host through this script itself, as its remote shell: HOST COMMAND...
set -eu

hosts="moesaic-a moesaic-b" network=10.83.0
# shellcheck source=hosts.sh
. "$(dirname "$0")/hosts.sh"

act_as_remote_shell "$@"

program=$1 config=$2 mpirun=$3
need_open_mpi "$mpirun"

work=$(mktemp -d)
cleanup() {
    remove_hosts
    rm -rf "$work"
}
make_hosts
trap cleanup EXIT
trap 'exit 1' INT TERM

script=$(readlink -f "$0")
train() {  # NAME [--set ...]: the losses of every step
    name=$1
    shift
    on_hosts 2 \
        "$program" train "$config" --out "$work" --set train.steps=20 --set "run.name=$name" --set train.log_every=1 \
        --set parallel.expert=4 --set parallel.timeout_seconds=60 "$@" > "$work/$name.txt" 2>&1 || {
        echo "$name failed:"
        tail -20 "$work/$name.txt"
        exit 1
    }
    grep -o '"event":"step".*' "$work/$name/metrics.jsonl" | sed 's/.*"loss":\([^,]*\),.*/\1/' > "$work/$name.losses"
    [ -s "$work/$name.losses" ] || { echo "$name: no losses"; exit 1; }
    echo "$name: $(wc -l < "$work/$name.losses") steps, last loss $(tail -1 "$work/$name.losses"), exchange $(
        tail -n 20 "$work/$name/metrics.jsonl" | grep '"event":"step"' | tail -1 |
            sed 's/.*"exchange_ms":\([^,]*\),.*/\1/') ms a step"
}

failed=0
train flat --set parallel.exchange=flat
for exchange in hierarchical dedup auto; do
    train "$exchange" --set "parallel.exchange=$exchange"
    cmp -s "$work/flat.losses" "$work/$exchange.losses" || { echo "$exchange: other losses than flat"; failed=1; }
done
grep -h "exchange .*, chosen by measurement" "$work/auto.txt" || { echo "auto does not say what it chose"; failed=1; }
train dedup-node --set parallel.exchange=dedup --set parallel.dedup_reduce=node
paste "$work/flat.losses" "$work/dedup-node.losses" |
    awk '{ d = $1 - $2; if (d < 0) d = -d; if (d > 1e-5 * $1) { print "dedup-node: loss " $2 " for " $1; bad = 1 } }
         END { exit bad }' || failed=1

on_hosts 2 "$program" bench alltoall -b 64K -e 1M -f 4 -n 3 -w 1 > "$work/bench.txt" 2>&1 || failed=1
grep -q "Out of bounds values : 0 OK" "$work/bench.txt" || { echo "bench alltoall:"; tail -20 "$work/bench.txt"; failed=1; }
grep -E "^ +1048576 |Avg bus" "$work/bench.txt"
exit $failed
