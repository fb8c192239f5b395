package wireguard_test

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sixfour/encap/header"
	"sixfour/transport"
	"sixfour/transport/wireguard"
	"sixfour/transport/wiretest"
)

// relayed returns two ends, of which the first one connects to the other through a relay.
func relayed(t testing.TB, change func(direction int, b []byte) [][]byte) (a, b *end, r *relay) {
	t.Helper()
	b = open(t, "127.0.0.1:0")
	r = newRelay(t, b.Local(), change)
	a = open(t, "127.0.0.1:0")
	must(t, b.SetPeers([]transport.SessionPeer{peer("a", a, netip.AddrPort{}, wireguard.Settings{})}))
	must(t, a.SetPeers([]transport.SessionPeer{peer("b", b, r.front(), wireguard.Settings{})}))
	a.connected(t, "b")
	return a, b, r
}

func pass(_ int, b []byte) [][]byte { return [][]byte{b} }

// The address from which a peer sends changes. Both directions go on, without a new
// handshake.
func TestRoaming(t *testing.T) {
	handshakes := 0
	a, b, r := relayed(t, func(direction int, d []byte) [][]byte {
		if direction == 0 && d[0] == 1 {
			handshakes++
		}
		return [][]byte{d}
	})
	at := b.connected(t, "a")
	exchange(t, a, b, r.front(), at)
	former := false
	for range 3 {
		r.move(t)
		must(t, a.send(r.front(), inner("2001:db8::a", "2001:db8::b", []byte("moved"))))
		o, _ := b.next(t)
		moved := b.connected(t, "a")
		if moved == at || o.From != at && o.From != moved {
			t.Fatalf("a moved from %v to %v; the packet is from %v", at, moved, o.From)
		}
		former = former || o.From == at
		// What was sent to the old address, before the caller knew the new one, still arrives.
		want := inner("2001:db8::b", "2001:db8::a", []byte("to the old address"))
		must(t, b.send(at, want))
		if _, got := a.next(t); !bytes.Equal(got, want) {
			t.Fatalf("received % x", got)
		}
		want = inner("2001:db8::b", "2001:db8::a", []byte("to the new address"))
		must(t, b.send(moved, want))
		if o, got := a.next(t); !bytes.Equal(got, want) || o.From != r.front() {
			t.Fatalf("received from %v % x", o.From, got)
		}
		at = moved
	}
	if !former { // unless each took two seconds
		t.Error("packets of a peer that has just moved are from an address that nobody knows yet")
	}
	for from := (netip.AddrPort{}); from != at; time.Sleep(10 * time.Millisecond) {
		must(t, a.send(r.front(), inner("2001:db8::a", "2001:db8::b", []byte("later"))))
		o, _ := b.next(t)
		from = o.From
	}
	exchange(t, a, b, r.front(), at)
	if handshakes != 1 {
		t.Errorf("%d handshakes", handshakes)
	}
}

// A peer that moves and is silent, but for its keepalives, is found, too.
func TestRoamingByKeepalive(t *testing.T) {
	b := open(t, "127.0.0.1:0")
	r := newRelay(t, b.Local(), pass)
	a := open(t, "127.0.0.1:0")
	must(t, b.SetPeers([]transport.SessionPeer{peer("a", a, netip.AddrPort{}, wireguard.Settings{})}))
	must(t, a.SetPeers([]transport.SessionPeer{peer("b", b, r.front(), wireguard.Settings{Keepalive: time.Second})}))
	at := b.connected(t, "a")
	r.move(t)
	if moved := b.connected(t, "a"); moved == at {
		t.Fatalf("a is still at %v", at)
	}
}

// hub returns a port with several peers, which connect to it, and their ends. Each has an
// address 2001:db8::N:1.
func hub(t testing.TB, n int) (h *end, ends []*end, list []transport.SessionPeer) {
	t.Helper()
	h = open(t, "127.0.0.1:0")
	for i := range n {
		e := open(t, fmt.Sprintf("127.0.0.%d:0", i+2))
		ends = append(ends, e)
		list = append(list, peer(i, e, netip.AddrPort{}, wireguard.Settings{Allowed: prefixes(fmt.Sprintf("2001:db8:0:0:0:0:%d:0/112", i+1), fmt.Sprintf("10.0.%d.0/24", i))}))
	}
	must(t, h.SetPeers(list))
	for _, e := range ends {
		must(t, e.SetPeers([]transport.SessionPeer{peer("hub", h, h.Local(), wireguard.Settings{})}))
		e.connected(t, "hub")
	}
	for range ends {
		v := h.event(t)
		if i, ok := v.id.(int); !ok || v.at != ends[i].Local() {
			t.Fatalf("Connected%v", v)
		}
	}
	return h, ends, list
}

