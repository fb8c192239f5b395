package e2e

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"sixfour/encap/header"
	"sixfour/internal/rig"
)

// ip4 is an IPv4 packet.
func ip4(src, dst netip.Addr, protocol byte, payload []byte) []byte {
	b := make([]byte, header.IPv4Len, header.IPv4Len+len(payload))
	b[0], b[8], b[9] = 0x45, 64, protocol
	binary.BigEndian.PutUint16(b[2:], uint16(cap(b)))
	copy(b[12:], src.AsSlice())
	copy(b[16:], dst.AsSlice())
	header.IPv4(b).SetChecksum()
	return append(b, payload...)
}

// ip6 is an IPv6 packet.
func ip6(src, dst netip.Addr, next byte, payload []byte) []byte {
	b := make([]byte, header.IPv6Len, header.IPv6Len+len(payload))
	b[0], b[6], b[7] = 0x60, next, 64
	binary.BigEndian.PutUint16(b[4:], uint16(len(payload)))
	copy(b[8:], src.AsSlice())
	copy(b[24:], dst.AsSlice())
	return append(b, payload...)
}

// experiment is a protocol number for experiments (RFC 3692), which no host supports.
const experiment = 253

// experimental returns a packet of that protocol, which is recognised where it arrives.
func experimental(src, dst netip.Addr) []byte {
	payload := []byte("known by its content")
	if dst.Is4() {
		return ip4(src, dst, experiment, payload)
	}
	return ip6(src, dst, experiment, payload)
}

// greOf puts a GRE header without options before a packet.
func greOf(pkt []byte) []byte {
	if header.Version(pkt) == 4 {
		return append([]byte{0, 0, 0x08, 0x00}, pkt...)
	}
	return append([]byte{0, 0, 0x86, 0xdd}, pkt...)
}

// send sends packets as they are.
func send(t *testing.T, from *rig.Namespace, packets ...[]byte) {
	t.Helper()
	raw, err := from.OpenRaw()
	must(t, err)
	defer raw.Close()
	for _, p := range packets {
		must(t, raw.Send(p))
	}
}
