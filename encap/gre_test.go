package encap_test

import (
	"bytes"
	"encoding/binary"
	"testing"
	"testing/synctest"
	"time"

	"sixfour/encap"
	"sixfour/encap/drop"
	"sixfour/encap/framing"
	"sixfour/encap/header"
)

func TestParseGRE(t *testing.T) {
	for _, c := range []struct {
		name   string
		header string // flags, protocol type; checksum and reserved; key; sequence
		want   header.GREHeader
	}{
		{"nothing", "0000" + "0800", header.GREHeader{Protocol: 0x0800, Len: 4}},
		{"IPv6", "0000" + "86dd", header.GREHeader{Protocol: 0x86dd, Len: 4}},
		{"answer to a keepalive", "0000" + "0000", header.GREHeader{Len: 4}},
		{"checksum", "8000" + "0800" + "77ff0000", header.GREHeader{Flags: 0x8000, Protocol: 0x0800, Len: 8}},
		{"key", "2000" + "0800" + "01020304", header.GREHeader{Flags: 0x2000, Protocol: 0x0800, Key: 0x01020304, Len: 8}},
		{"sequence", "1000" + "0800" + "00000005", header.GREHeader{Flags: 0x1000, Protocol: 0x0800, Sequence: 5, Len: 8}},
		{"checksum and key", "a000" + "0800" + "57f80000" + "00000007", header.GREHeader{Flags: 0xa000, Protocol: 0x0800, Key: 7, Len: 12}},
		{"checksum and sequence", "9000" + "0800" + "67fd0000" + "00000002", header.GREHeader{Flags: 0x9000, Protocol: 0x0800, Sequence: 2, Len: 12}},
		{"key and sequence", "3000" + "0800" + "00000007" + "00000002", header.GREHeader{Flags: 0x3000, Protocol: 0x0800, Key: 7, Sequence: 2, Len: 12}},
		{"all", "b000" + "0800" + "47f60000" + "00000007" + "00000002", header.GREHeader{Flags: 0xb000, Protocol: 0x0800, Key: 7, Sequence: 2, Len: 16}},
		{"reserved bits that are ignored", "03f8" + "0800", header.GREHeader{Flags: 0x03f8, Protocol: 0x0800, Len: 4}},
	} {
		b := unhex(t, c.header)
		if got, r := header.ParseGRE(b); r != drop.None || got != c.want {
			t.Errorf("%s: %v %+v, want %+v", c.name, r, got, c.want)
		}
		for n := range b {
			if _, r := header.ParseGRE(b[:n]); r != drop.Truncated {
				t.Errorf("%s, %d bytes: %v", c.name, n, r)
			}
			if h, ok := header.PeekGRE(b[:n]); ok || n >= header.GRELen && h.Protocol != c.want.Protocol {
				t.Errorf("%s, peek at %d bytes: %v %+v", c.name, n, ok, h)
			}
		}
		if c.want.Flags&header.GREChecksum != 0 {
			b[4] ^= 1
			if _, r := header.ParseGRE(b); r != drop.BadChecksum {
				t.Errorf("%s, wrong checksum: %v", c.name, r)
			}
		}
	}
	for name, first := range map[string]string{
		"routing": "4000", "bit 4": "0800", "bit 5": "0400", "version 1": "0001", "version 7": "0007", "PPTP": "3001",
	} {
		if _, r := header.ParseGRE(unhex(t, first+"880b"+"0000000000000000")); r != drop.BadGRE {
			t.Errorf("%s: %v", name, r)
		}
	}
}

