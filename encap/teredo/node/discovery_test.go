package node

import (
	"testing"
	"time"

	"sixfour/encap/agent/agenttest"
	"sixfour/encap/drop"
	"sixfour/encap/header"
	"sixfour/encap/resolve"
	"sixfour/encap/teredo"
)

// siteOf returns two clients on a link behind a NAT, and what they send to elsewhere than to
// each other and to the server.
func siteOf(t *testing.T, quiet bool) (w *agenttest.World, a, b *agenttest.Host, elsewhere *int) {
	w, server, _ := newInternet(t)
	add := func(name, inside string, port uint16) *agenttest.Host {
		m := NewClient(port, agenttest.HostAt(server1), resolve.Host{})
		m.NoDiscovery = quiet
		return w.Add(name, m, port, agenttest.PortRestricted, "203.0.113.7", inside)
	}
	a, b = add("a", "10.0.0.5", 50001), add("b", "10.0.0.6", 50002)
	elsewhere = new(int)
	w.Lose = func(from, to header.Mapping, _ []byte) bool {
		if to.Addr>>24 != 10 && to.Addr>>28 != 0xe && !server.Has(from) && !server.Has(to) {
			*elsewhere++
		}
		return false
	}
	w.Run(2 * time.Second)
	return w, a, b, elsewhere
}

// Clients on a link behind a NAT find each other by multicast, and their packets stay on the
// link, even after a pause.
func TestDiscovery(t *testing.T) {
	w, a, b, elsewhere := siteOf(t, false)
	for _, pause := range []time.Duration{0, 100 * time.Second, 700 * time.Second} {
		w.Run(pause)
		sent := *elsewhere
		for _, k := range []struct {
			from, to *agenttest.Host
		}{{a, b}, {b, a}} {
			k.to.Got = nil
			if why := k.from.Say(agenttest.UDP(addr(k.from), addr(k.to), "hello")); why != drop.None {
				t.Fatal(why)
			}
			w.Run(time.Second)
			if !k.to.Heard("hello") || *elsewhere != sent {
				t.Errorf("after %v: %s to %s: heard %v, %d datagrams to the NAT; drops %v and %v", pause, k.from.Name, k.to.Name, k.to.Heard("hello"), *elsewhere-sent, a.Drops, b.Drops)
			}
		}
	}
}

// Without discovery, nothing is sent to the group, and what arrives is dropped.
func TestWithoutDiscovery(t *testing.T) {
	w, a, b, _ := siteOf(t, true)
	w.Lose = func(_, to header.Mapping, _ []byte) bool {
		if to.Addr>>28 == 0xe {
			t.Error("a discovery bubble is sent")
		}
		return false
	}
	w.Run(400 * time.Second)
	group := header.Mapping{Addr: agenttest.IP4("224.0.0.253"), Port: teredo.Port}
	a.Receive(b.At[0], group, teredo.AppendDiscoveryBubble(nil, addr(b)))
	if a.Agent.(*client).peers.Len() != 0 || a.Drops[drop.NoPeer] != 1 || len(a.Agent.(*client).Groups()) != 0 {
		t.Errorf("%d peers, drops %v", a.Agent.(*client).peers.Len(), a.Drops)
	}
}

// A forged discovery bubble makes nobody trusted, and causes at most one bubble of its size.
func TestForgedDiscovery(t *testing.T) {
	w, a, b, _ := siteOf(t, false)
	group := header.Mapping{Addr: agenttest.IP4("224.0.0.253"), Port: teredo.Port}
	forger := header.Mapping{Addr: agenttest.IP4("10.0.0.66"), Port: 50002}
	outside := teredo.ClientOf(addr(b))
	at := func(port uint16) header.Word6 {
		return teredo.Address(agenttest.IP4(server1), header.Mapping{Addr: outside.Addr, Port: port}, 0)
	}
	for name, k := range map[string]struct {
		from   header.Mapping
		packet []byte
		why    drop.Reason
		asks   int
	}{
		"asked":              {forger, teredo.AppendDiscoveryBubble(nil, at(1)), drop.None, 1},
		"off the link":       {header.Mapping{Addr: agenttest.IP4("10.0.1.66"), Port: 1}, teredo.AppendDiscoveryBubble(nil, at(2)), drop.Spoof, 0},
		"behind another NAT": {forger, teredo.AppendDiscoveryBubble(nil, teredo.Address(1, header.Mapping{Addr: 0x01020304, Port: 1}, 0)), drop.Spoof, 0},
		"our own":            {a.At[0], teredo.AppendDiscoveryBubble(nil, addr(a)), drop.OwnSource, 0},
		"another packet":     {forger, agenttest.UDP(at(3), addr(a), "x"), drop.NoPeer, 0},
		"another bubble":     {forger, teredo.AppendBubble(nil, at(4), addr(a)), drop.NoPeer, 0},
	} {
		asks := 0
		w.Lose = func(_, to header.Mapping, payload []byte) bool {
			if to == k.from {
				asks++
				if len(payload) > len(k.packet) {
					t.Errorf("%s: %d bytes for %d", name, len(payload), len(k.packet))
				}
			}
			return false
		}
		for range 3 {
			o := header.Outer{From: k.from.AddrPort(), At: group.AddrPort()}
			done := a.Agent.Receive(o, k.packet, w.Now)
			if why := a.Agent.(resolve.Refuser).Refused(); !done || why != k.why && why != drop.Limited {
				t.Errorf("%s: done %v, %v", name, done, why)
			}
			a.Step()
		}
		if asks != k.asks {
			t.Errorf("%s: asked %d times", name, asks)
		}
	}
	a.Receive(forger, a.At[0], agenttest.UDP(at(1), addr(a), "forged"))
	a.Receive(forger, a.At[0], teredo.AppendBubble(nil, at(1), addr(a)))
	if p := a.Agent.(*client).peers.Find(at(1)); a.Heard("forged") || p != nil && p.link.Load() != 0 {
		t.Error("a peer is trusted without a nonce")
	}
}
