package header_test

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"sixfour/encap/drop"
	"sixfour/encap/header"
)

// slowSum implements RFC 1071 literally, word by word.
func slowSum(b []byte, initial uint32) uint16 {
	sum := uint64(initial)
	for i := 0; i < len(b); i += 2 {
		sum += uint64(b[i]) << 8
		if i+1 < len(b) {
			sum += uint64(b[i+1])
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return uint16(sum)
}

func TestSum(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for n := range 200 {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(r.Uint32())
			if n%3 == 0 {
				b[i] = 0xff // the most carries
			}
		}
		initial := r.Uint32()
		if got, want := header.Sum(b, initial), slowSum(b, initial); got != want {
			t.Errorf("%d bytes: %04x, want %04x", n, got, want)
		}
	}
}

// TestSumLong: long packets, which processors with wide registers add up in another way, of
// every length modulo 64, at every alignment, also where every addition carries.
func TestSumLong(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	memory := make([]byte, 65535+64)
	for _, most := range []bool{false, true} {
		for i := range memory {
			memory[i] = byte(r.Uint32())
			if most {
				memory[i] = 0xff
			}
		}
		for n := range 64 {
			for _, length := range []int{192 + n, 256 + n, 320 + n, 1400 + n, 9000 + n, 65535 - n} {
				b := memory[r.IntN(64):][:length]
				initial := r.Uint32()
				if got, want := header.Sum(b, initial), slowSum(b, initial); got != want {
					t.Errorf("%d bytes: %04x, want %04x", length, got, want)
				}
			}
		}
	}
}

// TestUpdate: RFC 1624 section 4 has the example in which the older formula fails.
func TestUpdate(t *testing.T) {
	if got := header.Update(0xdd2f, 0x5555, 0x3285); got != 0x0000 {
		t.Errorf("%04x, want 0000", got)
	}
	r := rand.New(rand.NewPCG(3, 4))
	b := make([]byte, 20)
	for range 1000 {
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		before, after := binary.BigEndian.Uint16(b[4:]), uint16(r.Uint32())
		sum := ^header.Sum(b, 0)
		binary.BigEndian.PutUint16(b[4:], after)
		if got, want := header.Update(sum, before, after), ^header.Sum(b, 0); got != want {
			t.Fatalf("%04x, want %04x", got, want)
		}
	}
}

func TestSetECN(t *testing.T) {
	ip := header.IPv4{0x45, 0xb8, 0, 20, 0, 0, 0x40, 0, 64, 41, 0, 0, 203, 0, 113, 1, 203, 0, 113, 2}
	ip.SetChecksum()
	for ecn := range byte(4) {
		ip.SetECN(ecn)
		if ip.TOS() != 0xb8|ecn || header.Sum(ip, 0) != 0xffff {
			t.Errorf("ECN %d: %x", ecn, ip)
		}
	}
	v6 := make(header.IPv6, header.IPv6Len)
	binary.BigEndian.PutUint32(v6, 6<<28|0xb8<<20|0xabcde)
	for ecn := range byte(4) {
		v6.SetECN(ecn)
		if v6.TrafficClass() != 0xb8|ecn || v6.FlowLabel() != 0xabcde || header.Version(v6) != 6 {
			t.Errorf("ECN %d: %x", ecn, v6[:4])
		}
	}
}

func FuzzHeaders(f *testing.F) {
	f.Add([]byte{0x45, 0, 0, 21, 0, 0, 0, 0, 64, 41, 0, 0, 203, 0, 113, 1, 203, 0, 113, 2, 0x60})
	v6 := make([]byte, 64) // hop-by-hop, destination options, atomic fragment
	copy(v6, []byte{0x60, 0, 0, 0, 0, 24, 0, 64})
	copy(v6[40:], []byte{60, 0, 1, 4, 0, 0, 0, 0, 44, 0, 4, 1, 4, 1, 1, 0, 59, 0, 0, 0, 0, 0, 0, 7})
	f.Add(v6)
	f.Fuzz(func(t *testing.T, b []byte) {
		if ip, r := header.ParseIPv4(b); r == drop.None {
			if len(ip) != ip.TotalLen() || len(ip) > len(b) || len(ip.Payload()) != len(ip)-ip.HeaderLen() {
				t.Fatalf("view of %d bytes: %x", len(ip), b)
			}
			ip.SetECN(byte(len(b)) & 3)
			if header.Sum(ip[:ip.HeaderLen()], 0) != 0xffff {
				t.Fatalf("checksum lost: %x", ip)
			}
			_, _, _, _, _ = ip.Src(), ip.Dst(), ip.ID(), ip.IsFragment(), ip.MayFragment()
		}
		if ip, r := header.ParseIPv6(b); r == drop.None {
			if len(ip) != header.IPv6Len+ip.PayloadLen() || len(ip) > len(b) {
				t.Fatalf("view of %d bytes: %x", len(ip), b)
			}
			up, r := header.WalkExtensions(ip)
			if r == drop.None && (up.Offset < header.IPv6Len || up.Offset > len(ip)) {
				t.Fatalf("upper layer at %d of %d", up.Offset, len(ip))
			}
			through, rt := header.Transit(ip)
			if rt == drop.None && (through.Offset < header.IPv6Len || through.Offset > len(ip)) {
				t.Fatalf("upper layer at %d of %d", through.Offset, len(ip))
			}
			if rt != drop.None && r == drop.None && !up.Fragment && up.Protocol != header.AuthHeader && !header.IsExtension(up.Protocol) {
				t.Fatalf("the destination takes it, a firewall does not: %v", rt)
			}
			if _, ok := header.FindUpper(ip); ok != (rt != drop.BadExtension) && rt != drop.SourceRouting {
				t.Fatal("two opinions of where the chain ends")
			}
			_, _, _ = ip.Src(), ip.Dst(), ip.FlowLabel()
		}
	})
}