// TestGREChecksumOfSegments: the checksum covers the GRE header, the headers of the
// packet, and a separate payload, any of which may have an odd length. It is compared
// with a simple computation. In a stack the outer checksum covers the inner one.
func TestGREChecksumOfSegments(t *testing.T) {
	sums := framing.GRE{Keyed: true, Key: 0xdeadbeef, Checksum: true, Sequence: true}
	stack := []encap.Layer{
		greLayer(encap.GREInSix, "2001:db8:a::1", "2001:db8:b::1", framing.GRE{Checksum: true}),
		greLayer(encap.GREInFour, "192.0.2.1", "198.51.100.2", sums),
	}
	random := make([]byte, 200)
	for i := range random {
		random[i] = byte(i*i*37 + 11)
	}
	for head := range 10 {
		for tail := range 70 {
			inner := header4("10.0.0.1", "10.0.0.2", header.UDP, random[:head+tail])
			for _, layers := range [][]encap.Layer{stack[1:], stack} {
				s := build(t, layers, 1500, encap.DefaultOptions)
				b := append(make([]byte, encap.Headroom), inner[:header.IPv4Len+head]...)
				start, r := s.EncapsulateSegment(b, encap.Headroom, inner[header.IPv4Len+head:])
				if r != drop.None {
					t.Fatal(r)
				}
				pkt := append(bytes.Clone(start), inner[header.IPv4Len+head:]...)
				if sum := slowSum(pkt[20:]); sum != 0xffff {
					t.Fatalf("%d layers, %d and %d bytes: sum %#x", len(layers), head, tail, sum)
				}
				if len(layers) == 2 && slowSum(pkt[20+16+40:]) != 0xffff {
					t.Fatalf("inside, %d and %d bytes: sum %#x", head, tail, slowSum(pkt[20+16+40:]))
				}
				got, r := build(t, flip(layers), 1500, encap.DefaultOptions).Decapsulate(pkt)
				if r != drop.None || !bytes.Equal(got, inner) {
					t.Fatalf("%d layers, %d and %d bytes: %v", len(layers), head, tail, r)
				}
			}
		}
	}
}

// TestGREOptions: both ends must agree on key and checksum; an unexpected sequence
// number is accepted.
func TestGREOptions(t *testing.T) {
	type gre = framing.GRE
	for _, c := range []struct {
		name     string
		out, in  framing.GRE
		want     drop.Reason
		breaking func(b []byte) // of the GRE packet
	}{
		{"nothing", gre{}, gre{}, drop.None, nil},
		{"key", gre{Keyed: true, Key: 7}, gre{Keyed: true, Key: 7}, drop.None, nil},
		{"key 0", gre{Keyed: true}, gre{Keyed: true}, drop.None, nil},
		{"another key", gre{Keyed: true, Key: 7}, gre{Keyed: true, Key: 8}, drop.Key, nil},
		{"key missing", gre{}, gre{Keyed: true, Key: 7}, drop.Key, nil},
		{"key 0 missing", gre{}, gre{Keyed: true}, drop.Key, nil},
		{"key not expected", gre{Keyed: true, Key: 7}, gre{}, drop.Key, nil},
		{"key 0 not expected", gre{Keyed: true}, gre{}, drop.Key, nil},
		{"checksum", gre{Checksum: true}, gre{Checksum: true}, drop.None, nil},
		{"checksum missing", gre{}, gre{Checksum: true}, drop.BadChecksum, nil},
		{"checksum not expected", gre{Checksum: true}, gre{}, drop.BadChecksum, nil},
		{"checksum wrong", gre{Checksum: true}, gre{Checksum: true}, drop.BadChecksum, func(b []byte) { b[4] ^= 1 }},
		{"checksum 0", gre{Checksum: true}, gre{Checksum: true}, drop.BadChecksum, func(b []byte) { b[4], b[5] = 0, 0 }},
		{"payload not what the checksum says", gre{Checksum: true}, gre{Checksum: true}, drop.BadChecksum, func(b []byte) { b[len(b)-1] ^= 1 }},
		{"sequence", gre{Sequence: true}, gre{Sequence: true}, drop.None, nil},
		{"sequence missing", gre{}, gre{Sequence: true}, drop.Sequence, nil},
		{"sequence not expected", gre{Sequence: true}, gre{}, drop.None, nil},
		{"all", gre{Keyed: true, Key: 7, Checksum: true, Sequence: true}, gre{Keyed: true, Key: 7, Checksum: true, Sequence: true}, drop.None, nil},
		{"a key each way", gre{Keyed: true, Key: 7, Apart: true, InKeyed: true, InKey: 8}, gre{Keyed: true, Key: 8, Apart: true, InKeyed: true, InKey: 7}, drop.None, nil},
		{"a key each way, exchanged", gre{Keyed: true, Key: 7, Apart: true, InKeyed: true, InKey: 8}, gre{Keyed: true, Key: 7, Apart: true, InKeyed: true, InKey: 8}, drop.Key, nil},
		{"a key one way", gre{Keyed: true, Key: 7, Apart: true}, gre{Apart: true, InKeyed: true, InKey: 7}, drop.None, nil},
		{"no key the other way", gre{Apart: true, InKeyed: true, InKey: 7}, gre{Keyed: true, Key: 7, Apart: true}, drop.None, nil},
		{"a key where there is none that way", gre{Keyed: true, Key: 7}, gre{Keyed: true, Key: 7, Apart: true}, drop.Key, nil},
		{"routing bit", gre{}, gre{}, drop.BadGRE, func(b []byte) { b[0] = 0x40 }},
		{"version 1", gre{}, gre{}, drop.BadGRE, func(b []byte) { b[1] = 1 }},
		{"bridged Ethernet", gre{}, gre{}, drop.UnknownProtocol, func(b []byte) { b[2], b[3] = 0x65, 0x58 }},
		{"the answer to a keepalive of ours", gre{}, gre{}, drop.UnknownProtocol, func(b []byte) { b[2], b[3] = 0, 0 }},
		{"IPv4 that is called IPv6", gre{}, gre{}, drop.WrongVersion, func(b []byte) { b[2], b[3] = 0x86, 0xdd }},
	} {
		for _, l := range []encap.Layer{gre4, gre6} {
			headers := header.IPv4Len
			if l.Kind == encap.GREInSix {
				headers = header.IPv6Len
			}
			from, to := l, l
			from.Kind, to.Kind = l.Kind.With(c.out), l.Kind.With(c.in)
			inner := header4("10.0.0.1", "10.0.0.2", header.ICMP, make([]byte, 60))
			pkt, r := encapsulate(build(t, []encap.Layer{from}, 1500, encap.DefaultOptions), inner)
			if r != drop.None {
				t.Fatal(r)
			}
			if c.breaking != nil {
				c.breaking(pkt[headers:])
			}
			got, r := build(t, flip([]encap.Layer{to}), 1500, encap.DefaultOptions).Decapsulate(pkt)
			if r != c.want || r == drop.None && !bytes.Equal(got, inner) {
				t.Errorf("%v, %s: %v, want %v", l.Kind, c.name, r, c.want)
			}
		}
	}
}

