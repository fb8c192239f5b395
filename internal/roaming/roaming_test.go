package roaming

import (
	"encoding/binary"
	"net/netip"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"

	"sixfour/encap/drop"
	"sixfour/encap/header"
	"sixfour/encap/rendezvous"
	"sixfour/transport"
)

var (
	home   = netip.MustParseAddrPort("203.0.113.10:5555")
	office = netip.MustParseAddrPort("198.51.100.2:4000")
	train  = netip.MustParseAddrPort("198.51.100.77:61000")
)

// network passes messages from one Exchange to the other, as a NAT that rewrites the source of
// the caller's packets to at.
type network struct {
	mu       sync.Mutex
	at       netip.AddrPort
	to, from *Exchange
	lost     bool
}

// end sends to an Exchange.
type end struct {
	transport.Sender
	n  *network
	up bool // from the caller to the listener
}

func (e end) SendOne(pkt []byte) error {
	ip := header.IPv4(pkt)
	sport, dport := header.Ports(ip.Payload())
	o := header.Outer{From: netip.AddrPortFrom(ip.Src(), sport), At: netip.AddrPortFrom(ip.Dst(), dport)}
	udp := ip.Payload()
	if header.Sum(udp, header.PseudoSum(ip.Source(), ip.Dest(), len(udp), header.UDP)) != 0xffff || int(binary.BigEndian.Uint16(pkt[2:])) != len(pkt) {
		panic("a wrong checksum or length")
	}
	e.n.mu.Lock()
	x, lost := e.n.from, e.n.lost
	if e.up {
		x, o.From = e.n.to, e.n.at
	} else {
		lost = lost || o.At != e.n.at
		o.At = office
	}
	e.n.mu.Unlock()
	if !lost {
		go x.ReceivePacket(packet(o, udp[header.UDPLen:]))
	}
	return nil
}

// packet returns a packet of UDP.
func packet(o header.Outer, payload []byte) []byte {
	n := header.HeadersLen(o.From.Addr())
	pkt := append(make([]byte, n), payload...)
	header.PutHeaders(pkt, &o)
	return pkt
}

// listener notes where the peer is.
type listener struct{ at chan netip.AddrPort }

func (l listener) Moved(at netip.AddrPort) { l.at <- at }
func (l listener) Refused(string)          {}

// connecting is a path that connects from office to home.
type connecting struct {
	tx       transport.Sender
	answered chan rendezvous.Answer
	silent   chan struct{}
}

func (c *connecting) Ends() (local, remote netip.AddrPort, tx transport.Sender, ok bool) {
	return office, home, c.tx, true
}

func (c *connecting) Unanswered() { c.silent <- struct{}{} }

func (c *connecting) Answered(a rendezvous.Answer, _ string) {
	if a.Outcome == rendezvous.Accepted {
		c.answered <- a
	}
}

// TestMoves: the listener learns the caller's address and port as they are behind a NAT, and
// again when the NAT gives others; the caller learns that there is a NAT.
func TestMoves(t *testing.T) {
	const secret = "correct horse battery"
	n := &network{at: train, to: New(zap.NewNop()), from: New(zap.NewNop())}
	l := listener{make(chan netip.AddrPort, 10)}
	c := &connecting{end{n: n, up: true}, make(chan rendezvous.Answer, 10), make(chan struct{}, 10)}
	if errs := n.to.Set([]Listening{{"b", home, secret, end{n: n}, l}}, nil); errs != nil {
		t.Fatal(errs)
	}
	n.from.Set(nil, []Calling{{secret, 0, c}})
	for _, x := range []*Exchange{n.to, n.from} {
		go x.Run(t.Context())
	}
	if got := <-l.at; got != train {
		t.Errorf("the peer is at %v, want %v", got, train)
	}
	if a := <-c.answered; !a.NAT || a.Seen != train {
		t.Errorf("seen from %v, NAT %v", a.Seen, a.NAT)
	}
	elsewhere := netip.MustParseAddrPort("198.51.100.77:61001")
	n.mu.Lock()
	n.at = elsewhere
	n.mu.Unlock()
	n.from.Wake(c)
	if got := <-l.at; got != elsewhere {
		t.Errorf("the peer is at %v, want %v", got, elsewhere)
	}
}

// TestSet: two paths with one secret at a port are an error, and the first one works. What
// stays keeps its place, what is removed does not.
func TestSet(t *testing.T) {
	x := New(zap.NewNop())
	l := listener{make(chan netip.AddrPort, 10)}
	a, b := Listening{"a", home, "correct horse battery", nil, l}, Listening{"b", home, "correct horse battery", nil, l}
	if errs := x.Set([]Listening{a, b}, nil); len(errs) != 1 {
		t.Fatalf("errors %v", errs)
	}
	p := x.ports[home]
	if errs := x.Set([]Listening{a}, nil); errs != nil || x.ports[home] != p || len(p.paths) != 1 {
		t.Errorf("errors %v, paths %v", errs, p.paths)
	}
	b.Secret = "short"
	if errs := x.Set([]Listening{b}, nil); len(errs) != 1 {
		t.Errorf("errors %v", errs)
	}
	if x.Set(nil, nil); len(x.ports) != 0 {
		t.Errorf("ports %v", x.ports)
	}
}

// TestStrangers: what is for none of the paths is not handled.
func TestStrangers(t *testing.T) {
	x := New(zap.NewNop())
	l := listener{make(chan netip.AddrPort, 10)}
	x.Set([]Listening{{"b", home, "correct horse battery", nil, l}}, nil)
	key, err := rendezvous.NewKey([]byte("another secret, a long one"))
	if err != nil {
		t.Fatal(err)
	}
	hello, _ := rendezvous.NewCaller(key, 0).Next(x.ports[home].again)
	for _, at := range []netip.AddrPort{home, office} {
		if is, why := x.ReceivePacket(packet(header.Outer{From: train, At: at}, hello)); !is || why != drop.Unauthenticated {
			t.Errorf("a stranger's message to %v: %v, %v", at, is, why)
		}
	}
}

// TestUnanswered: a path is told once that messages are not answered, as with another secret at
// the other end.
func TestUnanswered(t *testing.T) {
	x := New(zap.NewNop())
	c := &connecting{end{n: &network{at: train, to: New(zap.NewNop())}}, make(chan rendezvous.Answer, 10), make(chan struct{}, 10)}
	x.Set(nil, []Calling{{"correct horse battery", 0, c}})
	now := time.Now()
	for range 20 {
		now = now.Add(time.Minute)
		x.due(now)
	}
	if len(c.silent) != 1 {
		t.Errorf("told %d times", len(c.silent))
	}
}
