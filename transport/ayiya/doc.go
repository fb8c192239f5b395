// Package ayiya carries packets in AYIYA over UDP, between a client, a Port, and a Server for
// the clients of a broker. Package encap/ayiya has the wire format.
//
//	| IPv4 20, IPv6 40 | UDP 8 | AYIYA 44 with SHA-1, 40 with MD5, 56 with SHA-256 | inner packet |
//
// Each packet is signed and says who sends it, so that a client may be anywhere, behind any
// NAT, and may move with each packet. Nothing is encrypted.
package ayiya

import (
	"net/netip"

	"sixfour/encap/ayiya"
	"sixfour/encap/header"
)

// MaxInner returns the largest inner packet for a path MTU, between outer addresses of the IP
// version of a: 1428 for an MTU of 1500 over IPv4 with SHA-1.
func MaxInner(pathMTU int, a netip.Addr, h ayiya.Hash) int {
	return pathMTU - header.HeadersLen(a) - h.HeaderLen()
}
