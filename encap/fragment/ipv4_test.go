package fragment_test

import (
	"bytes"
	"encoding/binary"
	"testing"

	"sixfour/encap/drop"
	"sixfour/encap/fragment"
	"sixfour/encap/header"
)

// packet4 returns an IPv4 packet with these options and this many bytes of payload.
func packet4(options []byte, payload int) header.IPv4 {
	ip := make(header.IPv4, header.IPv4Len+len(options)+payload)
	copy(ip, []byte{
		0x45, 0xb9, 0, 0, 0x12, 0x34, 0, 0, 64, header.ProtoIPv6, 0, 0, // may be fragmented
		203, 0, 113, 10, 203, 0, 113, 20,
	})
	ip[0] += byte(len(options) / 4)
	binary.BigEndian.PutUint16(ip[2:], uint16(len(ip)))
	copy(ip[header.IPv4Len:], options)
	for i := range ip.Payload() {
		ip.Payload()[i] = byte(i * 7)
	}
	ip.SetChecksum()
	return ip
}

func TestIPv4(t *testing.T) {
	options := []byte{
		1,                          // no operation
		0x83, 7, 4, 203, 0, 113, 1, // loose source route: copied
		7, 7, 4, 0, 0, 0, 0, // record route: not copied
		0x94, 4, 0, 0, 0, 0x77, 8, 0x8, // router alert: copied; end of options, padding
		0,
	}
	copied := []byte{0x83, 7, 4, 203, 0, 113, 1, 0x94, 4, 0, 0, 0}
	for _, c := range []struct {
		name          string
		options       []byte
		payload, mtu  int
		flags         uint16
		count         int
		later         []byte
		lastKeepsMore bool
	}{
		{name: "fits", payload: 1260, mtu: 1280, count: 1},
		{name: "fits, not a multiple of 8", payload: 1263, mtu: 1283, count: 1},
		{name: "no payload", payload: 0, mtu: 20, count: 1},
		{name: "one byte too many", payload: 1261, mtu: 1280, count: 2},
		{name: "576", payload: 1280, mtu: 576, count: 3},
		{name: "68", payload: 1280, mtu: 68, count: 27},
		{name: "8 bytes each", payload: 1280, mtu: 28, count: 160},
		{name: "the last takes what is no multiple of 8", payload: 8 + 15, mtu: 35, count: 2},
		{name: "a fragment", payload: 1280, mtu: 576, flags: header.MF | 100, count: 3, lastKeepsMore: true},
		{name: "no room", payload: 1280, mtu: 27},
		{name: "no room for a header", payload: 1280, mtu: 19},
		{name: "nothing", payload: 1280, mtu: 0},
		{name: "less than nothing", payload: 1280, mtu: -1500},
		{name: "beyond 65535 bytes", payload: 1280, mtu: 576, flags: 8100},
		{name: "options", options: options, payload: 1280, mtu: 576, count: 3, later: copied},
		{name: "options that lie", options: []byte{0x83, 9, 4, 0}, payload: 1280, mtu: 576, count: 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			pkt := packet4(c.options, c.payload)
			pkt[6], pkt[7] = byte(c.flags>>8), byte(c.flags)
			pkt.SetChecksum()
			before := bytes.Clone(pkt)
			var payload []byte
			count, more := 0, true
			for f := range fragment.IPv4(pkt, c.mtu, make([]byte, max(c.mtu, 0)), 0) {
				ip, r := header.ParseIPv4(f)
				if r != drop.None || len(ip) != len(f) || len(f) > c.mtu || ip.ID() != pkt.ID() || !more {
					t.Fatalf("%v %x", r, f[:20])
				}
				if got := int(ip.Fragment()&header.OffsetMask) - int(c.flags&header.OffsetMask); got*8 != len(payload) {
					t.Fatalf("offset %d, want %d", got*8, len(payload))
				}
				want := c.options
				if count > 0 {
					want = c.later
				}
				if got := ip[header.IPv4Len:ip.HeaderLen()]; !bytes.Equal(got, want) {
					t.Errorf("options %x, want %x", got, want)
				}
				more = ip.Fragment()&header.MF != 0
				payload = append(payload, ip.Payload()...)
				count++
			}
			if count != c.count {
				t.Fatalf("%d fragments, want %d", count, c.count)
			}
			if count > 0 && (more != c.lastKeepsMore || !bytes.Equal(payload, pkt.Payload())) {
				t.Error("what comes out is not what went in")
			}
			if !bytes.Equal(pkt, before) {
				t.Error("the packet was changed")
			}
		})
	}
}

// TestIPv4Stop: a caller may stop early, and a short buffer causes short fragments.
func TestIPv4Stop(t *testing.T) {
	for f := range fragment.IPv4(packet4(nil, 1280), 1280, make([]byte, 100), 0) {
		if len(f) != 100 {
			t.Errorf("%d bytes", len(f))
		}
		break
	}
}
