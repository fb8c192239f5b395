package framing

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"sixfour/encap/header"
)

// Flows that differ only in a port, in steps of any size, are spread over the values of each
// byte of Spread, with any key. 256 flows have 162 values of a byte on average.
func TestSpread(t *testing.T) {
	defer func(before [4]uint64) { flowKey = before }(flowKey)
	r := rand.New(rand.NewPCG(1, 2))
	four, six := make([]byte, header.IPv4Len+header.UDPLen), make([]byte, header.IPv6Len+header.UDPLen)
	four[0], four[9] = 0x45, header.UDP
	six[0], six[6] = 0x60, header.UDP
	for range 200 {
		for i := range flowKey {
			flowKey[i] = r.Uint64() | 1
		}
		for _, step := range []int{1, 2, 16, 64, 256} {
			for version, pkt := range map[int][]byte{4: four, 6: six} {
				udp := pkt[len(pkt)-header.UDPLen:]
				var seen [8][256]bool
				var n [8]int
				for flow := range 256 {
					binary.BigEndian.PutUint16(udp, uint16(5000+flow*step))
					h := Spread(FlowHash(pkt, version))
					for i := range seen {
						if b := byte(h >> (8 * i)); !seen[i][b] {
							seen[i][b] = true
							n[i]++
						}
					}
				}
				for i := range n {
					if n[i] < 130 {
						t.Errorf("keys %x, IPv%d, ports in steps of %d: byte %d has %d values", flowKey, version, step, i, n[i])
					}
				}
			}
		}
	}
}
