modprobe ipv6
ip tunnel add he-ipv6 mode sit remote 216.66.80.26 local 203.0.113.10 ttl 255
ip link set he-ipv6 up
ip addr add 2001:470:1f0a:1234::2/64 dev he-ipv6
ip route add ::/0 dev he-ipv6
ip -f inet6 addr
