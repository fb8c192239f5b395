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

// quotedIn returns the error in a packet.
func quotedIn(t *testing.T, pkt []byte) icmp.Error {
	t.Helper()
	ip, r := header.Parse(pkt, header.Version(pkt))
	if r != drop.None {
		t.Fatal(r)
	}
	e, ok := icmp.Parse(ip)
	if !ok {
		t.Fatalf("no error: %x", pkt)
	}
	return e
}

// TestVectorTooBig: 6IN4-2a is an error about a packet of ours. 6IN4-2b is what the
// inner sender must get.
func TestVectorTooBig(t *testing.T) {
	v := vectors.Read(t)
	s := newStack(t, "6in4", addrs("192.0.2.1", "198.51.100.2", "", ""), encap.DefaultOptions)
	e := quotedIn(t, v["6IN4-2a"])
	q, ok := s.Unquote(e.Quote)
	if !ok || q.Size != 1460 || q.Outside != 0 || e.Meaning() != icmp.TooBig || e.MTU(q.Size) != 1400 {
		t.Fatalf("%+v %v %v %d", q, ok, e.Meaning(), e.MTU(q.Size))
	}
	m, _ := encap.ModeByName("6in4")
	narrow, err := encap.New(m.Between(addrs("192.0.2.1", "198.51.100.2", "", "")), 1400, encap.DefaultOptions, nil, encap.NewRecord())
	if err != nil {
		t.Fatal(err)
	}
	msg := icmp.AppendTooBig(nil, int(narrow.Limit(6)), q.Inner, nil)
	want := header.IPv6(v["6IN4-2b"])
	sum := header.Sum(msg, header.PseudoSum(want.Source(), want.Dest(), len(msg), header.ICMPv6))
	binary.BigEndian.PutUint16(msg[2:], ^sum) // normally done by the socket
	if !bytes.Equal(msg, want.Payload()) {
		t.Errorf("\n got %x\nwant %x", msg, want.Payload())
	}
}

// TestUnquote checks which quotes are accepted.
func TestUnquote(t *testing.T) {
	ends := addrs("203.0.113.10", "203.0.113.20", "fc00::1", "fc00::2")
	inner := vectors.Read(t)["DBL-1"][60:]
	for _, limit := range []int{encap.NoEncapLimit, 4} {
		o := encap.DefaultOptions
		o.EncapLimit = limit
		s := newStack(t, "4in6in4", ends, o)
		pkt, r := encapsulate(s, inner)
		if r != drop.None {
			t.Fatal(r)
		}
		at := len(pkt) - len(inner)
		for n := range len(pkt) + 1 {
			q, ok := s.Unquote(pkt[:n])
			if want := n >= 28; ok != want || ok && q.Size != len(pkt) {
				t.Errorf("%d bytes quoted: %v %+v", n, ok, q)
			}
			if want := n >= at+20; (q.Inner != nil) != want || want && !bytes.Equal(q.Inner, pkt[at:n]) {
				t.Errorf("%d bytes quoted: inner packet %x", n, q.Inner)
			}
		}
		// About the packet of the IPv6 layer, from a router inside the outer tunnel.
		for n := range len(pkt) - 20 + 1 {
			q, ok := s.Unquote(pkt[20 : 20+n])
			if want := n >= 40; ok != want || ok && (q.Size != len(pkt)-20 || q.Outside != 20) {
				t.Errorf("IPv6, %d bytes quoted: %v %+v", n, ok, q)
			}
		}
		for _, c := range []struct {
			name string
			edit func(b []byte)
		}{
			{"source", func(b []byte) { b[15]++ }},
			{"destination", func(b []byte) { b[19]++ }},
			{"protocol", func(b []byte) { b[9] = 4 }},
			{"identification", func(b []byte) { b[5] = 1 }},
			{"DF", func(b []byte) { b[6] = 0 }},
			{"MF", func(b []byte) { b[6] |= 0x20 }},
			{"offset", func(b []byte) { b[7] = 1 }},
			{"options", func(b []byte) { b[0] = 0x46 }},
			{"version", func(b []byte) { b[0] = 0x65 }},
			{"total length", func(b []byte) { b[3]++ }},
			{"total length of nothing", func(b []byte) { b[2], b[3] = 0, 0 }},
			{"payload length", func(b []byte) { b[25]++ }},
			{"middle version", func(b []byte) { b[20] = 0x45 }},
			{"inner version", func(b []byte) { b[at] = 0x60 }},
			{"inner length", func(b []byte) { b[at+3]-- }},
			{"inner header length", func(b []byte) { b[at] = 0x44 }},
		} {
			b := bytes.Clone(pkt)
			c.edit(b)
			if q, ok := s.Unquote(b); ok {
				t.Errorf("a wrong %s is believed: %+v", c.name, q)
			}
		}
		// Between the ends of the layer, but not one of its packets: the first header
		// after a fragment header shows it.
		for next, ours := range map[byte]bool{header.ICMPv6: false, header.ProtoIPv4: true, header.DestOptions: true} {
			b := bytes.Clone(pkt)
			b[26], b[60] = header.FragmentHdr, next
			if q, ok := s.Unquote(b); !ok || (q.Inner == nil) != ours {
				t.Errorf("fragment of %d: %v %+v", next, ok, q)
			}
		}
		// Between other ends, it is IPv6 that another host sent through the tunnel.
		b := bytes.Clone(pkt)
		b[59]++
		if q, ok := s.Unquote(b); !ok || !bytes.Equal(q.Inner, b[20:]) {
			t.Errorf("%v %+v", ok, q)
		}
	}
}

// TestUnquoteIdentification: packets that may be fragmented have an identification, and
// errors must quote one that was used recently.
func TestUnquoteIdentification(t *testing.T) {
	m, _ := encap.ModeByName("4in6in4")
	ends := addrs("203.0.113.10", "203.0.113.20", "fc00::1", "fc00::2")
	record := encap.NewRecord()
	s, err := encap.New(m.Between(ends), 1280, encap.DefaultOptions, source.New(nil, nil, false), record)
	if err != nil {
		t.Fatal(err)
	}
	inner := vectors.Read(t)["DBL-1"][60:]
	first, _ := encapsulate(s, inner)
	if _, ok := s.Unquote(first); !ok {
		t.Error("the last packet")
	}
	next := bytes.Clone(first)
	binary.BigEndian.PutUint16(next[4:], header.IPv4(first).ID()+1)
	if _, ok := s.Unquote(next); ok {
		t.Error("a packet that was not sent yet")
	}
	for range 10000 {
		encapsulate(s, inner)
	}
	if _, ok := s.Unquote(first); ok {
		t.Error("a packet of long ago")
	}
	// A packet with DF was sent when the path MTU was larger, or is a probe.
	first[4], first[5], first[6] = 0, 0, 0x40
	if _, ok := s.Unquote(first); !ok {
		t.Error("a packet with DF")
	}
	// The kernel numbers those that it cuts from a super-packet.
	segment := bytes.Clone(first)
	segment[5] = 44
	if _, ok := s.Unquote(segment); ok {
		t.Error("a segment, but the kernel sends none")
	}
	record.SetSegmented()
	if _, ok := s.Unquote(segment); !ok {
		t.Error("a segment that the kernel cut")
	}
	segment[4] = 4
	if _, ok := s.Unquote(segment); ok {
		t.Error("a segment beyond the largest super-packet")
	}
	o := encap.DefaultOptions
	o.StaticMTU = true
	if _, ok := newStack(t, "4in6in4", ends, o).Unquote(first); ok {
		t.Error("a packet with DF, which is never set")
	}
}
