#!/bin/sh
# Trains under Slurm on two "hosts", network namespaces of this machine with daemons of their own: srun's losses against
# those of threads, launch/cluster/slurm.sbatch through a signal, a requeue and its end, and a host that dies.
# Exit code 77, with the reason, where that cannot be: a test that is skipped.
#   slurm.sh MOESAIC CONFIG          from the tree's root
set -eu

program=$1 config=$2
hosts="moesaic-c moesaic-d" network=10.84.0
# shellcheck source=hosts.sh
. "$(dirname "$0")/hosts.sh"

fail() {
    echo "$1"
    for log in "$work"/*.log "$work"/*.txt; do
        [ ! -f "$log" ] || { echo "--- $log"; tail -n 15 "$log"; }
    done
    exit 1
}

for tool in munged slurmctld slurmd srun; do
    command -v "$tool" >/dev/null || skip "needs $tool (Debian: munge, slurm-wlm)"
done
case $(pwd -P)/ in /tmp/*) skip "this checkout is in /tmp, of which each host has its own" ;; esac
ls /usr/lib/*/slurm*/mpi_pmix.so >/dev/null 2>&1 || skip "this Slurm has no pmix"
make_hosts
work=$(mktemp -d /var/tmp/moesaic-slurm.XXXXXX)  # not in /tmp, of which each host has its own
cleanup() {
    remove_hosts
    [ ! -f "$work/munge.pid" ] || kill -9 "$(cat "$work/munge.pid")" 2>/dev/null || true
    rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 1' INT TERM

for host in $hosts; do mkdir -p "$work/spool-$host"; done

# A short life of credentials: a requeued job waits for it before it starts again.
cat > "$work/slurm.conf" <<EOF
ClusterName=moesaic
SlurmctldHost=moesaic-c
AuthInfo=socket=$work/munge.socket,cred_expire=5
SlurmUser=root
SlurmdUser=root
StateSaveLocation=$work/state
SlurmdSpoolDir=$work/spool-%n
SlurmctldPidFile=$work/slurmctld.pid
SlurmdPidFile=$work/slurmd-%n.pid
SlurmctldLogFile=$work/slurmctld.log
SlurmdLogFile=$work/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
KillWait=5
SlurmdTimeout=10
SchedulerParameters=sched_interval=1
NodeName=moesaic-c,moesaic-d CPUs=2 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES State=UP
EOF
printf 'CgroupPlugin=cgroup/v1\nCgroupMountpoint=%s/cgroup\nCgroupAutomount=no\n' "$work" > "$work/cgroup.conf"
export SLURM_CONF="$work/slurm.conf"

enter() {  # HOST COMMAND...: with the host's network, name and /tmp
    host=$1
    shift
    ip netns exec "$host" unshare --uts --mount sh -c 'hostname "$0"; mount -t tmpfs tmpfs /tmp; exec "$@"' "$host" "$@"
}
wait_for() {  # SECONDS COMMAND...
    left=$1
    shift
    until "$@" >/dev/null 2>&1; do
        left=$((left - 1))
        [ "$left" -gt 0 ] || return 1
        sleep 1
    done
}

mkdir "$work/state"
head -c 128 /dev/urandom > "$work/munge.key"
chmod 400 "$work/munge.key"
munged --force --key-file="$work/munge.key" --socket="$work/munge.socket" --pid-file="$work/munge.pid" \
    --log-file="$work/munge.log" --seed-file="$work/munge.seed" || skip "munged does not start"
enter moesaic-c slurmctld
for host in $hosts; do enter "$host" slurmd -N "$host"; done
idle() { [ "$(enter moesaic-c sinfo --noheader --states=idle --format=%D)" = 2 ]; }
wait_for 20 idle || {
    tail -n 3 "$work"/slurmd-*.log
    skip "Slurm's daemons do not run here"
}

losses() {  # RUN_FOLDER: of every step, the last time that it was made
    grep '"event":"step"' "$1/metrics.jsonl" | sed 's/.*"step":\([0-9]*\),.*"loss":\([^,]*\),.*/\1 \2/' |
        sort -n -k1,1 -s | awk '{ last[$1] = $0 } END { for (i in last) print last[i] }' | sort -n
}
settings="--out $work --set train.steps=20 --set train.log_every=1 --set train.eval_every=1000 --set train.checkpoint_every=1000"

echo "srun on two hosts"
# shellcheck disable=SC2086  # settings are words
enter moesaic-c timeout 60 srun --mpi=pmix -N 2 --ntasks-per-node=2 "$program" train "$config" $settings \
    --set run.name=srun > "$work/srun.txt" 2>&1 || fail "srun failed"
grep -q "4 ranks" "$work/srun.txt" || fail "srun did not start four ranks of one job"
# shellcheck disable=SC2086
"$program" train "$config" $settings --set run.name=threads --ranks-as-threads 4 > "$work/threads.txt" 2>&1 ||
    fail "the run on threads failed"
losses "$work/srun" > "$work/srun.losses"
losses "$work/threads" > "$work/threads.losses"
[ -s "$work/srun.losses" ] || fail "srun: no losses"
cmp "$work/srun.losses" "$work/threads.losses" || fail "srun: other losses than threads"

echo "srun that was not told of MPI"
code=0
# shellcheck disable=SC2086
enter moesaic-c timeout 60 srun --mpi=none -N 2 --ntasks-per-node=1 "$program" train "$config" $settings \
    --set run.name=lone > "$work/lone.txt" 2>&1 || code=$?
[ "$code" -eq 2 ] || fail "lone tasks end with $code"
grep -q "srun started 2 processes" "$work/lone.txt" || fail "lone tasks are not told why"
[ ! -e "$work/lone" ] || fail "lone tasks train"

echo "sbatch, a signal, a requeue"
# shellcheck disable=SC2086
job=$(enter moesaic-c env MOESAIC_BINARY="$program" sbatch --parsable --nodes=2 --ntasks-per-node=1 --cpus-per-task=1 --time=5 \
    --output="$work/sbatch.txt" launch/cluster/slurm.sbatch "$config" $settings --set run.name=sbatch \
    --set train.steps=40000 --set train.log_every=20 --set optimizer.schedule.kind=constant) || fail "sbatch failed"
stepping() { grep -q '"event":"step"' "$work/sbatch/metrics.jsonl"; }
wait_for 40 stepping || fail "the job does not train"
enter moesaic-c scancel --signal=USR1 "$job"
state() { enter moesaic-c squeue --noheader --jobs="$job" --format=%T 2>/dev/null; }
requeued() { [ "$(state)" = PENDING ]; }
wait_for 30 requeued || fail "the job was not requeued: $(state)"
checkpoint=$(ls "$work/sbatch/checkpoints" | tail -1)
echo "  stopped with $checkpoint"
again() { grep -c "^Moesaic " "$work/sbatch.txt" | grep -q 2 && tail -n 3 "$work/sbatch.txt" | grep -q "^ *step"; }
wait_for 60 again || fail "the requeued job does not go on"

echo "a host dies"
kill_host moesaic-d
gone() { ! enter moesaic-c squeue --noheader --jobs="$job" --states=RUNNING 2>/dev/null | grep -q .; }
wait_for 60 gone || fail "the job of a dead host still runs: $(state)"
enter moesaic-c scancel "$job" 2>/dev/null || true
newest=$(ls "$work/sbatch/checkpoints" | grep -o '[1-9][0-9]*$' | tail -1)
# shellcheck disable=SC2086
enter moesaic-c timeout 60 srun --mpi=pmix -N 1 --ntasks-per-node=2 "$program" train "$config" $settings \
    --set run.name=sbatch --resume auto --set train.steps=$((newest + 10)) --set optimizer.schedule.kind=constant \
    > "$work/one_host.txt" 2>&1 || fail "the host that is left does not go on"
grep -q "done at step $((newest + 10)) " "$work/one_host.txt" || fail "the host that is left stopped early"
echo "  went on from step $newest on the host that is left"
echo "all held"
