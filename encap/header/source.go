package header

import (
	"net/netip"
)

// Source returns the source address of a packet.
func Source(pkt []byte) netip.Addr {
	if Version(pkt) == 6 {
		return IPv6(pkt).Src()
	}
	return IPv4(pkt).Src()
}

// TotalLen returns the full length of a packet from its beginning; 0 if that is too short.
func TotalLen(head []byte) int {
	switch {
	case len(head) >= IPv6Len && Version(head) == 6:
		return IPv6Len + IPv6(head).PayloadLen()
	case len(head) >= IPv4Len && Version(head) == 4:
		return IPv4(head).TotalLen()
	}
	return 0
}

// Dest returns the destination address of a packet with a complete IP header.
func Dest(pkt []byte) netip.Addr {
	if Version(pkt) == 6 {
		return IPv6(pkt).Dst()
	}
	return IPv4(pkt).Dst()
}
