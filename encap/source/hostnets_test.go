package source

import (
	"net/netip"
	"sync/atomic"
	"testing"

	"sixfour/encap/drop"
)

// hostAddress returns an address of an interface, in the form of "ip addr".
func hostAddress(link int, prefix string) HostAddress {
	p := netip.MustParsePrefix(prefix)
	return HostAddress{p.Addr(), p, link}
}

const (
	lan = iota + 1
	wan
	six0
	six1
)

// TestHostNets: a router's addresses, and the subnets of its other interfaces, are not
// behind a peer that may send from all addresses, unless the configuration puts the
// subnet or a part of it there.
func TestHostNets(t *testing.T) {
	nets := NewHostNets([]HostAddress{
		hostAddress(lan, "192.168.1.1/24"), hostAddress(lan, "2001:db8:1::1/64"), hostAddress(lan, "fe80::1/64"),
		hostAddress(lan, "10.0.0.9/16"), hostAddress(wan, "203.0.113.10/24"), hostAddress(wan, "2001:db8:f::10/64"),
		{netip.MustParseAddr("10.255.0.1"), netip.Prefix{}, wan}, {netip.MustParseAddr("192.168.77.1"), netip.Prefix{}, lan}, // down
		hostAddress(wan, "127.0.0.2/8"), hostAddress(six0, "10.0.0.1/30"), hostAddress(six0, "fc00::1/64"), hostAddress(six1, "fc00:1::1/64"),
		hostAddress(lan, "2001:db8:5::1/64"), hostAddress(six0, "2001:db8:5::2/64"), // one subnet on both
	})
	routes := prefixes("192.168.0.0/16", "192.168.1.128/25", "0.0.0.0/0", "::/0", "2001:db8:1::/64")
	peer := prefixes("203.0.113.20/32", "0.0.0.0/0")
	var bare, at atomic.Pointer[Interface]
	bare.Store(NewInterface(nets, six0, nil))
	at.Store(NewInterface(nets, six0, routes))
	for _, c := range []struct {
		src                   string
		bare, routed, allowed drop.Reason // with nothing, with routes, with what is behind the peer
	}{
		{"192.168.1.1", drop.OwnSource, drop.OwnSource, drop.OwnSource},
		{"203.0.113.10", drop.OwnSource, drop.OwnSource, drop.OwnSource},
		{"10.255.0.1", drop.OwnSource, drop.OwnSource, drop.OwnSource},
		{"192.168.77.1", drop.OwnSource, drop.OwnSource, drop.OwnSource},
		{"2001:db8:1::1", drop.OwnSource, drop.OwnSource, drop.OwnSource},
		{"fc00::1", drop.OwnSource, drop.OwnSource, drop.OwnSource},
		{"fc00:1::1", drop.OwnSource, drop.OwnSource, drop.OwnSource},
		{"192.168.1.7", drop.Spoof, drop.Spoof, drop.Spoof}, // the LAN's /24 is longer than the /16
		{"192.168.1.200", drop.Spoof, drop.None, drop.Spoof},
		{"192.168.77.7", drop.None, drop.None, drop.None}, // its interface is down
		{"192.168.2.7", drop.None, drop.None, drop.None},
		{"203.0.113.7", drop.Spoof, drop.Spoof, drop.Spoof},
		{"203.0.113.20", drop.Spoof, drop.Spoof, drop.None},
		{"10.0.0.2", drop.None, drop.None, drop.None}, // ours, inside a larger subnet of another interface
		{"10.0.1.2", drop.Spoof, drop.Spoof, drop.Spoof},
		{"198.51.100.1", drop.None, drop.None, drop.None},
		{"2001:db8:1::7", drop.Spoof, drop.None, drop.Spoof},
		{"2001:db8:f::7", drop.Spoof, drop.Spoof, drop.Spoof},
		{"fc00::2", drop.None, drop.None, drop.None},
		{"fc00:1::2", drop.Spoof, drop.Spoof, drop.Spoof},
		{"2001:db8:5::7", drop.None, drop.None, drop.None},
		{"fe80::1", drop.None, drop.None, drop.None},
		{"fe80::7", drop.None, drop.None, drop.None},
		{"3fff::1", drop.None, drop.None, drop.None},
	} {
		pkt := inner(c.src, map[bool]string{true: "198.51.100.9", false: "3fff::9"}[netip.MustParseAddr(c.src).Is4()])
		if pkt[0]>>4 == 4 {
			pkt[8] = 64
		} else {
			pkt[6], pkt[7] = 59, 64
		}
		s := New(nil, nil, false)
		if r := s.Check(pkt); r != drop.None {
			t.Errorf("%s, where nothing is known: %v", c.src, r)
		}
		for name, got := range map[string][2]drop.Reason{
			"nothing named":  {s.At(&bare, nil).Check(pkt), c.bare},
			"by its routes":  {s.At(&at, nil).Check(pkt), c.routed},
			"by its allowed": {s.At(&bare, peer).Check(pkt), c.allowed},
		} {
			if got[0] != got[1] {
				t.Errorf("%s, %s: %v, want %v", c.src, name, got[0], got[1])
			}
		}
		with := s.At(&at, peer)
		if n := testing.AllocsPerRun(10, func() { with.Check(pkt) }); n != 0 {
			t.Errorf("%s: %v allocations", c.src, n)
		}
	}
}

func BenchmarkSources(b *testing.B) {
	nets := NewHostNets([]HostAddress{
		hostAddress(lan, "192.168.1.1/24"), hostAddress(lan, "2001:db8:1::1/64"), hostAddress(wan, "203.0.113.10/24"), hostAddress(wan, "2001:db8:f::10/64"),
		hostAddress(six0, "10.0.0.1/30"), hostAddress(six0, "fc00::1/64")})
	var at atomic.Pointer[Interface]
	at.Store(NewInterface(nets, six0, nil))
	for _, c := range [][2]string{{"10.0.0.2", "10.0.0.1"}, {"198.51.100.7", "10.0.0.1"}, {"fc00::2", "fc00::1"}, {"2001:db8:77::1", "fc00::1"}} {
		pkt := inner(c[0], c[1])
		if pkt[0]>>4 == 4 {
			pkt[8] = 64
		} else {
			pkt[6], pkt[7] = 59, 64
		}
		bare := New(nil, nil, false)
		for name, s := range map[string]*Checks{"bare": bare, "host": bare.At(&at, nil)} {
			b.Run(c[0]+"/"+name, func(b *testing.B) {
				for b.Loop() {
					if s.Check(pkt) != drop.None {
						b.Fatal()
					}
				}
			})
		}
	}
}
