#!/bin/sh
### BEGIN INIT INFO
# Provides: tunnels
### END INIT INFO
PEERS="a b"
case "$1" in
start)
	for p in a:203.0.113.20:1 b:203.0.113.30:2; do
		addr=${p#*:}
		n=${addr#*:}
		ip link add gre-${p%%:*} type gre local 203.0.113.10 remote ${addr%:*} key $n ttl 255
		ip addr add 10.9.$n.1/30 dev gre-${p%%:*}
		ip link set gre-${p%%:*} up mtu 1400
		ip route add 192.168.$n.0/24 via 10.9.$n.2
	done
	;;
stop)
	for p in $PEERS; do
		ip link del gre-$p
	done
	;;
*)
	echo "Usage: $0 {start|stop}"
	exit 1
	;;
esac