func spoke(i int) string { return fmt.Sprintf("2001:db8::%d:1", i+1) }

// Several peers at a port: each gets and sends packets with its own inner addresses only.
func TestSeveralPeers(t *testing.T) {
	const n = 4
	h, ends, _ := hub(t, n)
	for i, e := range ends {
		want := inner("2001:db8:ffff::1", spoke(i), fmt.Appendf(nil, "for %d", i))
		must(t, h.send(e.Local(), want))
		if _, got := e.next(t); !bytes.Equal(got, want) {
			t.Fatalf("%d received % x", i, got)
		}
		other := ends[(i+1)%n]
		if err := h.send(other.Local(), want); !errors.Is(err, unix.ENOTCONN) {
			t.Errorf("a packet for %d to the address of another one: %v", i, err)
		}
		// A source address of another peer, then an own one.
		must(t, e.send(h.Local(), inner(spoke((i+1)%n), "2001:db8:ffff::1", nil)))
		must(t, e.send(h.Local(), inner("192.0.2.1", "192.0.2.2", nil)))
		want = inner(spoke(i), "2001:db8:ffff::1", fmt.Appendf(nil, "from %d", i))
		must(t, e.send(h.Local(), want))
		if o, got := h.next(t); !bytes.Equal(got, want) || o.From != e.Local() {
			t.Fatalf("received % x from %v", got, o.From)
		}
	}
	if err := h.send(ends[0].Local(), inner("2001:db8:ffff::1", "2001:db8::ffff:1", nil)); !errors.Is(err, unix.EINVAL) {
		t.Errorf("a packet for no peer: %v", err)
	}
}

// SetPeers keeps the sessions of peers that stay, and ends the others.
func TestSetPeersKeepsSessions(t *testing.T) {
	h, ends, list := hub(t, 3)
	list[0].ID = "renamed"
	same := *list[0].Settings.(*wireguard.Settings)
	list[0].Settings = &same
	must(t, h.SetPeers(list[:2]))
	if at := h.connected(t, "renamed"); at != ends[0].Local() {
		t.Errorf("the session goes on at %v, want %v", at, ends[0].Local())
	}
	for i, e := range ends[:2] {
		want := inner("2001:db8:ffff::1", spoke(i), nil)
		must(t, h.send(e.Local(), want)) // no new handshake: there is a session at once
		if _, got := e.next(t); !bytes.Equal(got, want) {
			t.Fatalf("%d received % x", i, got)
		}
	}
	if err := h.send(ends[2].Local(), inner("2001:db8:ffff::1", spoke(2), nil)); !errors.Is(err, unix.EINVAL) {
		t.Errorf("a packet for a removed peer: %v", err)
	}
	must(t, ends[2].send(h.Local(), inner(spoke(2), "2001:db8:ffff::1", nil)))
	want := inner(spoke(0), "2001:db8:ffff::1", nil)
	must(t, ends[0].send(h.Local(), want))
	if _, got := h.next(t); !bytes.Equal(got, want) {
		t.Fatalf("received % x", got)
	}
	if len(h.events) > 0 {
		t.Errorf("Connected%v", <-h.events)
	}
	// The ID is the new one.
	must(t, ends[0].Close())
	must(t, h.SetPeers(list)) // the third one again, as a new peer
	again := openWith(t, wireguard.Config{PrivateKey: ends[0].key, Local: netip.MustParseAddrPort("127.0.0.9:0")}, listen)
	must(t, again.SetPeers([]transport.SessionPeer{peer("hub", h, h.Local(), wireguard.Settings{})}))
	if at := h.connected(t, "renamed"); at != again.Local() {
		t.Errorf("at %v, want %v", at, again.Local())
	}
}

