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

// measuring returns a client that measures how long its NAT keeps mappings: for life, or for
// ever if it is 0.
func measuring(t *testing.T, life time.Duration) (w *agenttest.World, c, server *agenttest.Host) {
	w, server, _ = newInternet(t)
	m := NewClient(50001, agenttest.HostAt(server1), resolve.Host{})
	m.Second = 60001
	c = w.Add("c", m, 50001, agenttest.PortRestricted, "203.0.113.7", "10.0.0.5")
	c.Life = life
	return w, c, server
}

// The client asks the server as seldom as its NAT allows, and keeps its mapping.
func TestMeasure(t *testing.T) {
	for _, k := range []struct {
		life, lives time.Duration
	}{{35 * time.Second, 0}, {61 * time.Second, 60 * time.Second}, {100 * time.Second, 90 * time.Second}, {time.Hour, 120 * time.Second}} {
		w, c, server := measuring(t, k.life)
		w.Run(10 * time.Minute)
		q := &c.Agent.(*client).measure
		if q.phase != knowing || q.lives != k.lives {
			t.Errorf("a NAT that keeps mappings for %v: phase %d, %v, want %v; drops %v and %v", k.life, q.phase, q.lives, k.lives, c.Drops, server.Drops)
		}
		self, sent := addr(c), w.Sent
		w.Run(time.Hour)
		every := max(k.lives, refresh)
		if n := (w.Sent - sent) / 2; addr(c) != self || n > int(time.Hour/(every*3/4))+1 || n < int(time.Hour/every) {
			t.Errorf("a NAT that keeps mappings for %v: %d questions in an hour, the same address: %v", k.life, n, addr(c) == self)
		}
	}
}

// What arrives at the second port is believed only from the server, with the nonce.
func TestForgedMeasurement(t *testing.T) {
	w, c, server := measuring(t, 0)
	w.Run(2 * time.Second)
	q := &c.Agent.(*client).measure
	at := header.Mapping{Addr: c.At[0].Addr, Port: q.port}
	w.Run(20 * time.Second) // it waits
	if q.phase != waits {
		t.Fatalf("phase %d, drops %v", q.phase, c.Drops)
	}
	bubble := func(nonce uint32) []byte {
		return teredo.AppendNonce(teredo.AppendBubble(nil, addr(c), c.Agent.(*client).second()), nonce)
	}
	receive := func(from header.Mapping, b []byte) drop.Reason {
		c.Agent.Receive(header.Outer{From: from.AddrPort(), At: at.AddrPort()}, b, w.Now)
		return c.Agent.(resolve.Refuser).Refused()
	}
	if why := receive(server.At[0], bubble(uint32(q.nonce))); why != drop.Spoof {
		t.Errorf("before it asks: %v", why)
	}
	w.Lose = func(_, to header.Mapping, _ []byte) bool { return to == q.at }
	w.Run(45 * time.Second)
	if q.phase != asks {
		t.Fatalf("phase %d", q.phase)
	}
	for name, why := range map[string]drop.Reason{
		"another nonce":  receive(server.At[0], bubble(uint32(q.nonce)+1)),
		"another source": receive(server.At[1], bubble(uint32(q.nonce))),
		"a packet":       receive(server.At[0], agenttest.UDP(addr(c), addr(c), "x")),
	} {
		if why != drop.Spoof {
			t.Errorf("%s: %v", name, why)
		}
	}
	if why := receive(server.At[0], bubble(uint32(q.nonce))); why != drop.None || q.lives != 60*time.Second {
		t.Errorf("the right one: %v, %v", why, q.lives)
	}
}
