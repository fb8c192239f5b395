package node

import (
	"net/netip"
	"testing"
	"time"

	"sixfour/encap/agent/agenttest"
	"sixfour/encap/drop"
	"sixfour/encap/header"
	"sixfour/encap/sixbed4"
)

// cs1 is a traffic class that an application may use. It has the flag seen.
const cs1 = 0x20

// marked returns a packet with a traffic class of CS1.
func marked(src, dst header.Word6) header.IPv6 {
	ip := agenttest.UDP(src, dst, "marked")
	ip[0] |= cs1 >> 4
	return ip
}

// Somebody who is neither of two peers says that direct packets arrive: with an address of the
// IPv6 side, or of another router's network, whose second half is that of one of them. Packets
// go through the router as before.
func TestForgedSeen(t *testing.T) {
	evil := header.MappingOf(netip.MustParseAddrPort("192.0.2.201:25790"))
	for name, send := range map[string]func(r *agenttest.Host, src header.Word6, to header.Word6) drop.Reason{
		"native": func(r *agenttest.Host, src, to header.Word6) drop.Reason {
			src.Hi = 0x20010db8_00660066
			return r.Say(marked(src, to))
		},
		"another network": func(r *agenttest.Host, src, to header.Word6) drop.Reason {
			src.Hi = sixbed4.NetworkOf(0xbed, evil.Addr)
			r.Receive(evil, r.At[0], marked(src, to))
			return drop.None
		},
	} {
		w, r := newNet(t)
		a := newPeer(w, "a", agenttest.Symmetric, "203.0.113.7", "10.0.0.7", true)
		b := newPeer(w, "b", agenttest.PortRestricted, "192.0.2.45", "10.0.1.45", true)
		w.Run(time.Second)
		for i := range 40 {
			if why := send(r, addr(b), addr(a)); why != drop.None {
				t.Fatalf("%s: the router refuses: %v", name, why)
			}
			a.Say(agenttest.UDP(addr(a), addr(b), "there"))
			b.Say(agenttest.UDP(addr(b), addr(a), "back"))
			if w.Run(time.Second); len(b.Got) != i+1 {
				t.Fatalf("%s: %d of %d packets; a calls b %s", name, len(b.Got), i+1, state(a, b))
			}
		}
		if state(a, b) == "direct" {
			t.Errorf("%s: a sends directly", name)
		}
	}
}

// An application's traffic class does not tell the other peer that its packets arrive.
func TestApplicationsClass(t *testing.T) {
	for _, direct := range []bool{false, true} {
		w, r := newNet(t)
		a, b := newPeer(w, "a", agenttest.Symmetric, "203.0.113.7", "10.0.0.7", direct), newPeer(w, "b", agenttest.PortRestricted, "192.0.2.45", "10.0.1.45", true)
		w.Run(time.Second)
		for i := range 40 {
			a.Say(marked(addr(a), addr(b)))
			b.Say(agenttest.UDP(addr(b), addr(a), "back"))
			if w.Run(time.Second); len(a.Got) != i+1 {
				t.Fatalf("direct %v: a got %d of %d packets: %v", direct, len(a.Got), i+1, a.Drops)
			}
		}
		for _, ip := range r.Got {
			if ip.TrafficClass()&cs1 != 0 && header.ReadWord6(ip.Source()) == addr(a) {
				t.Fatalf("direct %v: class %#x leaves", direct, ip.TrafficClass())
			}
		}
		if state(b, a) == "direct" {
			t.Errorf("direct %v: b sends directly", direct)
		}
	}
}