// Lists of peers that SetPeers refuses. The peers stay as they were.
func TestSetPeersErrors(t *testing.T) {
	h, ends, list := hub(t, 2)
	k1, k2 := ends[0].PublicKey(), ends[1].PublicKey()
	at := netip.MustParseAddrPort
	settings := func(k wireguard.PublicKey, allowed ...string) *wireguard.Settings {
		return &wireguard.Settings{PublicKey: k, Allowed: prefixes(allowed...)}
	}
	for _, c := range []struct {
		name string
		list []transport.SessionPeer
		want []string // parts of the error
	}{
		{"overlap", []transport.SessionPeer{{Settings: settings(k1, "10.0.0.0/8", "10.1.0.0/16")}, {Settings: settings(k2, "10.1.2.0/24")}}, []string{k1.String(), k2.String(), "10.0.0.0/8", "10.1.2.0/24"}},
		{"the same prefix", []transport.SessionPeer{{Settings: settings(k1, "::/0")}, {Settings: settings(k2, "::/0")}}, []string{k1.String(), k2.String()}},
		{"no prefixes", []transport.SessionPeer{{Settings: settings(k1, "10.0.0.0/8")}, {Settings: settings(k2)}}, []string{k2.String()}},
		{"the same key", []transport.SessionPeer{{Settings: settings(k1, "10.0.0.0/8")}, {Settings: settings(k1, "11.0.0.0/8")}}, []string{k1.String()}},
		{"the same address", []transport.SessionPeer{{Remote: at("192.0.2.1:1"), Settings: settings(k1, "10.0.0.0/8")}, {Remote: at("192.0.2.1:1"), Settings: settings(k2, "11.0.0.0/8")}}, []string{"192.0.2.1:1", k1.String(), k2.String()}},
		{"no key", []transport.SessionPeer{{Settings: settings(wireguard.PublicKey{})}}, []string{"no public key"}},
		{"our key", []transport.SessionPeer{{Settings: settings(h.PublicKey())}}, []string{"our own"}},
		{"no settings", []transport.SessionPeer{{}}, []string{"*wireguard.Settings"}},
		{"nil settings", []transport.SessionPeer{{Settings: (*wireguard.Settings)(nil)}}, []string{"*wireguard.Settings"}},
		{"IPv6", []transport.SessionPeer{{Remote: at("[2001:db8::1]:1"), Settings: settings(k1)}}, []string{"IP version"}},
		{"port 0", []transport.SessionPeer{{Remote: at("192.0.2.1:0"), Settings: settings(k1)}}, []string{"192.0.2.1:0"}},
		{"multicast", []transport.SessionPeer{{Remote: at("224.0.0.1:1"), Settings: settings(k1)}}, []string{"224.0.0.1:1"}},
		{"mapped", []transport.SessionPeer{{Settings: settings(k1, "::ffff:10.0.0.0/120")}}, []string{"::ffff:10.0.0.0/120"}},
		{"keepalive", []transport.SessionPeer{{Settings: &wireguard.Settings{PublicKey: k1, Keepalive: 20 * time.Hour}}}, []string{"65535"}},
		{"negative keepalive", []transport.SessionPeer{{Settings: &wireguard.Settings{PublicKey: k1, Keepalive: -1}}}, []string{"keepalive"}},
	} {
		err := h.SetPeers(c.list)
		if err == nil {
			t.Errorf("%s: no error", c.name)
			continue
		}
		for _, part := range c.want {
			if !bytes.Contains([]byte(err.Error()), []byte(part)) {
				t.Errorf("%s: %v, without %q", c.name, err, part)
			}
		}
	}
	must(t, h.SetPeers(list))
	want := inner("2001:db8:ffff::1", spoke(1), nil)
	must(t, h.send(ends[1].Local(), want))
	if _, got := ends[1].next(t); !bytes.Equal(got, want) {
		t.Fatalf("% x", got)
	}
}