// TestGRECut: a GRE packet that is cut off at any place is refused.
func TestGRECut(t *testing.T) {
	l := greLayer(encap.GREInFour, "192.0.2.1", "198.51.100.2", framing.GRE{Keyed: true, Key: 7, Sequence: true})
	pkt, _ := encapsulate(build(t, []encap.Layer{l}, 1500, encap.DefaultOptions), header4("10.0.0.1", "10.0.0.2", header.ICMP, make([]byte, 8)))
	for n := header.IPv4Len; n < len(pkt); n++ {
		b := bytes.Clone(pkt[:n])
		binary.BigEndian.PutUint16(b[2:], uint16(n))
		header.IPv4(b).SetChecksum()
		if _, r := build(t, flip([]encap.Layer{l}), 1500, encap.DefaultOptions).Decapsulate(b); r != drop.Truncated {
			t.Errorf("%d bytes: %v", n, r)
		}
	}
}

// TestGRESequence checks sequence numbers (RFC 2890 section 2.2): old ones are refused,
// missing ones cause no delay; a single number far from the others is refused, but
// several consecutive ones are accepted, and any number after a silence.
func TestGRESequence(t *testing.T) {
	l := greLayer(encap.GREInFour, "192.0.2.1", "198.51.100.2", framing.GRE{Sequence: true})
	pkt, r := encapsulate(build(t, []encap.Layer{l}, 1500, encap.DefaultOptions), header4("10.0.0.1", "10.0.0.2", header.ICMP, make([]byte, 8)))
	if r != drop.None {
		t.Fatal(r)
	}
	type step struct {
		after  time.Duration
		number uint32
		taken  bool
	}
	for name, steps := range map[string][]step{
		"in order":               {{0, 0, true}, {0, 1, true}, {0, 2, true}},
		"repeated":               {{0, 0, true}, {0, 1, true}, {0, 1, false}, {0, 2, true}},
		"old":                    {{0, 5, true}, {0, 4, false}, {0, 0, false}, {0, 6, true}},
		"gap":                    {{0, 0, true}, {0, 9, true}, {0, 5, false}, {0, 10, true}},
		"begins anywhere":        {{0, 3000000000, true}, {0, 3000000001, true}},
		"comes round":            {{0, 0xfffffffe, true}, {0, 0xffffffff, true}, {0, 0, true}, {0, 0xffffffff, false}, {0, 1, true}},
		"a gap comes round":      {{0, 0xfffffff0, true}, {0, 7, true}, {0, 0xfffffff1, false}, {0, 8, true}},
		"the largest gap":        {{0, 0, true}, {0, 1024, true}, {0, 1, false}, {0, 1025, true}},
		"one forged packet":      {{0, 0, true}, {0, 1026, false}, {0, 1, true}, {0, 1 << 31, false}, {0, 2, true}, {0, 1<<32 - 1, false}, {0, 3, true}},
		"forged, never in turn":  {{0, 0, true}, {0, 5000, false}, {0, 9000, false}, {0, 90000, false}, {0, 1 << 30, false}, {0, 3 << 30, false}, {0, 1, true}},
		"forged again and again": {{0, 0, true}, {0, 5000, false}, {0, 5001, false}, {0, 5002, false}, {0, 1, true}, {0, 5003, false}, {0, 2, true}},
		"a run of forged ones": {{0, 0, true}, {0, 1 << 30, false}, {0, 1<<30 + 1, false}, {0, 1<<30 + 2, false}, {0, 1<<30 + 3, true},
			{0, 1, false}, {0, 2, false}, {0, 3, false}, {0, 4, true}, {0, 5, true}}, // and the peer is accepted at once
		"many are lost":         {{0, 0, true}, {0, 5000, false}, {0, 5001, false}, {0, 5004, false}, {0, 5005, true}, {0, 4999, false}, {0, 5006, true}},
		"overtaken or doubled":  {{0, 99, true}, {0, 90, false}, {0, 91, false}, {0, 92, false}, {0, 93, false}, {0, 94, false}, {0, 100, true}},
		"restart, few before":   {{0, 99, true}, {time.Second, 0, false}, {0, 1, false}, {0, 2, false}, {0, 3, true}, {0, 4, true}},
		"restart, many before":  {{0, 99999, true}, {0, 0, false}, {0, 1, false}, {0, 2, false}, {0, 3, true}, {0, 4, true}},
		"restart and a restart": {{0, 99999, true}, {0, 0, false}, {0, 1, false}, {0, 0, false}, {0, 1, false}, {0, 2, false}, {0, 3, true}},
		"restart":               {{0, 1000, true}, {10 * time.Second, 0, true}, {0, 1, true}, {0, 1001, true}},
		"restart, some lost":    {{0, 1000, true}, {11 * time.Second, 15, true}, {0, 16, true}},
		"restart, many lost":    {{0, 1000, true}, {11 * time.Second, 500, true}, {0, 499, false}, {0, 501, true}},
		"restart, too soon":     {{0, 1000, true}, {10*time.Second - 1, 0, false}, {1, 0, true}},
		"no silence":            {{0, 1000, true}, {6 * time.Second, 1001, true}, {6 * time.Second, 0, false}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := build(t, flip([]encap.Layer{l}), 1500, encap.DefaultOptions)
				for i, step := range steps {
					time.Sleep(step.after) // in simulated time
					b := bytes.Clone(pkt)
					binary.BigEndian.PutUint32(b[24:], step.number)
					_, r := s.Decapsulate(b)
					if step.taken && r != drop.None || !step.taken && r != drop.Sequence {
						t.Errorf("step %d, number %d: %v", i, step.number, r)
					}
				}
			})
		})
	}
}

// TestGRESequenceSent: numbers begin at 0, continue when the stack is replaced, and are
// shared by IPv4 and IPv6.
func TestGRESequenceSent(t *testing.T) {
	l := greLayer(encap.GREInFour, "192.0.2.1", "198.51.100.2", framing.GRE{Sequence: true})
	rec := encap.NewRecord()
	for n := range uint32(6) {
		inner := header4("10.0.0.1", "10.0.0.2", header.ICMP, nil)
		if n%2 == 1 {
			inner = header6("2001:db8::1", "2001:db8::2", header.NoNextHeader, nil)
		}
		pkt, r := encapsulate(buildWith(t, []encap.Layer{l}, 1500, encap.DefaultOptions, rec), inner)
		if r != drop.None || binary.BigEndian.Uint32(pkt[24:]) != n {
			t.Errorf("packet %d: %v, %x", n, r, pkt[20:28])
		}
	}
}
