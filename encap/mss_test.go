package encap_test

import (
	"bytes"
	"encoding/binary"
	"slices"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"sixfour/encap"
	"sixfour/encap/drop"
	"sixfour/encap/header"
)

// TCP flags.
const (
	syn = 0x02
	ack = 0x10
)

// tcp returns a segment with these flags, options, which are padded, and payload. Its
// checksum is 0.
func tcp(flags byte, options []byte, payload ...byte) []byte {
	for len(options)%4 != 0 {
		options = append(options, 0)
	}
	b := []byte{
		0x30, 0x39, 0x00, 0x50, // ports 12345, 80
		0x01, 0x02, 0x03, 0x04, 0, 0, 0, 0, // sequence number, acknowledgement
		0x50, flags, 0xfa, 0xf0, 0, 0, 0, 0, // header length, flags, window; checksum, urgent pointer
	}
	b[12] += byte(len(options) / 4 << 4)
	return slices.Concat(b, options, payload)
}

// in4 and in6 put a segment with a correct checksum into a packet, after IP options or
// extension headers. The first extension header is of kind next.
func in4(segment []byte, options ...byte) []byte {
	ip := header.IPv4(slices.Concat([]byte{
		0x45 + byte(len(options)/4), 0, 0, 0, 0x12, 0x34, 0x40, 0, 64, header.TCP, 0, 0,
		10, 0, 0, 1, 10, 0, 0, 2,
	}, options, segment))
	binary.BigEndian.PutUint16(ip[2:], uint16(len(ip)))
	ip.SetChecksum()
	seal(ip.Payload(), ip.Source(), ip.Dest())
	return ip
}

func in6(segment []byte, next byte, exts ...byte) []byte {
	ip := header.IPv6(slices.Concat([]byte{0x60, 0, 0, 0, 0, 0, next, 64},
		addr("2001:db8::1"), addr("2001:db8::2"), exts, segment))
	binary.BigEndian.PutUint16(ip[4:], uint16(len(ip)-header.IPv6Len))
	seal(ip[header.IPv6Len+len(exts):], ip.Source(), ip.Dest())
	return ip
}

func seal(segment, src, dst []byte) {
	sum := header.Sum(segment, header.PseudoSum(src, dst, len(segment), header.TCP))
	binary.BigEndian.PutUint16(segment[16:], ^sum)
}

// mss is the option with a value.
func mss(v uint16) []byte { return []byte{2, 4, byte(v >> 8), byte(v)} }

func options(opts ...[]byte) []byte { return slices.Concat(opts...) }