// When a peer does not answer any more, the session ends, and Send says so. When it answers
// again, there is a new one.
func TestSessionEnds(t *testing.T) {
	const age = 2 * time.Second // instead of 3 minutes
	soonOld := func(c wireguard.Config) (*wireguard.Port, error) { return wireguard.ListenFor(c, age) }
	a := openWith(t, wireguard.Config{PrivateKey: wireguard.NewPrivateKey(), Local: netip.MustParseAddrPort("127.0.0.1:0")}, soonOld)
	b := open(t, "127.0.0.1:0")
	must(t, b.SetPeers([]transport.SessionPeer{peer("a", a, netip.AddrPort{}, wireguard.Settings{})}))
	must(t, a.SetPeers([]transport.SessionPeer{peer("b", b, b.Local(), wireguard.Settings{})}))
	a.connected(t, "b")
	b.connected(t, "a")
	at := b.Local()
	must(t, b.Close())
	if v := a.event(t); v.id != "b" || v.at.IsValid() || v.why == nil {
		t.Fatalf("Connected%v", v)
	}
	if err := a.send(at, inner("192.0.2.1", "192.0.2.2", nil)); !errors.Is(err, unix.ENOTCONN) {
		t.Fatalf("send: %v", err)
	}
	b = openWith(t, wireguard.Config{PrivateKey: b.key, Local: at}, listen)
	must(t, b.SetPeers([]transport.SessionPeer{peer("a", a, netip.AddrPort{}, wireguard.Settings{})}))
	if got := a.connected(t, "b"); got != at {
		t.Fatalf("b is at %v, want %v", got, at)
	}
	b.connected(t, "a")
	exchange(t, a, b, at, a.Local())
}

// Close during traffic ends everything, at once, and nothing is left.
func TestCloseUnderTraffic(t *testing.T) {
	for range 5 {
		a, b := pair(t, "127.0.0.1:0", "127.0.0.1:0")
		var traffic sync.WaitGroup
		for _, d := range []struct{ from, to *end }{{a, b}, {b, a}, {a, b}} {
			tx, err := d.from.Sender(transport.Options{})
			must(t, err)
			in := inner("192.0.2.1", "192.0.2.2", make([]byte, 1000))
			pkts := make([]transport.Packet, transport.BatchSize)
			for i := range pkts {
				pkts[i] = transport.Packet{Head: outer(d.from.Local(), d.to.Local(), len(in), 0), Body: in}
			}
			traffic.Go(func() {
				for {
					if _, err := tx.Send(pkts); errors.Is(err, net.ErrClosed) || errors.Is(err, unix.ENOTCONN) {
						return
					}
				}
			})
		}
		for range 100 {
			b.next(t)
			a.next(t)
		}
		must(t, b.Close())
		must(t, a.Close())
		traffic.Wait()
		if err := a.SetPeers(nil); !errors.Is(err, net.ErrClosed) {
			t.Errorf("SetPeers: %v", err)
		}
		if err := a.tx.SendOne(outer(a.Local(), b.Local(), 0, 0)); !errors.Is(err, net.ErrClosed) {
			t.Errorf("SendOne: %v", err)
		}
		if _, err := a.Sender(transport.Options{}); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Sender: %v", err)
		}
		if err := a.Close(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Close: %v", err)
		}
		if _, err := a.Receive(make([][]byte, 1), make([]transport.Meta, 1)); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Receive: %v", err)
		}
		for range a.got { // ends
		}
	}
}

// A port whose packets nobody receives counts them as lost, and SetPeers and Close still work.
func TestNobodyReceives(t *testing.T) {
	b, err := wireguard.Listen(wireguard.Config{PrivateKey: wireguard.NewPrivateKey(), Local: netip.MustParseAddrPort("127.0.0.1:0"), Queue: 4}, transport.Options{})
	must(t, err)
	defer b.Close()
	a := open(t, "127.0.0.1:0")
	must(t, b.SetPeers([]transport.SessionPeer{peer("a", a, netip.AddrPort{}, wireguard.Settings{})}))
	must(t, a.SetPeers([]transport.SessionPeer{{ID: "b", Remote: b.Local(), Settings: &wireguard.Settings{PublicKey: b.PublicKey()}}}))
	a.connected(t, "b")
	for {
		must(t, a.send(b.Local(), inner("192.0.2.1", "192.0.2.2", nil)))
		if lost, _ := b.Lost(); lost > 10 {
			break
		}
		time.Sleep(time.Millisecond)
	}
	must(t, b.SetPeers(nil))
}

// A queue that is full for some time refuses packets, and does not wait for each.
func TestQueueFull(t *testing.T) {
	const size, packets = 4, 1000
	for i, err := range wireguard.PutOne(size, packets) {
		if full := errors.Is(err, unix.ENOBUFS); full != (i >= size) {
			t.Fatalf("packet %d: %v", i, err)
		}
	}
}

