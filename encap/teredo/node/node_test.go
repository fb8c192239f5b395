package node

import (
	"net/netip"
	"testing"
	"time"

	"sixfour/encap/drop"
	"sixfour/encap/header"
	"sixfour/encap/resolve"
	"sixfour/encap/teredo"
)

// world is an IPv4 network in simulated time: nodes, of which some are behind a NAT.
type world struct {
	t     *testing.T
	now   time.Time
	hosts []*host
	sent  int // datagrams
	lose  func(from, to teredo.Mapping, payload []byte) bool
}

// nat is how a NAT treats packets from inside and from outside.
type nat int

const (
	none           nat = iota
	restricted         // one mapping; packets come in from addresses to which one has gone out
	portRestricted     // one mapping; from addresses and ports
	symmetric          // a mapping for each destination; from addresses and ports
)

// host is a node, and what its NAT remembers.
type host struct {
	w     *world
	name  string
	agent resolve.Agent
	at    []teredo.Mapping // inside
	out   uint32           // address outside
	kind  nat
	maps  map[teredo.Mapping]uint16 // ports outside by destination; the zero mapping stands for all
	open  map[[2]uint64]bool        // outside port and remote end
	got   []header.IPv6             // packets for the interface
	drops map[drop.Reason]int
	inner func(h *host, ip header.IPv6) // what the host does with a packet
}

func ip4(s string) uint32 { return word(netip.MustParseAddr(s)) }

func ip6(s string) header.Word6 {
	w, _ := header.Word6Of(netip.MustParseAddr(s))
	return w
}

func newWorld(t *testing.T) *world {
	return &world{t: t, now: time.Unix(1e9, 0)}
}

func (w *world) add(name string, m resolve.Mechanism, port uint16, kind nat, outside string, inside ...string) *host {
	w.t.Helper()
	s := resolve.Site{Local: netip.MustParseAddr(inside[0])}
	for range m.Hosts() {
		s.Hosts = append(s.Hosts, nil)
	}
	r, err := m.Resolver(s)
	if err != nil {
		w.t.Fatal(err)
	}
	h := &host{w: w, name: name, agent: r.(resolve.Agent), kind: kind, out: ip4(outside), maps: map[teredo.Mapping]uint16{}, open: map[[2]uint64]bool{}, drops: map[drop.Reason]int{}}
	for _, a := range inside {
		h.at = append(h.at, teredo.Mapping{Addr: ip4(a), Port: port})
	}
	w.hosts = append(w.hosts, h)
	return h
}

func hostAt(s string) resolve.Host { return resolve.Host{Addr: netip.MustParseAddr(s)} }

// run lets time pass.
func (w *world) run(d time.Duration) {
	for end := w.now.Add(d); ; {
		next := end
		for _, h := range w.hosts {
			if again := h.step(); !again.IsZero() && again.Before(next) {
				next = again
			}
		}
		if !next.After(w.now) {
			next = w.now.Add(10 * time.Millisecond)
		}
		if next.After(end) {
			next = end
		}
		if w.now = next; !w.now.Before(end) {
			return
		}
	}
}

// step sends what a host has to send.
func (h *host) step() time.Time {
	for range 50 {
		send, lost, again := h.agent.Next(h.w.now)
		h.drops[drop.Unresolved] += lost
		if len(send) == 0 {
			return again
		}
		for _, m := range send {
			from := h.at[0]
			if m.From.IsValid() {
				from.Addr = word(m.From)
			}
			h.emit(from, mapping(m.To), m.Bytes)
		}
	}
	h.w.t.Fatalf("%s does not stop sending", h.name)
	return time.Time{}
}

// emit sends a datagram through the host's NAT.
func (h *host) emit(from, to teredo.Mapping, payload []byte) {
	h.w.sent++
	if h.kind != none && to.Addr>>24 != 10 {
		key := teredo.Mapping{}
		if h.kind == symmetric {
			key = to
		}
		if h.maps[key] == 0 {
			h.maps[key] = from.Port + uint16(1000*len(h.maps))
		}
		from = teredo.Mapping{Addr: h.out, Port: h.maps[key]}
		filter := to
		if h.kind == restricted {
			filter.Port = 0
		}
		h.open[[2]uint64{uint64(from.Port), pack(filter)}] = true
	}
	if h.w.lose != nil && h.w.lose(from, to, payload) {
		return
	}
	for _, o := range h.w.hosts {
		if o.accepts(from, &to) {
			o.receive(from, to, payload)
			return
		}
	}
}

