ip tunnel add a0 mode gre local 203.0.113.10 remote 203.0.113.20 ttl 64
ip addr add 10.1.0.1/30 dev a0
ip tunnel add b0 mode gre local 203.0.113.10 remote 203.0.113.20 ttl 64
ip addr add 10.2.0.1/30 dev b0
ip tunnel add c0 mode ipip local 203.0.113.10 remote 203.0.113.30 ttl inherit tos 10 nopmtudisc
ip addr add 10.3.0.1/30 dev c0
ip route add default dev c0