// Secrets are never printed.
func TestSecretsAreHidden(t *testing.T) {
	s := wireguard.NewPrivateKey()
	config, settings := wireguard.Config{PrivateKey: s}, wireguard.Settings{PresharedKey: s}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%q", "%d"} {
		for _, v := range []any{s, &s, config, settings, []wireguard.Secret{s}} {
			text := fmt.Sprintf(verb, v)
			for _, leak := range []string{fmt.Sprintf("%x", s[:4]), fmt.Sprintf("%d %d %d", s[0], s[1], s[2]), fmt.Sprintf("0x%x, 0x%x", s[0], s[1])} {
				if bytes.Contains([]byte(text), []byte(leak)) {
					t.Errorf("%s of %T: %s", verb, v, text)
				}
			}
		}
	}
	if _, err := s.MarshalText(); err == nil {
		t.Error("MarshalText writes the key")
	}
	const text = "mistyped-secret-key"
	if _, err := wireguard.ParseSecret(text); err == nil || bytes.Contains([]byte(err.Error()), []byte(text)) {
		t.Errorf("ParseSecret: %v", err)
	}
}

// Keys as wg(8) prints them.
func TestKeys(t *testing.T) {
	// The public key of RFC 7748 section 6.1.
	s, err := wireguard.ParseSecret("dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=")
	must(t, err)
	p, err := wireguard.ParsePublicKey("hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=")
	must(t, err)
	if s.Public() != p || p.String() != "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=" {
		t.Errorf("public key %v", s.Public())
	}
	for _, bad := range []string{"", "x", "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LC==", "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=\n\n=", "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCp="} {
		if _, err := wireguard.ParsePublicKey(bad); err == nil {
			t.Errorf("%q is a key", bad)
		}
	}
}

// Ports that cannot be opened.
func TestListenErrors(t *testing.T) {
	key, local := wireguard.NewPrivateKey(), netip.MustParseAddrPort("127.0.0.1:0")
	busy := open(t, "127.0.0.1:0")
	for name, c := range map[string]wireguard.Config{
		"no key":         {Local: local},
		"no address":     {PrivateKey: key},
		"negative queue": {PrivateKey: key, Local: local, Queue: -1},
		"port in use":    {PrivateKey: key, Local: busy.Local()},
	} {
		if p, err := listen(c); err == nil {
			p.Close()
			t.Errorf("%s: no error", name)
		}
	}
}

// The ports are in the namespace in which they were opened. The largest inner packet of an
// MTU passes; a larger one is neither fragmented, nor keeps the next one from leaving.
func TestAboveMTU(t *testing.T) {
	n := wiretest.Alone(t)
	must(t, n.SetMTU("lo", 1500))
	inside := func(c wireguard.Config) (p *wireguard.Port, err error) {
		err = n.Do(func() error {
			p, err = listen(c)
			return err
		})
		return p, err
	}
	wiretest.Both(t, func(t *testing.T, e wiretest.Ends) {
		at := func(a netip.Addr) wireguard.Config {
			return wireguard.Config{PrivateKey: wireguard.NewPrivateKey(), Local: netip.AddrPortFrom(a, 51820)}
		}
		a, b := openWith(t, at(e.Left), inside), openWith(t, at(e.Right), inside)
		must(t, b.SetPeers([]transport.SessionPeer{peer("a", a, netip.AddrPort{}, wireguard.Settings{})}))
		must(t, a.SetPeers([]transport.SessionPeer{peer("b", b, b.Local(), wireguard.Settings{})}))
		a.connected(t, "b")
		most := wireguard.MaxInner(1500, e.Left)
		fits := inner("192.0.2.1", "192.0.2.2", make([]byte, most-header.IPv4Len-header.UDPLen))
		large := inner("192.0.2.1", "192.0.2.2", make([]byte, len(fits)+1-header.IPv4Len-header.UDPLen))
		head := outer(a.Local(), b.Local(), most, 0)
		_, err := a.tx.Send([]transport.Packet{{Head: head, Body: fits}, {Head: head, Body: large}, {Head: head, Body: fits}, {Head: head, Body: large}, {Head: head, Body: fits}})
		must(t, err)
		for range 3 {
			if _, got := b.next(t); !bytes.Equal(got, fits) {
				t.Fatalf("received %d bytes, want %d", len(got), len(fits))
			}
		}
	})
}
