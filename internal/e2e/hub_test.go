package e2e

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"sixfour/encap/header"
	"sixfour/internal/api"
	"sixfour/internal/rig"
)

// star is a hub with spokes, which reach each other through the hub's kernel:
//
//	b 203.0.113.20 ──┐
//	c 203.0.113.30 ──┼── hub 203.0.113.10
//	d 203.0.113.40 ──┘
//
// On the tunnels they are 10.0.0.1 (the hub) to .4; behind b is 192.168.0.0/16, and
// behind c 192.168.3.0/24 of it.
type star struct {
	hub    *rig.Namespace
	spokes []*rig.Namespace
}

func newStar(t *testing.T) star {
	t.Helper()
	s := star{hub: newNamespace(t, "hub")}
	must(t, s.hub.AddAddr("lo", netip.PrefixFrom(outerA, 32)))
	for i, name := range []string{"b", "c", "d"} {
		n, dev := newNamespace(t, name), "to-"+name
		must(t, rig.Veth(s.hub, dev, n, "v", 1500))
		outer := netip.AddrFrom4([4]byte{203, 0, 113, byte(20 + 10*i)})
		must(t, n.AddAddr("v", netip.PrefixFrom(outer, 32)))
		must(t, n.AddRoute(netip.PrefixFrom(outerA, 32), netip.Addr{}, "v"))
		must(t, s.hub.AddRoute(netip.PrefixFrom(outer, 32), netip.Addr{}, dev))
		s.spokes = append(s.spokes, n)
	}
	must(t, s.hub.Forward())
	for _, of := range []string{"all", "default"} { // spokes cannot go past the hub
		must(t, s.hub.Sysctl("net/ipv4/conf/"+of+"/send_redirects", "0"))
	}
	must(t, s.spokes[0].AddAddr("lo", netip.MustParsePrefix("192.168.77.1/32")))
	must(t, s.spokes[1].AddAddr("lo", netip.MustParsePrefix("192.168.3.1/32")))
	return s
}

// starKind is a mode of a star: the lines of the hub, of each of its peers, and of a
// spoke, of which %[1]d is the number, 2 to 4.
type starKind struct {
	name, hub, peer, spoke string
	wrap                   func(self int, inner []byte) []byte // a packet as a spoke's daemon would send it
}

var starKinds = []starKind{
	{"gre", "mode = \"gre\"\n", "", "mode = \"gre\"\n", func(self int, inner []byte) []byte {
		return ip4(spokeOuter(self), outerA, header.GRE, greOf(inner))
	}},
	{"gre through AF_XDP", "mode = \"gre\"\nio = \"xdp\"\n", "", "mode = \"gre\"\n", func(self int, inner []byte) []byte {
		return ip4(spokeOuter(self), outerA, header.GRE, greOf(inner))
	}},
	{"4in4", "mode = \"4in4\"\n", "", "mode = \"4in4\"\n", func(self int, inner []byte) []byte {
		return ip4(spokeOuter(self), outerA, header.ProtoIPv4, inner)
	}},
	{"4in6in4", "mode = \"4in6in4\"\nlocal6 = \"fd00::1\"\n", "remote6 = \"fd00::%[1]d\"\n",
		"mode = \"4in6in4\"\nlocal6 = \"fd00::%[1]d\"\nremote6 = \"fd00::1\"\n", func(self int, inner []byte) []byte {
			six := ip6(netip.MustParseAddr(fmt.Sprintf("fd00::%d", self)), netip.MustParseAddr("fd00::1"), header.ProtoIPv4, inner)
			return ip4(spokeOuter(self), outerA, header.ProtoIPv6, six)
		}},
}

// spokeOuter and spokeInner are a spoke's addresses.
func spokeOuter(self int) netip.Addr { return netip.AddrFrom4([4]byte{203, 0, 113, byte(10 * self)}) }
func spokeInner(self int) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, 0, byte(self)}) }

