modprobe -a fou fou6
ip -6 fou add port 7777 ipproto 47
ip link add name tun6 mtu 1420 type ip6gre local 2001:db8::10 remote 2001:db8::20 ikey 1 okey 2 seq csum hoplimit 200 encap fou encap-sport auto encap-dport 7778 noencap-udp6-csum
ip link set tun6 netns blue
ip -n blue addr add fd00:1::1/64 dev tun6
ip netns exec blue ip addr add 10.77.0.1/24 dev tun6
ip -n blue route add fd00:2::/48 via fd00:1::2 dev tun6
