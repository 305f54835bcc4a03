#!/bin/sh
# Two "hosts" for tests: network namespaces of this machine with names and TCP of their own. To be sourced where $hosts
# (two names) and $network (e.g. 10.83.0) are set.

skip() {  # REASON: a test that is skipped
    echo "skipped: $1"
    exit 77
}

make_hosts() {
    [ "$(id -u)" = 0 ] || skip "network namespaces need root"
    command -v ip >/dev/null && command -v unshare >/dev/null || skip "needs ip (iproute2) and unshare (util-linux)"
    # shellcheck disable=SC2086  # two words
    set -- $hosts
    ip netns list 2>/dev/null | grep -qE "^($1|$2)( |$)" && skip "another run of this test has its namespaces"
    ip netns add "$1" 2>/dev/null || skip "no network namespaces here"
    ip netns add "$2"
    ip link add eth0 netns "$1" mtu 9000 type veth peer name eth0 netns "$2"
    number=1
    for host in "$@"; do
        mkdir -p "/etc/netns/$host"
        printf '127.0.0.1 localhost\n%s.1 %s\n%s.2 %s\n' "$network" "$1" "$network" "$2" > "/etc/netns/$host/hosts"
        ip -n "$host" address add "$network.$number/24" dev eth0
        ip -n "$host" link set lo up
        ip -n "$host" link set eth0 up
        number=2
    done
}

kill_host() {  # HOST
    for process in $(ip netns pids "$1" 2>/dev/null); do kill -9 "$process" 2>/dev/null || true; done
}

remove_hosts() {
    for host in $hosts; do
        kill_host "$host"
        ip netns delete "$host" 2>/dev/null || true
        rm -rf "/etc/netns/$host"
    done
}
