opkg update
opkg install 6in4
uci set network.henet=interface
uci set network.henet.proto='6in4'
uci set network.henet.peeraddr='216.66.80.26'
uci set network.henet.ip6addr='2001:470:1f0a:1234::2/64'
uci set network.henet.updatekey='secret'
uci set firewall.@zone[1].network='wan henet'
uci commit network
/etc/init.d/network restart