func TestClampMSS(t *testing.T) {
	var (
		nop    = []byte{1}
		sackOK = []byte{4, 2}
		stamps = []byte{8, 10, 1, 2, 3, 4, 0, 0, 0, 0}
		scale  = []byte{3, 3, 7}
		linux  = options(mss(1460), sackOK, stamps, nop, scale)
		first  = func(pkt []byte) []byte { pkt[6] = 0x20; return sum(pkt, 0) } // more fragments
		later  = func(pkt []byte) []byte { pkt[7] = 1; return sum(pkt, 0) }
		frag6  = func(field ...byte) []byte {
			return in6(tcp(syn, linux), header.FragmentHdr, header.TCP, 0, field[0], field[1], 0, 0, 0, 7)
		}
	)
	for _, c := range []struct {
		name string
		pkt  []byte
		mtu  encap.TunnelMTU
		want []byte // expected options of the segment; nil: no change
	}{
		{"SYN over IPv4", in4(tcp(syn, linux)), 1440, options(mss(1400), sackOK, stamps, nop, scale)},
		{"SYN over IPv6", in6(tcp(syn, linux), header.TCP), 1440, options(mss(1380), sackOK, stamps, nop, scale)},
		{"SYN-ACK over IPv4", in4(tcp(syn|ack, mss(1460))), 1440, mss(1400)},
		{"SYN-ACK over IPv6", in6(tcp(syn|ack, mss(1440)), header.TCP), 1280, mss(1220)},
		{"SYN with payload of odd length", in4(tcp(syn, mss(1460), 1, 2, 3)), 1440, mss(1400)},
		{"65535", in4(tcp(syn, mss(65535))), 1440, mss(1400)},
		{"just too large", in4(tcp(syn, mss(1401))), 1440, mss(1400)},
		{"fits", in4(tcp(syn, mss(1400))), 1440, nil},
		{"small", in4(tcp(syn, mss(536))), 1440, nil},
		{"0", in4(tcp(syn, mss(0))), 1440, nil},
		{"huge MTU", in4(tcp(syn, mss(65535))), 1 << 20, nil},
		{"least MTU", in4(tcp(syn, mss(1460))), 68, mss(28)},
		{"MTU without room", in4(tcp(syn, mss(1460))), 40, mss(1)},
		{"negative MTU", in6(tcp(syn, mss(1460)), header.TCP), -1, mss(1)},
		{"1 is left", in4(tcp(syn, mss(1))), 0, nil},

		{"no SYN", in4(tcp(ack, linux)), 1440, nil},
		{"no SYN over IPv6", in6(tcp(ack, linux), header.TCP), 1440, nil},
		{"no options", in4(tcp(syn, nil)), 1440, nil},
		{"no MSS option", in4(tcp(syn, options(sackOK, stamps))), 1440, nil},

		{"last option", in4(tcp(syn, options(sackOK, nop, nop, mss(1460)))), 1440, options(sackOK, nop, nop, mss(1400))},
		{"at an odd offset", in4(tcp(syn, options(nop, mss(1460)))), 1440, options(nop, mss(1400), []byte{0, 0, 0})},
		{"at an odd offset, later", in6(tcp(syn, options(nop, nop, nop, mss(0x1234), nop)), header.TCP), 1440, options(nop, nop, nop, mss(1380), nop)},
		{"two", in4(tcp(syn, options(mss(1460), nop, mss(8960), nop, nop, nop))), 1440, options(mss(1400), nop, mss(1400), nop, nop, nop)},
		{"the second of two", in4(tcp(syn, options(mss(500), mss(8960)))), 1440, options(mss(500), mss(1400))},
		{"behind the end of options", in4(tcp(syn, options([]byte{0, 0, 0, 0}, mss(1460)))), 1440, nil},
		{"length 0", in4(tcp(syn, options([]byte{9, 0}, nop, nop, mss(1460)))), 1440, nil},
		{"length 1", in4(tcp(syn, options([]byte{9, 1}, nop, nop, mss(1460)))), 1440, nil},
		{"length beyond the header", in4(tcp(syn, options([]byte{9, 9}, nop, nop, mss(1460)))), 1440, nil},
		{"length byte missing", in4(tcp(syn, options(nop, nop, nop, []byte{2}))), 1440, nil},
		{"MSS of length 3", in4(tcp(syn, []byte{2, 3, 255, 1})), 1440, nil},
		{"MSS of length 6", in4(tcp(syn, []byte{2, 6, 255, 255, 255, 255, 1, 1})), 1440, nil},
		{"MSS cut", in4(tcp(syn, []byte{1, 2, 4, 255})), 1440, nil},
		{"good ones in front of a bad one", in4(tcp(syn, options(mss(1460), []byte{9, 9, 0, 0}))), 1440, options(mss(1400), []byte{9, 9, 0, 0})},

		{"IP options", in4(tcp(syn, mss(1460)), 0x94, 4, 0, 0), 1440, mss(1400)},
		{"UDP", put(in4(tcp(syn, mss(1460))), 9, header.UDP), 1440, nil},
		{"ICMPv6", put(in6(tcp(syn, mss(1460)), header.TCP), 6, header.ICMPv6), 1440, nil},
		{"destination options", in6(tcp(syn, mss(1460)), header.DestOptions, header.TCP, 0, 1, 4, 0, 0, 0, 0), 1440, mss(1380)},
		{"hop-by-hop and routing", in6(tcp(syn, mss(1460)), header.HopByHop,
			header.Routing, 0, 1, 4, 0, 0, 0, 0, header.TCP, 0, 4, 0, 0, 0, 0, 0), 1440, mss(1380)},
		{"behind options that AH covers", in6(tcp(syn, mss(1460)), header.DestOptions,
			header.AuthHeader, 0, 1, 4, 0, 0, 0, 0, header.TCP, 0, 0, 0, 0, 0, 0, 0), 1440, nil},
		{"extension headers in front of UDP", in6(tcp(syn, mss(1460)), header.DestOptions, header.UDP, 0, 1, 4, 0, 0, 0, 0), 1440, nil},
		{"extension header that leads out", in6(tcp(syn, mss(1460)), header.DestOptions, header.TCP, 99, 1, 4, 0, 0, 0, 0), 1440, nil},

		{"first fragment", first(in4(tcp(syn, mss(1460), make([]byte, 16)...))), 1440, mss(1400)},
		{"later fragment", later(in4(tcp(syn, mss(1460)))), 1440, nil},
		{"first fragment over IPv6", frag6(0, 1), 1440, options(mss(1380), sackOK, stamps, nop, scale)},
		{"later fragment over IPv6", frag6(0, 9), 1440, nil},
		{"last fragment over IPv6", frag6(0, 8), 1440, nil},
		{"atomic fragment", frag6(0, 0), 1440, options(mss(1380), sackOK, stamps, nop, scale)},
		{"first fragment with half the header", first(in4(tcp(syn, linux)[:24])), 1440, nil},
		{"header length 4", in4(put(tcp(syn, mss(1460)), 12, 0x40)), 1440, nil},
		{"header longer than the segment", in4(put(tcp(syn, mss(1460)), 12, 0x70)), 1440, nil},
		{"segment of 19 bytes", in4(tcp(syn, nil)[:19]), 1440, nil},

		{"corrupt", alter(in4(tcp(syn, mss(1460)))), 1440, nil},
		{"corrupt over IPv6", alter(in6(tcp(syn, mss(1460)), header.TCP)), 1440, nil},
		{"empty", nil, 1440, nil},
		{"cut", in6(tcp(syn, mss(1460)), header.TCP)[:50], 1440, nil},
		{"version 5", put(in4(tcp(syn, mss(1460))), 0, 0x55), 1440, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := bytes.Clone(c.pkt)
			if changed := encap.ClampMSS(got, c.mtu); changed != (c.want != nil) {
				t.Fatalf("changed: %v", changed)
			}
			if c.want == nil {
				if !bytes.Equal(got, c.pkt) {
					t.Errorf("changed, but does not say so\n got %x\nwant %x", got, c.pkt)
				}
				return
			}
			at := len(got) - tcpLen(c.pkt)
			n := int(got[at+12]>>4)*4 + at
			if !bytes.Equal(got[at+20:n], c.want) {
				t.Errorf("options %x, want %x", got[at+20:n], c.want)
			}
			if sum := checksumByGopacket(t, got); sum != binary.BigEndian.Uint16(got[at+16:]) {
				t.Errorf("checksum %x, want %04x", got[at+16:at+18], sum)
			}
			copy(got[at+16:n], c.pkt[at+16:n])
			if !bytes.Equal(got, c.pkt) {
				t.Errorf("more is changed\n got %x\nwant %x", got, c.pkt)
			}
		})
	}
}

