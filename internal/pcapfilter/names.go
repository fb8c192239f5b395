package pcapfilter

import (
	"net"
	"strconv"

	"sixfour/encap/header"
)

// protocols are the names of protocols above IP: their number, and whether they match
// IPv4 and IPv6 packets.
var protocols = map[string]struct {
	number     byte
	four, both bool // neither: only IPv6
}{
	"tcp": {header.TCP, true, true}, "udp": {header.UDP, true, true}, "sctp": {header.SCTP, true, true},
	"icmp": {header.ICMP, true, false}, "icmp6": {header.ICMPv6, false, false},
	"igmp": {2, true, false}, "pim": {103, true, true}, "esp": {50, true, true}, "ah": {51, true, true},
	"gre": {header.GRE, true, true},
}

// protocolNames are the names that may follow proto.
var protocolNames = map[string]byte{
	"icmp": header.ICMP, "igmp": 2, "ipencap": header.ProtoIPv4, "ipip": header.ProtoIPv4, "tcp": header.TCP, "udp": header.UDP,
	"ipv6": header.ProtoIPv6, "gre": header.GRE, "esp": 50, "ah": 51, "icmp6": header.ICMPv6, "ipv6-icmp": header.ICMPv6,
	"ospf": 89, "pim": 103, "vrrp": 112, "sctp": header.SCTP,
}

// constants are the names of numeric constants.
var constants = map[string]uint32{
	"icmptype": 0, "icmpcode": 1, "icmp6type": 0, "icmp6code": 1, "tcpflags": 13,
	"tcp-fin": 0x01, "tcp-syn": 0x02, "tcp-rst": 0x04, "tcp-push": 0x08, "tcp-ack": 0x10, "tcp-urg": 0x20, "tcp-ece": 0x40, "tcp-cwr": 0x80,
	"icmp-echoreply": 0, "icmp-unreach": 3, "icmp-sourcequench": 4, "icmp-redirect": 5, "icmp-echo": 8,
	"icmp-routeradvert": 9, "icmp-routersolicit": 10, "icmp-timxceed": 11, "icmp-paramprob": 12,
	"icmp-tstamp": 13, "icmp-tstampreply": 14, "icmp-ireq": 15, "icmp-ireqreply": 16, "icmp-maskreq": 17, "icmp-maskreply": 18,
	"icmp6-destinationunreach": 1, "icmp6-packettoobig": 2, "icmp6-timeexceeded": 3, "icmp6-parameterproblem": 4,
	"icmp6-echo": 128, "icmp6-echoreply": 129, "icmp6-multicastlistenerquery": 130, "icmp6-multicastlistenerreportv1": 131,
	"icmp6-multicastlistenerdone": 132, "icmp6-routersolicit": 133, "icmp6-routeradvert": 134,
	"icmp6-neighborsolicit": 135, "icmp6-neighboradvert": 136, "icmp6-redirect": 137,
	"icmp6-multicastlistenerreportv2": 143,
}

// unsupported are words of pcap-filter(7) that do not apply to packets without a link layer
// or to packets in a tunnel, or that are too expensive to evaluate.
var unsupported = map[string]bool{
	"ether": true, "link": true, "ppp": true, "slip": true, "fddi": true, "tr": true, "wlan": true, "arp": true, "rarp": true,
	"vlan": true, "mpls": true, "pppoed": true, "pppoes": true, "geneve": true, "vxlan": true, "gateway": true, "protochain": true, "broadcast": true,
	"atalk": true, "aarp": true, "decnet": true, "iso": true, "stp": true, "ipx": true, "netbeui": true, "lat": true,
	"moprc": true, "mopdl": true, "ifname": true, "on": true, "ifindex": true, "rnr": true, "rulenum": true, "reason": true,
	"rset": true, "ruleset": true, "srnr": true, "subrulenum": true, "action": true, "type": true, "subtype": true, "dir": true,
	"addr1": true, "addr2": true, "addr3": true, "addr4": true, "ra": true, "ta": true, "byte": true, "llc": true,
	"vrrp": true, "carp": true, "igrp": true,
}

// number parses a number like libpcap: decimal, hexadecimal with 0x, octal with 0.
func number(s string) (uint32, bool) {
	n, err := strconv.ParseUint(s, 0, 32)
	return uint32(n), err == nil
}

// service returns the number of a port by its name.
func service(name string, protocols []string) (uint32, bool) {
	if name == "" { // the resolver would return port 0
		return 0, false
	}
	for _, p := range protocols {
		if p == "sctp" {
			p = "tcp" // most are the same, and others are not listed
		}
		if n, err := net.LookupPort(p, name); err == nil {
			return uint32(n), true
		}
	}
	return 0, false
}