// accepts reports whether a datagram reaches the host, and translates its destination.
func (h *host) accepts(from teredo.Mapping, to *teredo.Mapping) bool {
	for _, at := range h.at {
		if at == *to {
			return h.kind == none || from.Addr>>24 == 10
		}
	}
	if h.kind == none || to.Addr != h.out {
		return false
	}
	if h.kind == restricted {
		from.Port = 0
	}
	if !h.open[[2]uint64{uint64(to.Port), pack(from)}] {
		return false
	}
	*to = h.at[0]
	return true
}

// receive does what the datapath does with a datagram.
func (h *host) receive(from, to teredo.Mapping, payload []byte) {
	b := append([]byte(nil), payload...)
	o := header.Outer{From: from.AddrPort(), At: to.AddrPort()}
	if teredo.IsData(b) {
		if why := h.agent.From(endpoint(from), endpoint(to), b); why != drop.None {
			h.drops[why]++
			return
		}
		if !h.agent.Wants(b) {
			h.deliver(b)
			return
		}
	} else if !h.agent.Wants(b) {
		h.drops[drop.UnknownProtocol]++
		return
	}
	done := h.agent.Receive(o, b, h.w.now)
	if why := h.agent.(resolve.Refuser).Refused(); why != drop.None {
		h.drops[why]++
	} else if !done {
		h.deliver(b)
	}
	h.step()
}

func (h *host) deliver(ip header.IPv6) {
	h.got = append(h.got, ip)
	if h.inner != nil {
		h.inner(h, ip)
	}
}

// say sends an inner packet from the host's interface.
func (h *host) say(ip header.IPv6) drop.Reason {
	to, why := h.agent.To(ip)
	if why == drop.Unresolved && h.agent.Hold(ip, h.w.now) {
		h.step()
		return drop.None
	}
	if why == drop.None {
		h.emit(h.at[0], mapping(to), ip)
	}
	return why
}

// addr returns the Teredo address of a client.
func (h *host) addr() header.Word6 {
	h.w.t.Helper()
	me := h.agent.(*client).self.Load()
	if me == nil {
		h.w.t.Fatalf("%s is not qualified: %v", h.name, h.drops)
	}
	return me.addr
}

// udp returns a packet with a payload.
func udp(src, dst header.Word6, text string) header.IPv6 {
	b := append([]byte{0x60, 0, 0, 0, 0, byte(len(text)), 253, 64}, make([]byte, 32)...)
	src.Put(b[8:])
	dst.Put(b[24:])
	return append(b, text...)
}

const (
	server1 = "198.51.100.120"
	server2 = "198.51.100.121"
)

// newInternet returns a world with a server, and a relay at whose side a native host answers
// echo requests.
func newInternet(t *testing.T) (w *world, server, relay *host) {
	w = newWorld(t)
	server = w.add("server", NewServer(netip.MustParseAddr(server1), netip.MustParseAddr(server2)), teredo.Port, none, server1, server1, server2)
	relay = w.add("relay", NewRelay(50000, []netip.Prefix{netip.MustParsePrefix("2001:db8:ff::/48")}), 50000, none, "198.51.100.9", "198.51.100.9")
	answer := func(_ *host, ip header.IPv6) {
		dst := header.ReadWord6(ip.Dest())
		if !header.NewPrefix6(netip.MustParsePrefix("2001:db8:ff::/48")).Contains(dst) || ip.NextHeader() != header.ICMPv6 || ip.Payload()[0] != 128 {
			return
		}
		b := append(header.IPv6(nil), ip...)
		copy(b[8:24], ip[24:40])
		copy(b[24:40], ip[8:24])
		b[40], b[42], b[43] = 129, 0, 0
		sum := ^header.Sum(b[40:], header.PseudoSum(b[8:24], b[24:40], len(b)-40, header.ICMPv6))
		b[42], b[43] = byte(sum>>8), byte(sum)
		relay.say(b)
	}
	server.inner, relay.inner = answer, answer
	return w, server, relay
}

