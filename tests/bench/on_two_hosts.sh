#!/bin/sh
# Runs a command as two ranks, each on a host of its own (network namespaces of this machine) with TCP between them.
#   on_two_hosts.sh RATE COMMAND...     RATE: what a host sends, e.g. 1gbit, where the kernel has tbf; full: whatever it can
set -eu
hosts="moesaic-m moesaic-n" network=10.87.0
# shellcheck source=../mpi/hosts.sh
. "$(dirname "$0")/../mpi/hosts.sh"
act_as_remote_shell "$@"

rate=$1 mpirun=mpirun
shift
# shellcheck disable=SC2034  # of hosts.sh
script=$(readlink -f "$0")
need_open_mpi "$mpirun"
make_hosts
trap remove_hosts EXIT
trap 'exit 1' INT TERM
for host in $hosts; do
    [ "$rate" = full ] || slow_host "$host" "$rate" || skip "this kernel has no tbf: no link of $rate"
done
on_hosts 1 "$@"
