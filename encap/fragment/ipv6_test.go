package fragment_test

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"sixfour/encap/drop"
	"sixfour/encap/fragment"
	"sixfour/encap/header"
)

// Extension headers of 8 bytes; the first byte is the next header.
var (
	hopByHop = []byte{0, 0, 5, 2, 0, 0, 1, 0} // router alert (RFC 2711), PadN
	limit    = []byte{0, 0, 4, 1, 3, 1, 1, 0} // tunnel encapsulation limit 3, PadN
	routing  = []byte{0, 0, 4, 0, 0, 0, 0, 0} // type 4, no segments left
)

// ext is an extension header, with its number.
type ext struct {
	kind  byte
	bytes []byte
}

// packet6 returns an IPv6 packet with these extension headers, and this many bytes of
// payload, declared as IPv4.
func packet6(payload int, exts ...ext) header.IPv6 {
	ip := make(header.IPv6, header.IPv6Len, header.IPv6Len+payload+8*len(exts))
	copy(ip, []byte{0x6b, 0x9a, 0xbc, 0xde, 0, 0, header.ProtoIPv4, 64}) // traffic class 0xb9
	ip[8], ip[23], ip[24], ip[39] = 0xfc, 1, 0xfc, 2
	named := 6
	for _, e := range exts {
		ip[named], named = e.kind, len(ip)
		ip = append(ip, e.bytes...)
	}
	ip[named] = header.ProtoIPv4
	for i := range payload {
		ip = append(ip, byte(i*7+i>>8))
	}
	binary.BigEndian.PutUint16(ip[4:], uint16(len(ip)-header.IPv6Len))
	return ip
}

func TestIPv6(t *testing.T) {
	hbh, dst, rt := ext{header.HopByHop, hopByHop}, ext{header.DestOptions, limit}, ext{header.Routing, routing}
	for _, c := range []struct {
		name     string
		pkt      header.IPv6
		mtu      int
		count    int
		repeated int // bytes before the fragment header
		next     byte
	}{
		{"fits", packet6(1240), 1280, 1, 0, 0},
		{"one byte too many", packet6(1241), 1280, 2, 40, header.ProtoIPv4},
		{"the last takes what is no multiple of 8", packet6(1232 + 1237), 1285, 2, 40, header.ProtoIPv4},
		{"65535", packet6(65535), 1280, 54, 40, header.ProtoIPv4},
		{"encapsulation limit is cut", packet6(1400, dst), 1280, 2, 40, header.DestOptions},
		{"hop-by-hop is repeated", packet6(1400, hbh), 1280, 2, 48, header.ProtoIPv4},
		{"so are all up to routing", packet6(1400, hbh, dst, rt, dst), 1280, 2, 64, header.DestOptions},
		{"8 bytes each", packet6(20), 56, 3, 40, header.ProtoIPv4},
		{"no room", packet6(20), 55, 0, 0, 0},
		{"no room for a header", packet6(20), 20, 0, 0, 0},
		{"nothing", packet6(20), 0, 0, 0, 0},
		{"less than nothing", packet6(20), -1280, 0, 0, 0},
		{"a header that leads out", packet6(20, ext{header.Routing, []byte{0, 99, 4, 0, 0, 0, 0, 0}}), 56, 0, 0, 0},
		{"hop-by-hop not first", packet6(20, dst, hbh), 60, 0, 0, 0},
		{"nine headers", packet6(2000, dst, dst, dst, dst, dst, dst, dst, dst, dst), 1280, 0, 0, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			const off, id = 24, 0xfeedbeef
			before := bytes.Clone(c.pkt)
			b := make([]byte, off+max(c.mtu, 0))
			var payload []byte
			count, more := 0, true
			for f := range fragment.IPv6(c.pkt, c.mtu, id, b, off) {
				count++
				if &f[0] != &b[off] || len(f) > c.mtu {
					t.Fatalf("%d bytes, MTU %d", len(f), c.mtu)
				}
				for i := range off { // a delivery header, written in front
					b[i] = 0xee
				}
				if c.repeated == 0 { // it fits
					if !bytes.Equal(f, c.pkt) {
						t.Errorf("not as it was: %x", f)
					}
					continue
				}
				if len(payload) == 0 && c.repeated == 40 {
					checkWithGopacket(t, f, id, c.next)
				}
				ip, r := header.ParseIPv6(f)
				if r != drop.None || len(ip) != len(f) || !more {
					t.Fatalf("%v %x", r, f[:40])
				}
				h := f[c.repeated:]
				field := binary.BigEndian.Uint16(h[2:])
				more = field&1 != 0
				if h[0] != c.next || h[1] != 0 || int(field&^7) != len(payload) || field&6 != 0 || binary.BigEndian.Uint32(h[4:]) != id {
					t.Errorf("fragment header %x", h[:8])
				}
				if more && (len(h)-8)%8 != 0 {
					t.Errorf("%d bytes", len(h)-8)
				}
				payload = append(payload, h[8:]...)
			}
			if count != c.count {
				t.Fatalf("%d fragments, want %d", count, c.count)
			}
			if c.repeated > 0 && (more || !bytes.Equal(payload, c.pkt[c.repeated:])) {
				t.Error("what comes out is not what went in")
			}
			if !bytes.Equal(c.pkt, before) {
				t.Error("the packet was changed")
			}
		})
	}
}

// checkWithGopacket reads the fragment header with an independent decoder.
func checkWithGopacket(t *testing.T, f []byte, id uint32, next byte) {
	t.Helper()
	g := gopacket.NewPacket(f, layers.LayerTypeIPv6, gopacket.Default)
	h, ok := g.Layer(layers.LayerTypeIPv6Fragment).(*layers.IPv6Fragment)
	if !ok {
		t.Fatalf("no fragment header: %v", g)
	}
	if h.Identification != id || !h.MoreFragments || h.FragmentOffset != 0 || byte(h.NextHeader) != next || h.Reserved1 != 0 || h.Reserved2 != 0 {
		t.Errorf("%+v", h)
	}
}

func TestIPv6NoAllocs(t *testing.T) {
	pkt, b := packet6(1400), make([]byte, 128+1280)
	if n := testing.AllocsPerRun(100, func() {
		for f := range fragment.IPv6(pkt, 1280, 7, b, 128) {
			_ = f
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