func (k starKind) start(t *testing.T, s star) (hub *daemon) {
	t.Helper()
	behind := map[int]string{2: `, "192.168.0.0/16"`, 3: `, "192.168.3.0/24"`}
	text := "[[tunnel]]\nname = \"six0\"\n" + k.hub + "local = \"203.0.113.10\"\naddress = [\"10.0.0.1/24\"]\nroutes = [\"192.168.0.0/16\"]\n"
	for i, n := range s.spokes {
		self := i + 2
		text += fmt.Sprintf("[[tunnel.peer]]\nname = %q\nremote = \"%v\"\nallowed = [\"%v/32\"%s]\n", n.Name(), spokeOuter(self), spokeInner(self), behind[self])
		text += fill(k.peer, self)
		start(t, n, "[[tunnel]]\nname = \"six0\"\n"+fill(k.spoke, self)+
			fmt.Sprintf("local = \"%v\"\nremote = \"203.0.113.10\"\naddress = [\"%v/24\"]\nroutes = [\"192.168.0.0/16\"]\n", spokeOuter(self), spokeInner(self)))
	}
	hub = start(t, s.hub, text)
	for i := range s.spokes {
		reachable(t, s.hub, spokeInner(i+2))
	}
	return hub
}

func fill(text string, self int) string {
	if !strings.Contains(text, "%") {
		return text
	}
	return fmt.Sprintf(text, self)
}

// peer is the status of one of a hub's peers.
func (d *daemon) peer(t *testing.T, name string) api.PeerStatus {
	t.Helper()
	_, s := d.status(t)
	for _, p := range s.Peers {
		if p.Peer == name {
			return p
		}
	}
	t.Fatalf("the status has no peer %s: %+v", name, s)
	return api.PeerStatus{}
}

func TestHub(t *testing.T) {
	for _, k := range starKinds {
		t.Run(k.name, func(t *testing.T) {
			t.Parallel()
			s := newStar(t)
			hub := k.start(t, s)
			b, c, d := s.spokes[0], s.spokes[1], s.spokes[2]
			for _, o := range []rig.PingOptions{{}, {Size: 1200, DF: true}, {Size: 4000}} {
				pings(t, b, spokeInner(3), o)
				pings(t, c, spokeInner(4), o)
				pings(t, s.hub, spokeInner(2), o)
			}
			transfer(t, b, c, spokeInner(3), 4<<20)
			transfer(t, d, b, spokeInner(2), 4<<20)

			// The longest prefix decides: of 192.168/16, behind b, c has a part.
			before := hub.peer(t, "b").Out.Packets
			pings(t, d, netip.MustParseAddr("192.168.3.1"), rig.PingOptions{Count: 5})
			if got := hub.peer(t, "b").Out.Packets; got >= before+5 {
				t.Errorf("%d packets to b that are for c", got-before)
			}
			before = hub.peer(t, "c").Out.Packets
			pings(t, d, netip.MustParseAddr("192.168.77.1"), rig.PingOptions{Count: 5})
			if got := hub.peer(t, "c").Out.Packets; got >= before+5 {
				t.Errorf("%d packets to c that are for b", got-before)
			}

			k.spoofs(t, s, hub)

			// The prefix of no peer: its sender, the hub or a spoke, gets an error.
			for _, from := range []*rig.Namespace{s.hub, b} {
				_, was := hub.status(t)
				waitUnreachable(t, from, netip.MustParseAddr("10.0.0.99"))
				if _, now := hub.status(t); now.Out.Drops["no_peer"] <= was.Out.Drops["no_peer"] {
					t.Errorf("drops %v, before %v", now.Out.Drops, was.Out.Drops)
				}
			}
		})
	}
}

// waitUnreachable pings until the sender gets an error that there is no such host.
func waitUnreachable(t *testing.T, from *rig.Namespace, to netip.Addr) {
	t.Helper()
	eventually(t, from.Name()+" is told that nobody is there", func() error {
		res, err := rig.Ping(t.Context(), from, to, rig.PingOptions{Timeout: 200 * time.Millisecond})
		must(t, err)
		for _, e := range res.ICMP {
			if to.Is4() && e.Type == 3 && e.Code == 1 || to.Is6() && e.Type == 1 && e.Code == 3 {
				return nil
			}
		}
		return fmt.Errorf("%+v", res)
	})
}

