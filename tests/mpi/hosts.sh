#!/bin/sh
# "Hosts" for tests: network namespaces of this machine with names and TCP of their own, on a switch that is one as
# well. To be sourced where $hosts (names) and $network (e.g. 10.83.0) are set.
# shellcheck disable=SC2154,SC2015

skip() {  # REASON: a test that is skipped
    echo "skipped: $1"
    exit 77
}

# HOST COMMAND...: what on_hosts' mpirun calls the script with; a script that has other words first goes on.
act_as_remote_shell() {
    case " $hosts " in *" ${1:-none} "*) ;; *) return 0 ;; esac
    remote=$1
    shift
    enter "$remote" sh -c "$*"
    exit
}

need_open_mpi() {  # MPIRUN
    "$1" --version 2>/dev/null | grep -qE "Open MPI|OpenRTE" || skip "needs Open MPI's mpirun"
    export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
}

make_hosts() {
    [ "$(id -u)" = 0 ] || skip "network namespaces need root"
    command -v ip >/dev/null && command -v unshare >/dev/null || skip "needs ip (iproute2) and unshare (util-linux)"
    switch=${hosts%% *}-switch
    ip netns list 2>/dev/null | grep -qE "^$switch( |$)" && skip "another run of this test has its namespaces"
    ip netns add "$switch" 2>/dev/null || skip "no network namespaces here"
    ip -n "$switch" link add switch type bridge 2>/dev/null || { ip netns delete "$switch"; skip "no bridges here"; }
    ip -n "$switch" link set switch up
    number=0 names="127.0.0.1 localhost"
    for host in $hosts; do
        number=$((number + 1)) names="$names\n$network.$number $host"
    done
    number=0
    for host in $hosts; do
        number=$((number + 1))
        mkdir -p "/etc/netns/$host"
        printf '%b\n' "$names" > "/etc/netns/$host/hosts"
        ip netns add "$host"
        ip link add eth0 netns "$host" mtu 9000 type veth peer name "port$number" netns "$switch" mtu 9000
        ip -n "$switch" link set "port$number" master switch up
        ip -n "$host" address add "$network.$number/24" dev eth0
        ip -n "$host" link set lo up
        ip -n "$host" link set eth0 up
    done
}

enter() {  # HOST COMMAND...: with the host's network and name; on $odd_host after $plant, in a view of files of its own
    host=$1
    shift
    before=:
    [ "$host" != "${odd_host:-}" ] || before=$plant
    ip netns exec "$host" unshare --uts sh -c "hostname '$host'; $before; exec \"\$@\"" "$host" "$@"
}

slow_host() {  # HOST RATE: what it sends, e.g. 50mbit
    ip netns exec "$1" tc qdisc add dev eth0 root tbf rate "$2" burst 64kb latency 400ms 2>/dev/null
}

cut_host() {  # HOST: its cable; the others see silence
    ip -n "$1" link set eth0 down
}

kill_host() {  # HOST: all its processes; the others see connections that close
    for process in $(ip netns pids "$1" 2>/dev/null); do kill -9 "$process" 2>/dev/null || true; done
}

remove_hosts() {
    for host in $hosts; do
        kill_host "$host"
        ip netns delete "$host" 2>/dev/null || true
        rm -rf "/etc/netns/$host"
    done
    ip netns delete "${hosts%% *}-switch" 2>/dev/null || true
}

# RANKS_PER_HOST COMMAND...: under $mpirun on all hosts, with TCP between them. mpirun starts its daemons through $script,
# as its remote shell: HOST COMMAND...
on_hosts() {
    per_host=$1
    shift
    list="" ranks=0
    for host in $hosts; do list="$list,$host:$per_host" ranks=$((ranks + per_host)); done
    enter "${hosts%% *}" timeout 100 "$mpirun" --mca plm_rsh_agent "$script" --mca plm_rsh_no_tree_spawn 1 \
        --mca pml ob1 --mca btl self,vader,tcp --mca btl_tcp_if_include eth0 --mca oob_tcp_if_include eth0 \
        --mca mpi_yield_when_idle 1 --bind-to none --host "${list#,}" -np "$ranks" "$@"
}
