package encap_test

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"

	"sixfour/encap"
	"sixfour/encap/drop"
	"sixfour/encap/header"
	"sixfour/encap/resolve"
	"sixfour/encap/source"
	"sixfour/internal/vectors"
)

// Offsets in the vectors DBL-1 (double) and 6IN4-1 (6in4).
const (
	mid     = 20 // IPv6 header
	inside4 = 60 // inner IPv4 header of DBL-1
)

// sum updates the header checksum of the IPv4 packet at off.
func sum(b []byte, off int) []byte {
	header.IPv4(b[off:]).SetChecksum()
	return b
}

// extend inserts extension headers between the IPv6 header and the inner packet of
// DBL-1, and corrects the lengths.
func extend(b []byte, next byte, ext ...byte) []byte {
	b = slices.Insert(b, mid+header.IPv6Len, ext...)
	b[mid+6] = next
	binary.BigEndian.PutUint16(b[mid+4:], uint16(len(b)-mid-header.IPv6Len))
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
	return sum(b, 0)
}

// put overwrites bytes at an offset.
func put(b []byte, off int, bytes ...byte) []byte {
	copy(b[off:], bytes)
	return b
}

func addr(s string) []byte { return netip.MustParseAddr(s).AsSlice() }

func TestDecapsulateDouble(t *testing.T) {
	ends := swap(addrs("203.0.113.10", "203.0.113.20", "fc00::1", "fc00::2")) // we are .20, fc00::2
	m, _ := encap.ModeByName("4in6in4")
	s, err := encap.New(m.Between(ends), 1500, encap.DefaultOptions, source.New(
		[]netip.Addr{netip.MustParseAddr("10.0.0.2")}, []netip.Addr{ends.Local, ends.Local6}, false), encap.NewRecord())
	if err != nil {
		t.Fatal(err)
	}
	type edit func(b []byte) []byte
	for _, c := range []struct {
		name string
		edit edit
		want drop.Reason
	}{
		{"as it is", func(b []byte) []byte { return b }, drop.None},
		{"empty", func(b []byte) []byte { return nil }, drop.Truncated},
		{"one byte", func(b []byte) []byte { return b[:1] }, drop.Truncated},
		{"outer header cut", func(b []byte) []byte { return b[:19] }, drop.Truncated},
		{"cut in the middle header", func(b []byte) []byte { return b[:50] }, drop.Truncated},
		{"last byte missing", func(b []byte) []byte { return b[:len(b)-1] }, drop.Truncated},
		{"outer version 5", func(b []byte) []byte { return put(b, 0, 0x55) }, drop.WrongVersion},
		{"outer IHL 4", func(b []byte) []byte { return put(b, 0, 0x44) }, drop.LyingLength},
		{"outer total length below the header", func(b []byte) []byte { return sum(put(b, 2, 0, 19), 0) }, drop.LyingLength},
		{"outer checksum", func(b []byte) []byte { b[10] ^= 1; return b }, drop.BadChecksum},
		{"outer options are skipped", func(b []byte) []byte {
			b = slices.Insert(b, 20, 1, 1, 1, 0)
			b[0] = 0x46
			binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
			return sum(b, 0)
		}, drop.None},
		{"outer options that the kernel wrote into", func(b []byte) []byte {
			b = slices.Insert(b, 20, 7, 7, 4, 0, 0, 0, 0, 0) // record route
			b[0] = 0x47
			binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
			return put(sum(b, 0), 22, 8, 203, 0, 113, 20)
		}, drop.None},
		{"outer options that lead out of the packet", func(b []byte) []byte { return put(b[:24], 0, 0x4f) }, drop.Truncated},
		{"outer TTL 1", func(b []byte) []byte { return sum(put(b, 8, 1), 0) }, drop.None},
		{"outer protocol 253", func(b []byte) []byte { return sum(put(b, 9, 253), 0) }, drop.UnknownProtocol},
		{"outer fragment", func(b []byte) []byte { return sum(put(b, 6, 0x20, 0), 0) }, drop.Fragment},
		{"foreign source", func(b []byte) []byte { return sum(put(b, 12, 192, 0, 2, 9), 0) }, drop.ForeignSource},
		{"foreign destination", func(b []byte) []byte { return sum(put(b, 16, 192, 0, 2, 9), 0) }, drop.ForeignDestination},
		{"IPv4 instead of the middle header", func(b []byte) []byte { return put(b, mid, 0x45) }, drop.WrongVersion},
		{"middle payload length too long", func(b []byte) []byte { return put(b, mid+4, 0, 37) }, drop.Truncated},
		{"middle payload length 0", func(b []byte) []byte { return put(b, mid+4, 0, 0) }, drop.LyingLength},
		{"foreign middle source", func(b []byte) []byte { return put(b, mid+8, addr("fc00::9")...) }, drop.ForeignSource},
		{"hop limit 1", func(b []byte) []byte { return put(b, mid+7, 1) }, drop.None},
		{"inner version 6", func(b []byte) []byte { return put(b, inside4, 0x65) }, drop.WrongVersion},
		{"inner IHL 4", func(b []byte) []byte { return put(b, inside4, 0x44) }, drop.LyingLength},
		{"inner total length 19", func(b []byte) []byte { return sum(put(b, inside4+2, 0, 19), inside4) }, drop.LyingLength},
		{"inner length too long", func(b []byte) []byte { return sum(put(b, inside4+2, 1, 0), inside4) }, drop.Truncated},
		{"inner checksum", func(b []byte) []byte { b[inside4+10] ^= 1; return b }, drop.BadChecksum},
		{"inner TTL 0", func(b []byte) []byte { return sum(put(b, inside4+8, 0), inside4) }, drop.TTLExpired},
		{"inner source 127.0.0.1", func(b []byte) []byte { return sum(put(b, inside4+12, 127, 0, 0, 1), inside4) }, drop.Martian},
		{"inner source 0.0.0.0", func(b []byte) []byte { return sum(put(b, inside4+12, 0, 0, 0, 0), inside4) }, drop.Martian},
		{"inner source of DHCP", func(b []byte) []byte {
			return sum(put(b, inside4+12, 0, 0, 0, 0, 255, 255, 255, 255), inside4)
		}, drop.None},
		{"inner source multicast", func(b []byte) []byte { return sum(put(b, inside4+12, 224, 0, 0, 1), inside4) }, drop.Martian},
		{"inner source broadcast", func(b []byte) []byte { return sum(put(b, inside4+12, 255, 255, 255, 255), inside4) }, drop.Martian},
		{"our own inner source", func(b []byte) []byte { return sum(put(b, inside4+12, 10, 0, 0, 2), inside4) }, drop.OwnSource},
		{"our outer address as inner source", func(b []byte) []byte { return sum(put(b, inside4+12, 203, 0, 113, 20), inside4) }, drop.OwnSource},
		{"a tunnel to our outer address inside", func(b []byte) []byte {
			put(b, inside4+9, header.ProtoIPv6)
			return sum(put(b, inside4+16, 203, 0, 113, 20), inside4)
		}, drop.Nested},
		{"a tunnel to others inside", func(b []byte) []byte { return sum(put(b, inside4+9, header.GRE), inside4) }, drop.None},

		// Extension headers: NH, length, options (RFC 8200 section 4).
		{"encapsulation limit", func(b []byte) []byte { return extend(b, 60, 4, 0, 4, 1, 4, 1, 1, 0) }, drop.None},
		{"encapsulation limit 0", func(b []byte) []byte { return extend(b, 60, 4, 0, 4, 1, 0, 1, 1, 0) }, drop.None},
		{"destination options of padding", func(b []byte) []byte { return extend(b, 60, 4, 0, 1, 4, 0, 0, 0, 0) }, drop.None},
		{"two destination options headers", func(b []byte) []byte {
			return extend(b, 60, 60, 0, 4, 1, 4, 1, 1, 0, 4, 0, 4, 1, 4, 1, 1, 0)
		}, drop.None},
		{"unknown option that may be skipped", func(b []byte) []byte { return extend(b, 60, 4, 0, 0x1e, 4, 0, 0, 0, 0) }, drop.None},
		{"unknown option 0x5e", func(b []byte) []byte { return extend(b, 60, 4, 0, 0x5e, 4, 0, 0, 0, 0) }, drop.BadExtension},
		{"unknown option 0x9e", func(b []byte) []byte { return extend(b, 60, 4, 0, 0x9e, 4, 0, 0, 0, 0) }, drop.BadExtension},
		{"option longer than its header", func(b []byte) []byte { return extend(b, 60, 4, 0, 4, 9, 4, 1, 1, 0) }, drop.BadExtension},
		{"header longer than the packet", func(b []byte) []byte { return extend(b, 60, 4, 200, 4, 1, 4, 1, 1, 0) }, drop.BadExtension},
		{"hop-by-hop", func(b []byte) []byte { return extend(b, 0, 4, 0, 1, 4, 0, 0, 0, 0) }, drop.None},
		{"hop-by-hop not first", func(b []byte) []byte {
			return extend(b, 60, 0, 0, 1, 4, 0, 0, 0, 0, 4, 0, 1, 4, 0, 0, 0, 0)
		}, drop.BadExtension},
		{"nine headers", func(b []byte) []byte {
			ext := bytes.Repeat([]byte{60, 0, 1, 4, 0, 0, 0, 0}, 9)
			ext[64] = 4
			return extend(b, 60, ext...)
		}, drop.BadExtension},
		{"jumbo payload option", func(b []byte) []byte { return extend(b, 0, 4, 0, 0xc2, 4, 0, 1, 0, 0) }, drop.BadExtension},
		{"routing header 0", func(b []byte) []byte {
			return extend(b, 43, append([]byte{4, 2, 0, 1, 0, 0, 0, 0}, addr("fc00::3")...)...)
		}, drop.SourceRouting},
		{"fragment of a tunnel packet", func(b []byte) []byte { return extend(b, 44, 4, 0, 0, 1, 0, 0, 0, 7) }, drop.Fragment},
		{"atomic fragment", func(b []byte) []byte { return extend(b, 44, 4, 0, 0, 0, 0, 0, 0, 7) }, drop.None},
		{"limit from a foreign middle source", func(b []byte) []byte {
			return put(extend(b, 60, 4, 0, 4, 1, 4, 1, 1, 0), mid+8, addr("fc00::9")...)
		}, drop.ForeignSource},
	} {
		t.Run(c.name, func(t *testing.T) {
			inner, r := s.Decapsulate(c.edit(bytes.Clone(vectors.Read(t)["DBL-1"])))
			if r != c.want {
				t.Fatalf("%v, want %v", r, c.want)
			}
			if r == drop.None && header.Version(inner) != 4 {
				t.Errorf("inner packet %x", inner)
			}
		})
	}
}

