package framing

import (
	"encoding/binary"
	"math/bits"
	"math/rand/v2"

	"sixfour/encap/header"
)

// flowKey makes flow labels and ports unpredictable from outside (RFC 6437 section 3,
// RFC 6438 section 3), and different in each process. The last one is that of Spread.
var flowKey = [4]uint64{rand.Uint64() | 1, rand.Uint64() | 1, rand.Uint64() | 1, rand.Uint64() | 1}

// FlowKey returns the key of FlowHash, for code outside this process that computes the same
// hash: a program in the kernel.
func FlowKey() [3]uint64 { return [3]uint64(flowKey[:]) }

// FlowHash returns a keyed hash of the fields that identify the inner flow (mechanisms
// 1.7): the addresses and the flow label of an IPv6 packet that has one; otherwise the
// addresses, the protocol and the ports. Fragments are hashed without ports.
func FlowHash(inner []byte, version int) uint64 {
	if version == 4 {
		ip := header.IPv4(inner)
		rest := uint64(ip.Protocol())
		if !ip.IsFragment() {
			rest |= ports(ip.Protocol(), ip.Payload())
		}
		return mix(mix(binary.BigEndian.Uint64(ip[12:20])^flowKey[0], flowKey[1])^rest, flowKey[2])
	}
	ip := header.IPv6(inner)
	rest := uint64(ip.FlowLabel())
	if rest == 0 {
		rest = uint64(ip.NextHeader()) | ports(ip.NextHeader(), ip.Payload())
	}
	h := flowKey[0]
	for a := ip[8:40]; len(a) >= 8; a = a[8:] {
		h = mix(binary.BigEndian.Uint64(a)^h, flowKey[1])
	}
	return mix(h^rest, flowKey[2])
}

// Spread mixes a hash from FlowHash for a choice among few, by a few bits of it. FlowHash ends
// with a multiplication by a key, so for flows that differ only in a port, a byte of it
// increases in equal steps, and may have as few as four values for all of them. Another
// multiplication ends that.
func Spread(hash uint64) uint64 { return mix(hash, flowKey[3]) }

// ports returns source and destination port in the bits above a protocol number, or 0 if
// the protocol has no ports or they are cut off.
func ports(protocol byte, payload []byte) uint64 {
	switch protocol {
	case header.TCP, header.UDP, header.SCTP:
		if len(payload) >= 4 {
			return uint64(binary.BigEndian.Uint32(payload)) << 8
		}
	}
	return 0
}

// mix multiplies to 128 bits and combines both halves, so that each bit of the result
// depends on all of a and b.
func mix(a, b uint64) uint64 {
	hi, lo := bits.Mul64(a, b)
	return hi ^ lo
}
