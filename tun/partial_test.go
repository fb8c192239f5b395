package tun_test

import (
	"encoding/binary"
	"testing"

	"sixfour/encap/header"
	"sixfour/tun"
)

// segment is a TCP packet whose checksum field holds the pseudo-header's sum,
// as GRO leaves it, or a whole checksum.
func segment(ipv6, whole bool, size int) []byte {
	b := make([]byte, size)
	at, src, dst := header.IPv4Len, []byte{10, 0, 0, 1}, []byte{10, 0, 0, 2}
	if ipv6 {
		at = header.IPv6Len
		src, dst = make([]byte, 16), make([]byte, 16)
		src[0], dst[0], src[15], dst[15] = 0xfc, 0xfc, 1, 2
		b[0], b[6], b[7] = 0x60, header.TCP, 64
		binary.BigEndian.PutUint16(b[4:], uint16(size-at))
		copy(b[8:], src)
		copy(b[24:], dst)
	} else {
		b[0], b[8], b[9] = 0x45, 64, header.TCP
		binary.BigEndian.PutUint16(b[2:], uint16(size))
		copy(b[12:], src)
		copy(b[16:], dst)
		header.IPv4(b).SetChecksum()
	}
	tcp := b[at:]
	tcp[12] = 5 << 4
	for i := 20; i < len(tcp); i++ {
		tcp[i] = byte(i)
	}
	pseudo := header.PseudoSum(src, dst, len(tcp), header.TCP)
	if whole {
		binary.BigEndian.PutUint16(tcp[16:], ^header.Sum(tcp, pseudo))
	} else {
		binary.BigEndian.PutUint16(tcp[16:], header.Fold(pseudo))
	}
	return b
}

// datagram is a UDP packet over IPv4 whose checksum is partial.
func datagram(size int) []byte {
	b := segment(false, false, size)
	b[9] = header.UDP
	header.IPv4(b).SetChecksum()
	ip := header.IPv4(b)
	binary.BigEndian.PutUint16(ip.Payload()[6:], header.Fold(header.PseudoSum(ip.Source(), ip.Dest(), len(ip.Payload()), header.UDP)))
	return b
}

func TestFindPartial(t *testing.T) {
	edit := func(b []byte, off int, v byte) []byte { b[off] = v; return b }
	for _, c := range []struct {
		name string
		pkt  []byte
		want bool
	}{
		{"IPv4", segment(false, false, 30000), true},
		{"IPv6", segment(true, false, 64000), true},
		{"a single segment", segment(false, false, 100), true},
		{"no data", segment(true, false, 60), true},
		{"UDP", datagram(500), true},
		{"UDP without a checksum", edit(edit(datagram(500), 26, 0), 27, 0), false},
		{"IPv4 with its checksum", segment(false, true, 30000), false},
		{"IPv6 with its checksum", segment(true, true, 30001), false},
		{"TCP as UDP", edit(segment(true, false, 3000), 6, header.UDP), false},
		{"an IPv4 fragment", edit(segment(false, false, 3000), 6, 0x20), false},
		{"half a TCP header", segment(false, false, 3000)[:30], false},
		{"half a UDP header", datagram(500)[:24], false},
		{"ICMP", edit(segment(false, false, 3000), 9, 1), false},
	} {
		if _, got := tun.FindPartial(c.pkt); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}