// through returns the bytes of 6IN4-1's inner packet from its next header on, with an
// extension header of 8 bytes and 16 more after it, which are a routing header of type 0
// or padding options, depending on the next header.
func through(kind byte, extension ...byte) []byte {
	return toward("2001:db8:2::2", kind, append(extension, 41, 0, 0, 1, 0, 0, 0, 0)...)
}

// toUs is through for options, in a packet to our end.
func toUs(kind byte, extension ...byte) []byte {
	return toward("2001:db8:2::1", kind, append(extension, 41, 0, 1, 4, 0, 0, 0, 0)...)
}

func toward(to string, kind byte, payload ...byte) []byte {
	return slices.Concat([]byte{kind, 64}, addr("2001:db8:1::1"), addr(to), payload)
}

// TestDecapsulateIPv6: IPv6 that arrives in 4in6in4 and is no 4in6 packet to us is for
// the interface.
func TestDecapsulateIPv6(t *testing.T) {
	ends := addrs("198.51.100.2", "192.0.2.1", "2001:db8:2::1", "2001:db8:1::9")
	m, _ := encap.ModeByName("4in6in4")
	s, err := encap.New(m.Between(ends), 1500, encap.DefaultOptions, source.New(nil, []netip.Addr{ends.Local, ends.Local6}, false), encap.NewRecord())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		offset int // in the inner packet of 6IN4-1
		put    []byte
		want   drop.Reason
	}{
		{"echo", 0, nil, drop.None},
		{"4in6 between others", 6, []byte{4}, drop.None},
		{"fragment", 6, []byte{44}, drop.None},
		{"source ::1", 8, addr("::1"), drop.Martian},
		{"source ::", 8, addr("::"), drop.Martian},
		{"source ::192.0.2.1", 8, addr("::192.0.2.1"), drop.Martian},
		{"source ::ffff:192.0.2.1", 8, addr("::ffff:192.0.2.1"), drop.Martian},
		{"source multicast", 8, addr("ff02::1"), drop.Martian},
		{"source link-local", 8, addr("fe80::1"), drop.None},
		{"source 6to4 of 127.0.0.1", 8, addr("2002:7f00:1::1"), drop.Martian},
		{"source 6to4 of 192.0.2.1", 8, addr("2002:c000:201::1"), drop.None},
		{"our own source", 8, addr("2001:db8:2::1"), drop.OwnSource},
		{"hop limit 0", 7, []byte{0}, drop.TTLExpired},
		{"version 4", 0, []byte{0x45}, drop.WrongVersion},
		{"source routing behind an atomic fragment's header", 6, through(44, 43, 0, 0, 0, 0, 0, 0, 7), drop.SourceRouting},
		{"source routing behind AH", 6, through(51, 43, 0, 0, 0, 0, 0, 0, 0), drop.SourceRouting},
		{"hop-by-hop behind an atomic fragment's header", 6, through(44, 0, 0, 0, 0, 0, 0, 0, 7), drop.BadExtension},
		{"6in6 to our end behind options", 6, toUs(60, 41, 0, 1, 4, 0, 0, 0, 0), drop.Nested},
		{"6in6 to our end", 6, append([]byte{41, 64}, append(addr("2001:db8:1::1"), addr("2001:db8:2::1")...)...), drop.Nested},
		{"4in6 to our end from others", 6, append([]byte{4, 64}, append(addr("2001:db8:1::1"), addr("2001:db8:2::1")...)...), drop.ForeignSource},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := put(bytes.Clone(vectors.Read(t)["6IN4-1"]), 20+c.offset, c.put...)
			inner, r := s.Decapsulate(b)
			if r != c.want || r == drop.None && header.Version(inner) != 6 {
				t.Errorf("%v %x, want %v", r, inner, c.want)
			}
		})
	}
}

