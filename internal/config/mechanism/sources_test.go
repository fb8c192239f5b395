package mechanism_test

import (
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"sixfour/encap/drop"
	"sixfour/encap/header"
	"sixfour/encap/mape"
	"sixfour/encap/resolve"
	"sixfour/encap/sixa44"
	"sixfour/encap/sixbed4"
	"sixfour/encap/teredo"
)

// embedded returns where a node with an inner address is, as the address itself says: the outer
// address and, of mechanisms in UDP, the port. Ok is false if it does not say it.
var embedded = map[string]func(inner []byte) (at netip.AddrPort, ok bool){
	"6to4": func(b []byte) (netip.AddrPort, bool) {
		a := source6(b)
		return mappingAt(uint32(a.Hi>>16), 0), a.Hi>>48 == 0x2002
	},
	"6rd": func(b []byte) (netip.AddrPort, bool) {
		a := source6(b)
		return mappingAt(uint32(a.Hi), 0), a.Hi>>32 == 0x20010db8
	},
	"v4compat": func(b []byte) (netip.AddrPort, bool) { return mappingAt(uint32(source6(b).Lo), 0), true },
	"isatap":   func(b []byte) (netip.AddrPort, bool) { return mappingAt(uint32(source6(b).Lo), 0), true },
	"teredo": func(b []byte) (netip.AddrPort, bool) {
		a := source6(b)
		return teredo.ClientOf(a).AddrPort(), teredo.Is(a)
	},
	"6a44": func(b []byte) (netip.AddrPort, bool) {
		p, _ := sixa44.Of(source6(b))
		return p.At.AddrPort(), p.Provider == 0x20010db80044
	},
	"6bed4": func(b []byte) (netip.AddrPort, bool) {
		a := source6(b)
		return sixbed4.MappingOf(a).AddrPort(), a.Hi == 0x20010db8_000b000b
	},
}

// closed are the roles that accept no other sources.
var closed = map[string]bool{"teredo server": true, "6a44 relay": true, "6bed4 router": true}

// siteOf6to4 is the 6to4 prefix of the nodes that are tested.
const siteOf6to4 = 0x2002c6336409

func source6(b []byte) header.Word6 { return header.ReadWord6(header.IPv6(b).Source()) }

func mappingAt(a uint32, port uint16) netip.AddrPort {
	return header.Mapping{Addr: a, Port: port}.AddrPort()
}

// No stranger's packet is accepted whose inner source is that of another node: an address in which
// the outer address is must have come from there, or through the node's own server.
func TestSources(t *testing.T) {
	for i := range roles {
		r := &roles[i]
		of := embedded[r.mode]
		if of == nil || r.name == "pmt" { // a relay that changes the source when it accepts a packet
			continue
		}
		t.Run(r.mode+" "+r.name, func(t *testing.T) {
			t.Parallel()
			n := newNode(t, r)
			random := rand.New(rand.NewPCG(uint64(i), 5))
			checked := 0
			for range floodSize {
				n.now = n.now.Add(time.Millisecond)
				n.send()
				pkt := n.hostile(random)
				inner, why := n.stack.Decapsulate(pkt)
				if why != drop.None || header.Version(inner) != 6 || n.takes(pkt, inner) {
					continue
				}
				from := n.stack.Outer(pkt).From
				at, ok := of(inner)
				dst := header.ReadWord6(header.IPv6(inner).Dest())
				if r.mode == "6to4" && !ok && dst.Hi>>16 != siteOf6to4 { // from a relay, but of another site
					t.Fatalf("from %v: %v to %v is accepted", from, header.IPv6(inner).Src(), dst.Addr())
				}
				if from.Addr() == netip.MustParseAddr(other) || !ok && !closed[r.mode+" "+r.name] {
					continue
				}
				if checked++; !ok || at.Addr() != from.Addr() || n.port() != 0 && at.Port() != from.Port() {
					t.Fatalf("from %v: %v is accepted", from, header.IPv6(inner).Src())
				}
			}
			if checked == 0 && !r.deaf && r.asks == "" {
				t.Error("no packet was checked")
			}
		})
	}
}

// takes reports whether the agent takes or refuses an inner packet that was decapsulated.
func (n *node) takes(pkt, inner []byte) bool {
	if n.agent == nil || !n.agent.Wants(inner) {
		return false
	}
	done := n.agent.Receive(n.stack.Outer(pkt), inner, n.now)
	f, ok := n.agent.(resolve.Refuser)
	return done || ok && f.Refused() != drop.None
}

// The same for IPv4 packets of customers at a border relay: their address and port belong to the
// IPv6 address from which they came. Fragments without a port belong to one that has been checked.
func TestSourcesOfCustomers(t *testing.T) {
	t.Parallel()
	rule := mape.Rule{IPv6: netip.MustParsePrefix("2001:db8::/40"), IPv4: netip.MustParsePrefix("192.0.2.0/24"), EABits: 16, Ports: mape.Ports{Offset: mape.DefaultOffset}}
	for i := range roles {
		r := &roles[i]
		if r.mode != "map_e" || r.name != "br" {
			continue
		}
		n := newNode(t, r)
		random := rand.New(rand.NewPCG(uint64(i), 6))
		checked := 0
		for range floodSize {
			pkt := n.hostile(random)
			inner, why := n.stack.Decapsulate(pkt)
			if why != drop.None || !header.IPv4(inner).FirstBytes() || header.IPv4(inner).Protocol() != header.UDP {
				continue
			}
			ip, from := header.IPv4(inner), n.stack.Outer(pkt).From.Addr()
			port, _ := header.Ports(ip.Payload())
			e, err := rule.To(ip.Src(), port)
			if checked++; err != nil || e.IPv6 != from {
				t.Fatalf("from %v: %v port %d is accepted, which belongs to %v (%v)", from, ip.Src(), port, e.IPv6, err)
			}
		}
		if checked == 0 {
			t.Error("no packet was checked")
		}
	}
}
