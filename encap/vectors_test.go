package encap_test

import (
	"bytes"
	"net/netip"
	"testing"

	"sixfour/encap"
	"sixfour/encap/drop"
	"sixfour/encap/header"
	"sixfour/internal/vectors"
)

// vectorOptions returns the vectors' options: DSCP and ECN are copied, there is no flow
// label.
func vectorOptions(limit int) encap.Options {
	o := encap.DefaultOptions
	o.EncapLimit = limit
	o.FlowLabel = encap.FlowLabel{Source: encap.FlowLabelFixed}
	return o
}

func addrs(local, remote, local6, remote6 string) encap.Endpoints {
	parse := func(s string) netip.Addr {
		if s == "" {
			return netip.Addr{}
		}
		return netip.MustParseAddr(s)
	}
	return encap.Endpoints{Local: parse(local), Remote: parse(remote), Local6: parse(local6), Remote6: parse(remote6)}
}

func swap(e encap.Endpoints) encap.Endpoints {
	return encap.Endpoints{Local: e.Remote, Remote: e.Local, Local6: e.Remote6, Remote6: e.Local6}
}

func TestVectors(t *testing.T) {
	vectors := vectors.Read(t)
	for _, c := range []struct {
		name, mode string
		from       encap.Endpoints
		headers    int // bytes in front of the inner packet
		limit      int
	}{
		{"6IN4-1", "6in4", addrs("192.0.2.1", "198.51.100.2", "", ""), 20, encap.NoEncapLimit},
		{"4IN6-1", "4in6", addrs("", "", "2001:db8:a::1", "2001:db8:b::1"), 40, encap.NoEncapLimit},
		{"4IN6-2", "4in6", addrs("", "", "2001:db8:a::1", "2001:db8:b::1"), 48, 4},
		{"DBL-1", "4in6in4", addrs("203.0.113.10", "203.0.113.20", "fc00::1", "fc00::2"), 60, encap.NoEncapLimit},
		{"DBL-2", "4in6in4", addrs("203.0.113.10", "203.0.113.20", "fc00::1", "fc00::2"), 68, 4},
	} {
		t.Run(c.name, func(t *testing.T) {
			outer, ok := vectors[c.name]
			if !ok {
				t.Fatal("no such vector")
			}
			inner := outer[c.headers:]
			got, r := encapsulate(newStack(t, c.mode, c.from, vectorOptions(c.limit)), inner)
			if r != drop.None || !bytes.Equal(got, outer) {
				t.Errorf("encapsulate (%v)\n got %x\nwant %x", r, got, outer)
			}
			// Padding after the packet is cut off (mechanisms 1.1).
			padded := append(bytes.Clone(outer), 0, 0, 0, 0, 0, 0)
			got, r = newStack(t, c.mode, swap(c.from), vectorOptions(c.limit)).Decapsulate(padded)
			if r != drop.None || !bytes.Equal(got, inner) {
				t.Errorf("decapsulate (%v)\n got %x\nwant %x", r, got, inner)
			}
		})
	}
}

// 6IN4-3: outer CE over inner ECT(0) leaves as CE.
func TestVectorCongestion(t *testing.T) {
	v := vectors.Read(t)
	s := newStack(t, "6in4", addrs("192.0.2.1", "198.51.100.2", "", ""), encap.DefaultOptions)
	got, r := s.Decapsulate(v["6IN4-3a"])
	if r != drop.None || !bytes.Equal(got, v["6IN4-3b"]) {
		t.Errorf("(%v)\n got %x\nwant %x", r, got, v["6IN4-3b"])
	}
}

// TestDecapsulateECN checks each cell of RFC 6040 figure 4, at each layer of the stack.
func TestDecapsulateECN(t *testing.T) {
	const dropped = 0xff
	want := [4][4]byte{ // [inner][outer], in the order of the bits: Not-ECT, ECT(1), ECT(0), CE
		{0, 0, 0, dropped},
		{1, 1, 1, 3},
		{2, 1, 2, 3},
		{3, 3, 3, 3},
	}
	outer := vectors.Read(t)["DBL-1"]
	s := newStack(t, "4in6in4", swap(addrs("203.0.113.10", "203.0.113.20", "fc00::1", "fc00::2")), encap.DefaultOptions)
	for inner := range byte(4) {
		for mid := range byte(4) {
			for out := range byte(4) {
				b := bytes.Clone(outer)
				header.IPv4(b).SetECN(out)
				header.IPv6(b[20:]).SetECN(mid)
				header.IPv4(b[60:]).SetECN(inner)
				expect := want[mid][out]
				if expect != dropped {
					expect = want[inner][expect]
				}
				got, r := s.Decapsulate(b)
				switch {
				case expect == dropped && r != drop.Congestion:
					t.Errorf("inner %d, middle %d, outer %d: %v, want it dropped", inner, mid, out, r)
				case expect != dropped && (r != drop.None || header.IPv4(got).TOS() != expect):
					t.Errorf("inner %d, middle %d, outer %d: %v %x, want %d", inner, mid, out, r, got, expect)
				case expect != dropped && header.Sum(got[:20], 0) != 0xffff:
					t.Errorf("inner %d, middle %d, outer %d: wrong checksum", inner, mid, out)
				}
			}
		}
	}
}