func TestStrictMartians(t *testing.T) {
	for _, c := range []struct {
		addr        string
		rfc, strict bool
	}{
		{"10.1.2.3", true, true}, {"100.64.0.1", true, true}, {"192.168.0.1", true, true}, {"172.31.0.1", true, true},
		{"172.32.0.1", false, false}, {"240.0.0.1", true, true}, {"8.8.8.8", false, false},
		{"192.0.2.1", false, true}, {"198.19.0.1", false, true}, {"203.0.113.1", false, true},
	} {
		a := binary.BigEndian.Uint32(addr(c.addr))
		if rfc, strict := resolve.Martian4(a, false), resolve.Martian4(a, true); rfc != c.rfc || strict != c.strict {
			t.Errorf("%s: rfc %v, strict %v", c.addr, rfc, strict)
		}
	}
}

func TestEncapsulateRefuses(t *testing.T) {
	v := vectors.Read(t)
	in4, in6 := v["DBL-1"][60:], v["6IN4-1"][20:]
	toPeer := sum(put(bytes.Clone(in4), 16, 203, 0, 113, 2), 0)
	between := sum(put(bytes.Clone(toPeer), 12, 203, 0, 113, 1), 0)
	ours := sum(put(bytes.Clone(between), 9, header.ProtoIPv6), 0)
	fromOther := sum(put(bytes.Clone(ours), 12, 203, 0, 113, 3), 0)
	between6 := put(put(bytes.Clone(in6), 8, router.Local6.AsSlice()...), 24, router.Remote6.AsSlice()...)
	ours6 := put(bytes.Clone(between6), 6, header.ProtoIPv6)
	options := func(next byte) []byte { return []byte{next, 0, 4, 1, 4, 1, 1, 0} }
	extended := func(first byte, exts ...[]byte) []byte { // with extension headers in place of its payload
		pkt := put(bytes.Clone(between6), 6, first)
		pkt = append(append(pkt[:header.IPv6Len], bytes.Join(exts, nil)...), make([]byte, 8)...)
		binary.BigEndian.PutUint16(pkt[4:], uint16(len(pkt)-header.IPv6Len))
		return pkt
	}
	fragment := func(next byte, offset uint16) []byte {
		return []byte{next, 0, byte(offset >> 8), byte(offset), 0, 0, 0, 1}
	}
	const more, second = 1, 1280
	for _, c := range []struct {
		name, mode string
		inner      []byte
		want       drop.Reason
	}{
		{"IPv4 in 4in6in4", "4in6in4", in4, drop.None},
		{"IPv6 in 4in6in4", "4in6in4", in6, drop.None},
		{"IPv4 in 6in4", "6in4", in4, drop.WrongFamily},
		{"to the outer remote", "4in6in4", toPeer, drop.None},
		{"between the outer ends", "4in6in4", between, drop.None},
		{"the same by its protocol, from another", "4in6in4", fromOther, drop.None},
		{"its own", "4in6in4", ours, drop.Loop},
		{"another protocol's", "4in4", ours, drop.None},
		{"between the outer ends", "6in6", between6, drop.None},
		{"its own", "6in6", ours6, drop.Loop},
		{"its own, with a limit", "6in6", extended(header.DestOptions, options(header.ProtoIPv6)), drop.Loop},
		{"its own, a fragment", "6in6", extended(header.FragmentHdr, fragment(header.ProtoIPv6, more)), drop.Loop},
		{"its own, a later fragment", "6in6", extended(header.FragmentHdr, fragment(header.ProtoIPv6, second)), drop.Loop},
		{"its own, a fragment with a limit", "6in6", extended(header.FragmentHdr, fragment(header.DestOptions, more), options(header.ProtoIPv6)), drop.Loop},
		{"its own, a later fragment with a limit", "6in6", extended(header.FragmentHdr, fragment(header.DestOptions, second)), drop.Loop},
		{"its own, with a limit twice", "6in6", extended(header.DestOptions, options(header.DestOptions), options(header.ProtoIPv6)), drop.Loop},
		{"UDP with options", "6in6", extended(header.DestOptions, options(header.UDP)), drop.None},
		{"UDP, a fragment", "6in6", extended(header.FragmentHdr, fragment(header.UDP, more)), drop.None},
		{"UDP, a later fragment", "6in6", extended(header.FragmentHdr, fragment(header.UDP, second)), drop.None},
		{"UDP with options, a fragment", "6in6", extended(header.FragmentHdr, fragment(header.DestOptions, more), options(header.UDP)), drop.None},
		{"another layer's, a fragment", "6in6", extended(header.FragmentHdr, fragment(header.ProtoIPv4, more)), drop.None},
		{"its own, between", "4in6in4", ours6, drop.None},
		{"empty", "4in6in4", nil, drop.WrongVersion},
		{"version 0", "4in6in4", []byte{1, 2, 3}, drop.WrongVersion},
		{"truncated", "4in6in4", in4[:30], drop.Truncated},
		{"IPv6 header only", "6in4", in6[:40], drop.Truncated},
	} {
		if _, r := encapsulate(newStack(t, c.mode, router, encap.DefaultOptions), c.inner); r != c.want {
			t.Errorf("%s: %v, want %v", c.name, r, c.want)
		}
	}
	large := make([]byte, 65535)
	copy(large, in4[:20])
	binary.BigEndian.PutUint16(large[2:], 65535)
	sum(large, 0)
	if _, r := encapsulate(newStack(t, "4in6in4", router, encap.DefaultOptions), large); r != drop.TooBig {
		t.Errorf("65535 bytes: %v, want %v", r, drop.TooBig)
	}
}
