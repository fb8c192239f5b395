package kernel_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"sixfour/encap"
	"sixfour/encap/header"
	"sixfour/internal/rig/rigtest"
	"sixfour/transport/kernel"
)

// model is what a Tunnel must make the programs do.
type model struct {
	own     []netip.Addr
	subnets []netip.Prefix
	behind  map[kernel.Peer][]netip.Prefix
	carried map[kernel.Peer]bool
}

// of returns the peer of an address; Nobody: it is none's.
func (m *model) of(a netip.Addr) kernel.Peer {
	if slices.Contains(m.own, a) {
		return kernel.Nobody
	}
	who, bits := kernel.Nobody, -1
	for _, s := range m.subnets {
		if s.Contains(a) && s.Bits() > bits {
			bits = s.Bits()
		}
	}
	for peer, list := range m.behind {
		for _, p := range list {
			if p.Contains(a) && p.Bits() >= bits {
				who, bits = peer, p.Bits()
			}
		}
	}
	return who
}

// TestTunnel: after any changes, the program carries packets of each peer from the addresses
// behind it and from no others.
func TestTunnel(t *testing.T) {
	t.Parallel()
	p, err := kernel.Load()
	rigtest.Must(t, err)
	defer p.Close()
	const peers, steps = 3, 400
	r := rand.New(rand.NewPCG(19, 1))
	mode, _ := encap.ModeByName("4in4")
	layers := func(peer kernel.Peer) []encap.Layer {
		e := ours
		e.Remote = netip.AddrFrom4([4]byte{203, 0, 113, byte(100 + peer)})
		return mode.Between(e)
	}
	pool := prefixes("0.0.0.0/0", "10.0.0.0/8", "10.1.0.0/16", "10.1.2.0/24", "10.1.2.128/25", "10.1.2.3/32", "172.16.0.0/12")
	var addrs []netip.Addr
	for _, s := range []string{"8.8.8.8", "10.9.9.9", "10.1.9.9", "10.1.2.9", "10.1.2.200", "10.1.2.3", "172.16.1.1"} {
		addrs = append(addrs, netip.MustParseAddr(s))
	}
	some := func() (list []netip.Prefix) {
		for _, p := range pool {
			if r.IntN(3) == 0 {
				list = append(list, p)
			}
		}
		return list
	}
	frames := make(map[kernel.Peer][][]byte)
	headers := make(map[kernel.Peer]*encap.Headers)
	for peer := range kernel.Peer(peers) {
		h, err := stackOf(t, layers(peer), 1500, encap.DefaultOptions).Headers(4)
		rigtest.Must(t, err)
		headers[peer] = &h
		back := stackOf(t, flip(layers(peer)), 1500, encap.DefaultOptions)
		for _, a := range addrs {
			inner := plainPacket()
			copy(inner[12:], a.AsSlice())
			header.IPv4(inner).SetChecksum()
			pkt, _ := wrap(back, inner)
			frames[peer] = append(frames[peer], frame(pkt, 4))
		}
	}
	tunnel := p.NewTunnel(theTunnel)
	m := &model{behind: make(map[kernel.Peer][]netip.Prefix), carried: make(map[kernel.Peer]bool)}
	out := make([]byte, 2048)
	carried := make(map[kernel.Peer]uint64) // since Carry
	for step := range steps {
		peer := kernel.Peer(r.IntN(peers))
		var did string
		switch r.IntN(4) {
		case 0:
			m.own, m.subnets = nil, nil
			for _, a := range addrs {
				if r.IntN(6) == 0 {
					m.own = append(m.own, a)
				}
			}
			for _, s := range some() {
				if s.Bits() > 0 && r.IntN(2) == 0 {
					m.subnets = append(m.subnets, s)
				}
			}
			did = fmt.Sprint("host ", m.own, m.subnets)
			rigtest.Must(t, tunnel.SetHost(m.own, m.subnets))
		case 1: // a prefix is behind one peer; the new one may get it before the old one loses it
			list := some()
			others := func() {
				for other, has := range m.behind {
					if other != peer {
						m.behind[other] = slices.DeleteFunc(slices.Clone(has), func(p netip.Prefix) bool { return slices.Contains(list, p) })
						rigtest.Must(t, tunnel.SetBehind(other, m.behind[other]))
					}
				}
			}
			if r.IntN(2) == 0 {
				others()
			}
			m.behind[peer] = list
			did = fmt.Sprint("behind ", peer, list)
			rigtest.Must(t, tunnel.SetBehind(peer, list))
			others()
		case 2:
			did = fmt.Sprint("carry ", peer)
			rigtest.Must(t, tunnel.Carry(peer, kernel.Way{Layers: layers(peer), Hop: kernel.Hop{Device: 1}, Headers4: headers[peer]}))
			m.carried[peer] = true
		case 3:
			did = fmt.Sprint("leave ", peer)
			c, err := tunnel.Leave(peer)
			rigtest.Must(t, err)
			if c.Received.Packets != carried[peer] {
				t.Errorf("%d packets of peer %d were counted, want %d", c.Received.Packets, peer, carried[peer])
			}
			m.carried[peer], carried[peer] = false, 0
		}
		for peer, list := range frames {
			for i, f := range list {
				got, _, err := p.RunReceive(f, out)
				rigtest.Must(t, err)
				if want := m.carried[peer] && m.of(addrs[i]) == peer; got != want {
					t.Fatalf("step %d, %s: a packet of peer %d from %v is carried: %v, want %v", step, did, peer, addrs[i], got, want)
				}
				if got {
					carried[peer]++
				}
			}
		}
	}
	rigtest.Must(t, tunnel.Close())
	n, err := p.Entries()
	rigtest.Must(t, err)
	if n != 0 {
		t.Errorf("%d entries are left", n)
	}
}