// TestClampMSSPartialChecksum: a checksum that is left to hardware is the sum of the
// pseudo-header, which does not include the option.
func TestClampMSSPartialChecksum(t *testing.T) {
	for _, pkt := range [][]byte{in4(tcp(syn, mss(1460))), in6(tcp(syn, mss(1460)), header.TCP)} {
		at := len(pkt) - 24
		src, dst := pkt[12:16], pkt[16:20]
		if header.Version(pkt) == 6 {
			src, dst = pkt[8:24], pkt[24:40]
		}
		partial := header.Fold(header.PseudoSum(src, dst, 24, header.TCP))
		binary.BigEndian.PutUint16(pkt[at+16:], partial)
		want := bytes.Clone(pkt)
		copy(want[at+20:], mss(1280))
		if !encap.ClampMSS(pkt, encap.TunnelMTU(1280+at+20)) || !bytes.Equal(pkt, want) {
			t.Errorf("\n got %x\nwant %x", pkt, want)
		}
	}
}

// alter makes a packet's last byte wrong.
func alter(pkt []byte) []byte { pkt[len(pkt)-1] ^= 1; return pkt }

// tcpLen returns the length of the segment in a packet of the table.
func tcpLen(pkt []byte) int {
	if header.Version(pkt) == 4 {
		return len(header.IPv4(pkt).Payload())
	}
	up, _ := header.WalkExtensions(pkt)
	return len(pkt) - up.Offset
}

// checksumByGopacket computes the TCP checksum with an independent library.
func checksumByGopacket(t testing.TB, pkt []byte) uint16 {
	t.Helper()
	segment := bytes.Clone(pkt[len(pkt)-tcpLen(pkt):])
	var ip gopacket.NetworkLayer
	if header.Version(pkt) == 4 {
		ip = &layers.IPv4{SrcIP: pkt[12:16], DstIP: pkt[16:20], Protocol: layers.IPProtocolTCP}
	} else {
		ip = &layers.IPv6{SrcIP: pkt[8:24], DstIP: pkt[24:40], NextHeader: layers.IPProtocolTCP}
	}
	l := layers.TCP{BaseLayer: layers.BaseLayer{Contents: segment}}
	if err := l.SetNetworkLayerForChecksum(ip); err != nil {
		t.Fatal(err)
	}
	binary.BigEndian.PutUint16(segment[16:], 0)
	sum, err := l.ComputeChecksum()
	if err != nil {
		t.Fatal(err)
	}
	return sum
}

func TestClampMSSNoAllocs(t *testing.T) {
	for _, pkt := range [][]byte{in4(tcp(syn, mss(1460))), in6(tcp(syn, mss(1460)), header.TCP)} {
		if n := testing.AllocsPerRun(100, func() { encap.ClampMSS(pkt, 1440) }); n != 0 {
			t.Errorf("%v allocations", n)
		}
	}
}