func (w *world) client(name string, kind nat, outside, inside string) *host {
	return w.add(name, NewClient(50001, hostAt(server1), resolve.Host{}), 50001, kind, outside, inside)
}

// heard reports whether the host has got a packet with a text.
func (h *host) heard(text string) bool {
	for _, ip := range h.got {
		if string(ip.Payload()) == text {
			return true
		}
	}
	return false
}

// Two clients reach each other behind every pair of NATs with which RFC 6081 says that they can.
func TestClients(t *testing.T) {
	for _, k := range []struct {
		name string
		a, b nat
		can  bool
	}{
		{"no NAT", none, none, true},
		{"restricted", restricted, restricted, true},
		{"port-restricted", portRestricted, portRestricted, true},
		{"restricted and port-restricted", restricted, portRestricted, true},
		{"symmetric to none", symmetric, none, true},
		{"none to symmetric", none, symmetric, true},
		{"symmetric to restricted", symmetric, restricted, true},
		{"restricted to symmetric", restricted, symmetric, true},
		{"symmetric to port-restricted", symmetric, portRestricted, false},
		{"symmetric to symmetric", symmetric, symmetric, false},
	} {
		t.Run(k.name, func(t *testing.T) {
			w, _, _ := newInternet(t)
			at := func(kind nat, outside, inside string) string {
				if kind == none {
					return outside
				}
				return inside
			}
			a := w.client("a", k.a, "203.0.113.7", at(k.a, "203.0.113.7", "10.0.0.5"))
			b := w.client("b", k.b, "203.0.113.8", at(k.b, "203.0.113.8", "10.0.1.5"))
			w.run(2 * time.Second)
			if why := a.say(udp(a.addr(), b.addr(), "hello")); why != drop.None {
				t.Fatal(why)
			}
			w.run(7 * time.Second)
			if b.heard("hello") != k.can {
				t.Errorf("heard: %v; drops of a %v, of b %v", b.heard("hello"), a.drops, b.drops)
			}
			if k.can {
				b.say(udp(b.addr(), a.addr(), "welcome"))
				w.run(7 * time.Second)
				if !a.heard("welcome") {
					t.Errorf("no answer; drops of a %v, of b %v", a.drops, b.drops)
				}
			}
			sent := w.sent
			w.run(200 * time.Second)
			if n := w.sent - sent; n > 120 {
				t.Errorf("%d datagrams in 200 s of silence", n)
			}
		})
	}
}

// A native host and a client reach each other through a relay, whoever begins.
func TestNative(t *testing.T) {
	native := ip6("2001:db8:ff::80")
	for kind := none; kind <= symmetric; kind++ {
		w, _, relay := newInternet(t)
		inside := "10.0.0.5"
		if kind == none {
			inside = "203.0.113.7"
		}
		c := w.client("c", kind, "203.0.113.7", inside)
		w.run(2 * time.Second)
		if why := c.say(udp(c.addr(), native, "out")); why != drop.None {
			t.Fatal(why)
		}
		w.run(3 * time.Second)
		if !relay.heard("out") {
			t.Errorf("NAT %d: out: drops of the client %v, of the relay %v", kind, c.drops, relay.drops)
		}
		relay.say(udp(native, c.addr(), "back"))
		w.run(time.Second)
		if !c.heard("back") {
			t.Errorf("NAT %d: back: drops of the client %v, of the relay %v", kind, c.drops, relay.drops)
		}
		other := ip6("2001:db8:ff::81")
		for range 3 { // the first one may be forged, and is dropped
			relay.say(udp(other, c.addr(), "in"))
			w.run(3 * time.Second)
		}
		if !c.heard("in") {
			t.Errorf("NAT %d: in: drops of the client %v, of the relay %v", kind, c.drops, relay.drops)
		}
	}
}
