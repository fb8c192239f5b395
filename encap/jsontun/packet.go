package jsontun

import (
	"fmt"

	"sixfour/encap/header"
)

// MaxPacket is the length of the longest packet that is accepted. It is above the MTU of
// every tunnel, and limits what a peer can make us store that does not complete its packets.
const MaxPacket = 16 << 10

// CutPacket returns the length of the IPv6 packet with which b begins. It is 0 if its end is
// not in b. The error says that b does not begin with a packet: the two ends do not agree
// any more where packets begin, and the connection must be closed.
func CutPacket(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	if v := header.Version(b); v != 6 {
		return 0, fmt.Errorf("the stream has a byte 0x%02x where an IPv6 packet should begin", b[0])
	}
	if len(b) < header.IPv6Len {
		return 0, nil
	}
	n := header.IPv6Len + header.IPv6(b).PayloadLen()
	switch {
	case n > MaxPacket:
		return 0, fmt.Errorf("a packet says that it has %d bytes: at most %d are allowed", n, MaxPacket)
	case n > len(b):
		return 0, nil
	}
	return n, nil
}
