#!/bin/bash
# Two servers with IPv4 only: IPv4 in IPv6 in IPv4.
set -euo pipefail

LOCAL_IPV4="${LOCAL_IPV4:-203.0.113.10}"
REMOTE_IPV4="203.0.113.20"
MTU_6TO4=1400
MTU_IPIP6=$((MTU_6TO4 - 40))

if [[ $EUID -ne 0 ]]; then
    echo "Run it as root"
    exit 1
fi

log() { echo "[$(date)] $1"; }

setup() {
    log "loading modules"
    modprobe sit
    modprobe ip6_tunnel
    ip tunnel del sit6to4 2>/dev/null || true
    ip tunnel add sit6to4 mode sit remote "$REMOTE_IPV4" local "$LOCAL_IPV4" ttl 64
    ip link set sit6to4 mtu "$MTU_6TO4" up
    ip -6 addr add fc00::1/64 dev sit6to4
    ip -6 tunnel add ipip6 mode ipip6 remote fc00::2 local fc00::1 ttl 64
    ip link set ipip6 mtu $MTU_IPIP6
    ip addr add 10.0.0.1/30 dev ipip6
    ip link set ipip6 up
}

cleanup() {
    ip link del ipip6
    ip link del sit6to4
}

sysctl -w net.ipv4.ip_forward=1
iptables -A INPUT -p 41 -s $REMOTE_IPV4 -j ACCEPT
setup