// FuzzClampMSS: only values of MSS options and the checksum change, no value grows, and
// a correct checksum stays correct.
func FuzzClampMSS(f *testing.F) {
	for _, pkt := range [][]byte{
		in4(tcp(syn, options(mss(1460), []byte{4, 2, 1, 3, 3, 7}))),
		in4(tcp(syn, options([]byte{1}, mss(1460), mss(8960)), 1, 2, 3), 0x94, 4, 0, 0),
		in6(tcp(syn, mss(1460)), header.TCP),
		in6(tcp(syn, mss(1460)), header.DestOptions, header.TCP, 0, 1, 4, 0, 0, 0, 0),
		in6(tcp(syn, mss(1460)), header.FragmentHdr, header.TCP, 0, 0, 1, 0, 0, 0, 7),
	} {
		f.Add(pkt, 1440, true)
		f.Add(pkt, 68, false)
	}
	f.Fuzz(func(t *testing.T, pkt []byte, mtu int, sealed bool) {
		at := -1 // of the TCP header in a whole packet
		var src, dst []byte
		if ip, r := header.CutIPv4(pkt); r == drop.None {
			pkt, src, dst = ip, ip.Source(), ip.Dest()
			if !ip.IsFragment() && ip.Protocol() == header.TCP {
				at = ip.HeaderLen()
			}
		} else if ip, r := header.ParseIPv6(pkt); r == drop.None {
			pkt, src, dst = ip, ip.Source(), ip.Dest()
			if up, r := header.WalkExtensions(ip); r == drop.None && !up.Fragment && up.Protocol == header.TCP {
				at = up.Offset
			}
		}
		if at >= 0 && len(pkt) < at+20 {
			at = -1
		}
		if at >= 0 && sealed {
			binary.BigEndian.PutUint16(pkt[at+16:], 0)
			seal(pkt[at:], src, dst)
		}
		right := func(b []byte) bool {
			return at >= 0 && header.Sum(b[at:], header.PseudoSum(src, dst, len(b)-at, header.TCP)) == 0xffff
		}
		before := bytes.Clone(pkt)
		changed := encap.ClampMSS(pkt, encap.TunnelMTU(mtu))
		if changed == bytes.Equal(before, pkt) && (!changed || at >= 0) {
			t.Fatalf("changed: %v\nwas %x\nis  %x", changed, before, pkt)
		}
		if right(before) && !right(pkt) {
			t.Fatalf("checksum lost\nwas %x\nis  %x", before, pkt)
		}
		if at < 0 {
			return
		}
		n := at + int(pkt[at+12]>>4)*4
		for i := range pkt {
			switch {
			case before[i] == pkt[i], i == at+16, i == at+17:
			case !changed || i < at+22 || i >= n:
				t.Fatalf("byte %d\nwas %x\nis  %x", i, before, pkt)
			default:
				// In the value of an option of kind 2 and length 4, of which this is either
				// byte.
				o := i - 2
				if before[o] != 2 || before[o+1] != 4 || binary.BigEndian.Uint16(pkt[o+2:]) > binary.BigEndian.Uint16(before[o+2:]) {
					if o--; before[o] != 2 || before[o+1] != 4 || binary.BigEndian.Uint16(pkt[o+2:]) >= binary.BigEndian.Uint16(before[o+2:]) {
						t.Fatalf("byte %d\nwas %x\nis  %x", i, before, pkt)
					}
				}
			}
		}
	})
}

// BenchmarkClampMSS: a packet without SYN must cost next to nothing.
func BenchmarkClampMSS(b *testing.B) {
	data := make([]byte, 1380)
	for _, c := range []struct {
		name string
		pkt  []byte
	}{
		{"ipv4-tcp", in4(tcp(ack, nil, data...))},
		{"ipv6-tcp", in6(tcp(ack, nil, data...), header.TCP)},
		{"ipv4-udp", put(in4(tcp(ack, nil, data...)), 9, header.UDP)},
		{"ipv6-udp", put(in6(tcp(ack, nil, data...), header.TCP), 6, header.UDP)},
		{"ipv6-extension", in6(tcp(ack, nil, data...), header.DestOptions, header.TCP, 0, 1, 4, 0, 0, 0, 0)},
		{"ipv4-syn", in4(tcp(syn, options(mss(1460), []byte{4, 2, 1, 3, 3, 7})))},
		{"ipv6-syn", in6(tcp(syn, options(mss(1460), []byte{4, 2, 1, 3, 3, 7})), header.TCP)},
	} {
		b.Run(c.name, func(b *testing.B) {
			work := bytes.Clone(c.pkt)
			b.ReportAllocs()
			for b.Loop() {
				if encap.ClampMSS(work, 1440) {
					copy(work, c.pkt)
				}
			}
		})
	}
}
