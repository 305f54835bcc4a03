#!/usr/bin/env bash
# Several nodes with mpirun and ssh (Open MPI 4.1).
#   launch/cluster/mpirun.sh HOSTFILE RANKS_PER_NODE CORES_PER_RANK CONFIG [OPTIONS OF TRAIN ...]
#   launch/cluster/mpirun.sh hosts 4 8 configs/quad.yaml --resume auto
# Stop with a checkpoint:  kill -USR1 PID_OF_MPIRUN  (exit code 75; SIGTERM makes mpirun kill the ranks)
set -euo pipefail
if [ $# -lt 4 ]; then
    sed -n '3,4s/^# *//p' "$0" >&2
    exit 2
fi
hostfile=$1 ranks_per_node=$2 cores_per_rank=$3
shift 3
here=$(dirname "$(readlink -f "$0")")
binary=${MOESAIC_BINARY:-}
if [ -z "$binary" ]; then # of this source tree, installed with this script, or in PATH
    for binary in "$here/../../build/release/moesaic" "$here/../../../bin/moesaic" "$(command -v moesaic)"; do
        [ ! -x "$binary" ] || break
    done
fi
[ -x "$binary" ] || { echo "${binary:-moesaic}: no such program; build or install it, or set MOESAIC_BINARY" >&2; exit 2; }
options=(
    --hostfile "$hostfile"
    # So many ranks on each node, numbered node by node: expert-parallel ranks are then neighbours in a node.
    # PE=n gives each rank n cores of its own; the program starts as many threads as a rank has cores.
    --map-by "ppr:$ranks_per_node:node:PE=$cores_per_rank"
    --bind-to core
    # No epilogue about exit codes: the program says what went wrong.
    --quiet
)
# Several networks and a job that hangs at start-up? Name the one to use:
#   options+=(--mca btl_tcp_if_include eth0 --mca oob_tcp_if_include eth0)
# See where ranks ended up:
#   options+=(--report-bindings)
exec mpirun "${options[@]}" "$binary" train "$@"
