ip tunnel add six0 mode sit local 203.0.113.10 remote 203.0.113.20
ip addr add 2001:db8:6::1/64 dev six0
if [ "$1" = up
ip route add 2001:db8:b::/48 dev six0
echo "an open quote
