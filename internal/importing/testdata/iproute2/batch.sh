ip -force -batch - <<EOT
tunnel add i0 mode isatap local 203.0.113.10
tunnel prl prl-default 203.0.113.20 dev i0
link set i0 up
EOT
ip li sh i0 || ip l a s0 type sit remote 203.0.113.40 local 203.0.113.10
ip a a 2001:db8:40::1/64 dev s0 && ip l set s0 up
sudo /sbin/ip -6 r a default via 2001:db8:40::2 dev s0 metric 1024
