ip -6 tunnel add dslite0 mode ipip6 remote 2001:db8:aaaa::1 local 2001:db8:1234::2 encaplimit 4 tclass 0x20 flowlabel inherit
ip addr add 192.0.0.2/29 dev dslite0
ip link set dslite0 up mtu 1460
ip route replace default dev dslite0
