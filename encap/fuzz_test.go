package encap_test

import (
	"bytes"
	"encoding/binary"
	"testing"

	"sixfour/encap"
	"sixfour/encap/drop"
	"sixfour/encap/framing"
	"sixfour/encap/header"
	"sixfour/encap/icmp"
	"sixfour/internal/vectors"
)

// fuzzed returns the stacks of the fuzz tests: each kind, with and without options, and
// stacks in which a layer may get the other IP version.
func fuzzed(t testing.TB) (stacks, ends []*encap.Stack, all [][]encap.Layer) {
	t.Helper()
	options := framing.GRE{Keyed: true, Key: 1, Checksum: true, Sequence: true}
	key := framing.GRE{Keyed: true, Key: 0x2a}
	all = [][]encap.Layer{
		{layer(encap.FourInSix, "fc00::1", "fc00::2"), layer(encap.SixInFour, "203.0.113.10", "203.0.113.20")},
		{sit}, {ipip}, {dslite}, {sixes}, {gre4}, {gre6},
		{greLayer(encap.GREInFour, "192.0.2.1", "198.51.100.2", options)},
		{greLayer(encap.GREInSix, "2001:db8:a::1", "2001:db8:b::1", key)},
		{dslite, sixes}, {gre6, sit}, {gre6, gre4}, {ipip, gre6}, {layer(encap.FourInFour, "10.9.0.1", "10.9.0.2"), gre4},
		{dslite, gre4, layer(encap.FourInSix, "fc00::1", "fc00::2"), layer(encap.SixInFour, "203.0.113.10", "203.0.113.20")},
		{encap.Layer{Kind: encap.SixInFour, Local: sit.Local, Resolver: embedded{}}},
		{layer(encap.SixInFour.With(framing.FOU{Local: 5555, Remote: 5555, Version: 6}), "192.0.2.1", "198.51.100.2")},
		{layer(encap.SixInSix.With(framing.FOU{Local: 4754, Remote: 4754, Inside: key, Flow: true}), "2001:db8:a::1", "2001:db8:b::1")},
		{dslite, layer(encap.SixInFour.With(framing.FOU{Local: 5555, Remote: 5555, Version: 6}), "192.0.2.1", "198.51.100.2")},
	}
	for _, l := range all {
		// A path MTU that is large enough for everything, so that what is received can be
		// sent.
		stacks = append(stacks, build(t, l, 1<<16, encap.DefaultOptions))
		if l[len(l)-1].Resolver != nil {
			ends = append(ends, nil)
			continue
		}
		ends = append(ends, build(t, flip(l), 1<<16, encap.DefaultOptions))
	}
	return stacks, ends, all
}

// FuzzDecapsulate: no packet causes a panic. An accepted packet is a whole packet that
// is inside the received one, with a permitted source, and unchanged except for its ECN
// field; encapsulated again, it comes out the same.
func FuzzDecapsulate(f *testing.F) {
	stacks, ends, all := fuzzed(f)
	for _, v := range vectors.Read(f) {
		for i := range stacks {
			f.Add(byte(i), v)
		}
	}
	for i, s := range stacks {
		for _, inner := range [][]byte{header4("10.0.0.1", "10.0.0.2", 1, nil), header6("2001:db8::1", "2001:db8::2", 59, nil)} {
			if pkt, r := encapsulate(s, inner); r == drop.None {
				f.Add(byte(i), pkt)
			}
		}
	}
	f.Fuzz(func(t *testing.T, which byte, b []byte) {
		i := int(which) % len(stacks)
		in, back := ends[i], stacks[i]
		outer := all[i][len(all[i])-1]
		if in == nil {
			in = stacks[i] // the resolver accepts it at the same end
		}
		// Let the fuzzer pass checks that random bytes would hardly pass.
		if len(b) >= 20 && b[0] == 0x45 && outer.Kind.Over() == 4 {
			from, to := outer.Local, outer.Remote
			if !to.IsValid() {
				from, to = to, from
			}
			if from.IsValid() {
				copy(b[12:16], from.AsSlice())
			}
			copy(b[16:20], to.AsSlice())
			header.IPv4(b[:20]).SetChecksum()
		}
		if len(b) >= 40 && b[0]>>4 == 6 && outer.Kind.Over() == 6 {
			copy(b[8:24], outer.Local.AsSlice())
			copy(b[24:40], outer.Remote.AsSlice())
		}
		before := bytes.Clone(b)
		inner, r := in.Decapsulate(b)
		if r == drop.OwnSource && inner != nil {
			checkKeepalive(t, in, inner)
			return
		}
		if r != drop.None {
			if inner != nil && (r == drop.BadExtension || r == drop.SourceRouting) {
				checkRefused(t, in, inner)
			} else if inner != nil && r != drop.Fragment { // which is for reassembly
				t.Fatalf("refused (%v), but returned %x", r, inner)
			}
			if r == drop.Fragment && inner != nil {
				in.DecapsulateReassembled(inner)
			}
			return
		}
		checkInside(t, before, b, inner)
		again, r := encapsulate(back, inner)
		if r != drop.None {
			if r != drop.Loop && r != drop.TooBig && r != drop.EncapLimit && r != drop.NoPeer && r != drop.WrongFamily {
				t.Fatalf("encapsulate again: %v", r)
			}
			return
		}
		if twice, r := in.Decapsulate(again); r == drop.None && !bytes.Equal(twice, inner) {
			t.Fatalf("again\n got %x\nwant %x", twice, inner)
		}
	})
}

