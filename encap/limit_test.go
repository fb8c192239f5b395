package encap_test

import (
	"bytes"
	"encoding/binary"
	"testing"

	"sixfour/encap"
	"sixfour/encap/drop"
	"sixfour/encap/header"
	"sixfour/encap/icmp"
	"sixfour/encap/source"
	"sixfour/internal/vectors"
)

func sixInSix(t *testing.T, local, remote string, o encap.Options) *encap.Stack {
	t.Helper()
	m := encap.Mode{Name: "6in6", Layers: []encap.Kind{encap.SixInSix}}
	s, err := encap.New(m.Between(addrs("", "", local, remote)), 1500, o, source.New(nil, nil, false), encap.NewRecord())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestEncapLimit checks the tunnel encapsulation limit (RFC 2473 section 4.1.1): a
// packet's own limit counts, with or without a configured one.
func TestEncapLimit(t *testing.T) {
	v := vectors.Read(t)
	// 6IN6-1 carries the limit 4; 6IN6-2 is the same packet after another tunnel.
	outer := sixInSix(t, "2001:db8:c::1", "2001:db8:d::1", vectorOptions(encap.NoEncapLimit))
	forwarded := bytes.Clone(v["6IN6-1"])
	forwarded[7]--
	got, r := encapsulate(outer, forwarded)
	if r != drop.None || !bytes.Equal(got, v["6IN6-2"]) {
		t.Errorf("%v\n got %x\nwant %x", r, got, v["6IN6-2"])
	}
	configured := sixInSix(t, "2001:db8:c::1", "2001:db8:d::1", vectorOptions(200))
	if got, r = encapsulate(configured, forwarded); r != drop.None || !bytes.Equal(got, v["6IN6-2"]) {
		t.Errorf("with a limit of our own: %v %x", r, got)
	}
	// Without a limit in the packet, only the configured one is added.
	inner := v["6IN6-1"][48:]
	first := sixInSix(t, "2001:db8:a::1", "2001:db8:b::1", vectorOptions(4))
	if got, r = encapsulate(first, inner); r != drop.None || !bytes.Equal(got, v["6IN6-1"]) {
		t.Errorf("%v %x", r, got)
	}
	// A packet with 0 must not enter, and the sender gets the offset of the limit.
	if _, r = encapsulate(outer, v["6IN6-3a"]); r != drop.EncapLimit {
		t.Errorf("limit 0: %v", r)
	}
	at, found := header.FindEncapLimit(header.IPv6(v["6IN6-3a"]))
	if !found || at != 44 {
		t.Fatal(at, found)
	}
	want := header.IPv6(v["6IN6-3b"])
	msg := icmp.Append(nil, icmp.Parameter6, 0, uint32(at), v["6IN6-3a"], nil)
	binary.BigEndian.PutUint16(msg[2:], ^header.Sum(msg, header.PseudoSum(want.Source(), want.Dest(), len(msg), header.ICMPv6)))
	if !bytes.Equal(msg, want.Payload()) {
		t.Errorf("\n got %x\nwant %x", msg, want.Payload())
	}
	// The error comes back to the first tunnel, whose limit was used up: to the sender,
	// the destination is unreachable.
	exhausted := sixInSix(t, "2001:db8:a::1", "2001:db8:b::1", vectorOptions(0))
	e := quotedIn(t, v["6IN6-3b"])
	q, ok := exhausted.Unquote(e.Quote)
	if !ok || e.Meaning() != icmp.Unreachable || !bytes.Equal(q.Inner, v["6IN6-3a"][48:]) {
		t.Errorf("%v %+v %v", e.Meaning(), q, ok)
	}
	// A packet between the ends of the tunnel would come back (RFC 2473 4.1.2).
	if _, r = encapsulate(first, v["6IN6-1"]); r != drop.Loop {
		t.Errorf("its own packet: %v", r)
	}
}

func TestFindEncapLimit(t *testing.T) {
	pkt := func(next byte, exts ...byte) header.IPv6 {
		b := make([]byte, 40, 40+len(exts))
		b[0], b[6] = 0x60, next
		return append(b, exts...)
	}
	for _, c := range []struct {
		name string
		ip   header.IPv6
		at   int
	}{
		{"directly", pkt(60, 41, 0, 4, 1, 7, 1, 1, 0), 44},
		{"behind padding", pkt(60, 41, 0, 0, 0, 0, 4, 1, 7), 47},
		{"behind PadN", pkt(60, 41, 0, 1, 1, 0, 4, 1, 7), 47},
		{"behind another option", pkt(60, 41, 1, 0x1e, 4, 1, 2, 3, 4, 4, 1, 9, 1, 3, 0, 0, 0), 50},
		{"behind hop-by-hop", pkt(0, 60, 0, 1, 4, 0, 0, 0, 0, 41, 0, 4, 1, 7, 1, 1, 0), 52},
		{"behind routing", pkt(43, 60, 0, 4, 0, 0, 0, 0, 0, 41, 0, 4, 1, 7, 1, 1, 0), 52},
		{"in the second destination options", pkt(60, 60, 0, 1, 4, 0, 0, 0, 0, 41, 0, 4, 1, 7, 1, 1, 0), 52},
		{"of no byte", pkt(60, 41, 0, 4, 0, 1, 2, 0, 0), 0},
		{"in hop-by-hop, where it means nothing", pkt(0, 41, 0, 4, 1, 7, 1, 1, 0), 0},
		{"option beyond the header", pkt(60, 41, 0, 1, 9, 4, 1, 7, 0), 0},
		{"header beyond the packet", pkt(60, 41, 1, 4, 1, 7, 1, 1, 0), 0},
		{"behind another IPv6 header", pkt(41, 60, 0, 4, 1, 7, 1, 1, 0), 0},
		{"no header", pkt(60), 0},
	} {
		at, found := header.FindEncapLimit(c.ip)
		if found != (c.at != 0) || at != c.at {
			t.Errorf("%s: %d %v, want %d", c.name, at, found, c.at)
		}
	}
}

// TestOddECN: combinations of ECN that no correct path produces are counted once each
// (RFC 6040 section 4.2).
func TestOddECN(t *testing.T) {
	m, _ := encap.ModeByName("6in4")
	odd := map[[2]byte]bool{{0, 1}: true, {0, 2}: true, {1, 2}: true, {3, 1}: true}
	for in := range byte(4) {
		for out := range byte(4) {
			rec := encap.NewRecord()
			s, err := encap.New(m.Between(addrs("192.0.2.1", "198.51.100.2", "", "")), 1500, encap.DefaultOptions, source.New(nil, nil, false), rec)
			if err != nil {
				t.Fatal(err)
			}
			b := bytes.Clone(vectors.Read(t)["6IN4-3a"])
			header.IPv4(b).SetECN(out)
			header.IPv6(b[20:]).SetECN(in)
			s.Decapsulate(b)
			want := uint64(0)
			if odd[[2]byte{in, out}] {
				want = 1
			}
			if rec.OddECN() != want {
				t.Errorf("inner %d, outer %d: %d counted, want %d", in, out, rec.OddECN(), want)
			}
		}
	}
}