// spoofs sends packets with sources that are not allowed for b: they are counted as drops
// of b, and have no effect on other peers.
func (k starKind) spoofs(t *testing.T, s star, hub *daemon) {
	t.Helper()
	out, err := s.hub.Capture("six0")
	must(t, err)
	defer out.Close()
	forged := []string{"10.0.0.3", "10.0.0.99", "192.168.3.1", "198.51.100.7"}
	for _, src := range forged {
		send(t, s.spokes[0], k.wrap(2, experimental(netip.MustParseAddr(src), netip.MustParseAddr("10.0.0.1"))))
	}
	send(t, s.spokes[0], k.wrap(2, experimental(netip.MustParseAddr("192.168.99.99"), netip.MustParseAddr("10.0.0.1")))) // b may
	if _, err := out.Find(t.Context(), func(f rig.Frame) bool {
		p := f.Packet()
		if p[9] != 253 {
			return false
		}
		if src := header.IPv4(p).Src().String(); src != "192.168.99.99" {
			t.Errorf("%s came out", src)
		}
		return true
	}); err != nil {
		t.Error(err)
	}
	if got := hub.peer(t, "b").In.Drops; len(got) != 1 || got["spoof"] != uint64(len(forged)) {
		t.Errorf("drops of b: %v, want %d spoof", got, len(forged))
	}
	for _, name := range []string{"c", "d"} {
		if p := hub.peer(t, name); len(p.In.Drops)+len(p.Out.Drops) > 0 || p.In.Packets == 0 || p.Out.Packets == 0 || p.State.Phase != api.Up {
			t.Errorf("%+v", p)
		}
	}
	pings(t, s.spokes[1], spokeInner(4), rig.PingOptions{})
}

// Ten thousand peers in one file; only the last one exists.
func TestTenThousandPeers(t *testing.T) {
	t.Parallel()
	const n, mostKiB = 10000, 300 << 10
	h := newHosts(t, 1500)
	must(t, h.b.Sysctl("net/ipv6/conf/default/disable_ipv6", "1")) // whose sources a would refuse
	must(t, h.a.AddRoute(netip.MustParsePrefix("198.18.0.0/15"), outerB, ""))
	inner := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)}) }
	outer := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)}) }
	var text strings.Builder
	text.WriteString("[[tunnel]]\nname = \"six0\"\nmode = \"gre\"\nlocal = \"203.0.113.10\"\naddress = [\"10.0.0.1/30\"]\nroutes = [\"10.1.0.0/16\"]\n")
	for i := range n - 1 {
		fmt.Fprintf(&text, "[[tunnel.peer]]\nname = \"p%d\"\nremote = \"%v\"\nallowed = [\"%v/32\"]\n", i, outer(i), inner(i))
	}
	fmt.Fprintf(&text, "[[tunnel.peer]]\nname = \"last\"\nremote = \"203.0.113.20\"\nallowed = [\"10.0.0.2/32\"]\n")
	start(t, h.b, tunnelOf("mode = \"gre\"\n"+over4+inner4, 2))
	a := launch(t, h.a, text.String())
	for deadline := time.Now().Add(2 * time.Minute); !strings.Contains(a.log.String(), "ready"); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the daemon is not ready")
		}
	}
	reachable(t, h.a, inB)
	pings(t, h.a, inB, rig.PingOptions{Size: 4000, Count: 10})
	transfer(t, h.b, h.a, inA, 20<<20)

	// One peer sends packets that it must not send, and another one receives nothing.
	const forged = 1000
	for range forged {
		send(t, h.b, ip4(outer(5), outerA, header.GRE, greOf(experimental(inB, inA))))
	}
	pings(t, h.a, inB, rig.PingOptions{Count: 100})
	eventually(t, "the forged packets are counted", func() error {
		if p := a.peer(t, "p5"); p.In.Drops["spoof"] != forged {
			return fmt.Errorf("%+v", p)
		}
		return nil
	})
	if p := a.peer(t, "last"); len(p.In.Drops)+len(p.Out.Drops) > 0 {
		t.Errorf("drops: %+v", p)
	}
	if _, s := a.status(t); len(s.Peers) != n {
		t.Errorf("status shows %d peers", len(s.Peers))
	}
	if kib := resident(t, a.cmd.Process.Pid); kib > mostKiB && !rig.Race {
		t.Errorf("%d KiB resident, more than %d", kib, mostKiB)
	} else {
		t.Logf("%d KiB resident", kib)
	}
}
