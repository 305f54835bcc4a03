#!/bin/sh
# Has `moesaic doctor` name the odd host? Two "hosts", network namespaces of this machine: one with another version of the
# program, then with a clock, a run folder and an MTU of its own. Exit code 77, with the reason, where that cannot be.
#   odd_host.sh MOESAIC MPIRUN [--all]       --all: four hosts, measured, the links of one of which are slowed down
# shellcheck disable=SC2089,SC2090  # $plant is a command
set -eu

hosts="moesaic-i moesaic-j moesaic-k moesaic-l" network=10.86.0
# shellcheck source=hosts.sh
. "$(dirname "$0")/hosts.sh"

act_as_remote_shell "$@"

program=$(readlink -f "$1") mpirun=$2 all=${3:-}
script=$(readlink -f "$0")
need_open_mpi "$mpirun"
command -v cc >/dev/null || skip "needs a C compiler, for a clock that is wrong"
[ "$all" = --all ] || hosts=${hosts% moesaic-k*}
odd=${hosts##* }

work=$(mktemp -d)
cleanup() {
    remove_hosts
    rm -rf "$work"
}
make_hosts
trap cleanup EXIT
trap 'exit 1' INT TERM

mkdir "$work/runs"
failed=0
doctor() {  # NAME WANTED_CODE [OPTIONS]
    name=$1 wanted=$2 code=0
    shift 2
    on_hosts 1 "$program" doctor --out "$work/runs" "$@" > "$work/$name.txt" 2>&1 || code=$?
    [ "$all" = "" ] || { echo "---- $name"; sed -n '/^==== all nodes/,/usable;/p' "$work/$name.txt"; }
    [ "$code" = "$wanted" ] || { echo "$name: exit code $code instead of $wanted"; cat "$work/$name.txt"; failed=1; }
}
says() {  # NAME PATTERN...
    name=$1
    shift
    for pattern; do
        # Lines of the table are broken between words.
        tr -s ' \n' ' ' < "$work/$name.txt" | grep -qE -- "$pattern" ||
            { echo "$name: does not say '$pattern'"; cat "$work/$name.txt"; failed=1; }
    done
}

others="${hosts%% *}:"
[ "$all" != --all ] || others="the other 3:"

# The commit that the program says, in the program.
commit=$("$program" --version | sed 's/.*(\(.*\))/\1/')
other=$(echo "$commit" | tr '0-9a-z' 'x')
sed "s/$commit/$other/g" "$program" > "$work/other"
chmod +x "$work/other"
export odd_host="$odd" plant="mount --bind '$work/other' '$program'"
doctor version 3 --quick
says version "program failed $odd: [^;]*$other; $others [^;]*$commit" "-> $odd: every rank has to run the same build"

cat > "$work/clock.c" <<'EOF'
#define _GNU_SOURCE
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
int clock_gettime(clockid_t id, struct timespec* time) {
    const long result = syscall(SYS_clock_gettime, id, time);
    if (id == CLOCK_REALTIME) time->tv_sec += 3;
    return (int)result;
}
EOF
cc -shared -fPIC -o "$work/clock.so" "$work/clock.c"
export plant="mount -t tmpfs none '$work/runs'; export LD_PRELOAD='$work/clock.so'; ip link set eth0 mtu 1500"
doctor own 3 --quick
says own "clocks warning $odd is [23]\.[0-9]* s ahead of" "on $odd timedatectl set-ntp true" \
    "run folder failed $odd does not see what ${hosts%% *} writes to $work/runs" "mount the same file system on $odd" \
    "networks warning eth0 of $odd has MTU 1500, the others 9000" "ip link set eth0 mtu 9000 there"

export plant="ip link set eth0 mtu 9000"
if [ "$all" = --all ]; then doctor well 0; else doctor well 0 --quick; fi
says well "clocks ok within" "run folder ok $work/runs is shared by all" "networks ok all in $network.0/24" \
    "program ok the same on all ranks"

if [ "$all" = --all ]; then
    slow_host "$odd" 8mbit || { echo "this kernel has no tbf: no slow link"; exit $failed; }
    doctor slow 0
    says slow "links warning $odd [0-9.]* MB/s to every other host, the others" "switch port of $odd"
fi
exit $failed