// checkInside checks an accepted packet.
func checkInside(t *testing.T, before, b, inner []byte) {
	t.Helper()
	off := cap(b) - cap(inner)
	if off < 20 || off+len(inner) > len(b) {
		t.Fatalf("inner packet at %d, %d bytes, of %d", off, len(inner), len(b))
	}
	if _, r := header.Parse(inner, header.Version(inner)); r != drop.None {
		t.Fatalf("let through: %v", r)
	}
	was := before[off : off+len(inner)]
	if header.Version(inner) == 4 {
		was[1], was[10], was[11] = inner[1], inner[10], inner[11]
	} else {
		was[1] = was[1]&0xcf | inner[1]&0x30
	}
	if !bytes.Equal(was, inner) {
		t.Fatalf("changed\n got %x\nwant %x", inner, was)
	}
}

// checkKeepalive checks that a packet that is sent on is valid.
func checkKeepalive(t *testing.T, s *encap.Stack, inner []byte) {
	t.Helper()
	if s.Keepalive(inner, true) == encap.NoReturn {
		return
	}
	if _, r := header.Parse(inner, header.Version(inner)); r != drop.None {
		t.Fatalf("sent on: %v", r)
	}
}

// FuzzUnquote: for every quote, the result is a part of the quote, and an error can be
// made from it.
func FuzzUnquote(f *testing.F) {
	stacks, _, all := fuzzed(f)
	for i, s := range stacks {
		for _, inner := range [][]byte{vectors.Read(f)["DBL-1"][60:], vectors.Read(f)["6IN4-1"][20:]} {
			pkt, r := encapsulate(s, inner)
			if r != drop.None {
				continue
			}
			f.Add(byte(i), byte(3), byte(4), uint32(1400), pkt)
			f.Add(byte(i), byte(3), byte(1), uint32(0), pkt[:28])
			f.Add(byte(i), byte(2), byte(0), uint32(1280), pkt[20:])
		}
	}
	f.Add(byte(0), byte(4), byte(0), uint32(44), vectors.Read(f)["6IN6-3a"])
	f.Fuzz(func(t *testing.T, which, typ, code byte, arg uint32, quote []byte) {
		s := stacks[int(which)%len(stacks)]
		e := icmp.Error{Version: header.Version(quote), Type: typ, Code: code, Arg: arg, Quote: quote}
		m := e.Meaning()
		q, ok := s.Unquote(quote)
		if !ok {
			return
		}
		if len(q.Inner) > len(quote) || q.Outside < 0 || q.Outside > encap.Overhead(all[int(which)%len(all)], encap.DefaultOptions) {
			t.Fatalf("%+v of %d bytes", q, len(quote))
		}
		if mtu := e.MTU(q.Size); mtu != 0 && (mtu < 68 || mtu >= q.Size) {
			t.Fatalf("MTU %d of a packet of %d", mtu, q.Size)
		}
		if q.Inner != nil && icmp.MayAnswer(q.Inner, m == icmp.TooBig) {
			msg := icmp.AppendTooBig(nil, 1280, q.Inner, nil)
			if len(msg) > icmp.MaxLen {
				t.Fatalf("%d bytes", len(msg))
			}
		}
	})
}

// FuzzGRE: an accepted header is inside the packet, matches its flags, and has a correct
// checksum.
func FuzzGRE(f *testing.F) {
	for _, h := range []string{"00000800", "200086dd0000002a", "b0000800aaaa00000000000100000002", "80000000ffff0000", "40000800", "00018000"} {
		f.Add(unhex(f, h))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		peek, whole := header.PeekGRE(b)
		h, r := header.ParseGRE(b)
		if r != drop.None {
			return
		}
		n := 4
		for _, flag := range []uint16{header.GREChecksum, header.GREKey, header.GRESequence} {
			if binary.BigEndian.Uint16(b)&flag != 0 {
				n += 4
			}
		}
		if !whole || peek != h || h.Len != n || n > len(b) || h.Flags&0x4c07 != 0 {
			t.Fatalf("%+v, %+v of %d bytes", h, peek, len(b))
		}
		if h.Flags&header.GREChecksum != 0 && slowSum(b) != 0xffff {
			t.Fatalf("checksum %#x", slowSum(b))
		}
	})
}

// slowSum is the sum that a checksum complements, word by word (RFC 1071).
func slowSum(b []byte) uint16 {
	var sum uint32
	for i, c := range b {
		if i%2 == 0 {
			sum += uint32(c) << 8
		} else {
			sum += uint32(c)
		}
		for sum > 0xffff {
			sum = sum>>16 + sum&0xffff
		}
	}
	return uint16(sum)
}

// checkRefused makes the error for the sender of a packet with bad extension headers.
func checkRefused(t *testing.T, s *encap.Stack, pkt []byte) {
	t.Helper()
	_, at, tell := header.FindProblem(header.IPv6(pkt))
	layer, ours := s.EndOf(pkt)
	if !tell || !ours {
		return
	}
	if at < header.IPv6Len || at >= len(pkt) {
		t.Fatalf("the problem is at %d of %x", at, pkt)
	}
	answer := make([]byte, encap.Headroom+1280)
	ip := header.IPv6(answer[encap.Headroom:])
	ip[0] = 0x60
	binary.BigEndian.PutUint16(ip[4:], 1280-header.IPv6Len)
	if out, r := s.EncapsulateOutside(layer, answer, encap.Headroom); r == drop.None && !bytes.HasSuffix(out, ip) {
		t.Fatalf("%x does not carry the answer", out)
	}
}
