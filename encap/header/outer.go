package header

import "net/netip"

// Outer is what the outer headers of a received packet say, for packets from which the
// kernel has removed these headers, such as those of a UDP socket.
type Outer struct {
	From, At netip.AddrPort // source and destination; the port is 0 if the delivery has no ports
	TOS, TTL byte           // of IPv4; traffic class and hop limit of IPv6
}

// OuterOf reads the fields from a delivery header, which is complete. The ports are 0.
func OuterOf(delivery []byte) Outer {
	if Version(delivery) == 4 {
		ip := IPv4(delivery)
		return Outer{netip.AddrPortFrom(ip.Src(), 0), netip.AddrPortFrom(ip.Dst(), 0), ip.TOS(), ip.TTL()}
	}
	ip := IPv6(delivery)
	return Outer{netip.AddrPortFrom(ip.Src(), 0), netip.AddrPortFrom(ip.Dst(), 0), ip.TrafficClass(), ip.HopLimit()}
}
