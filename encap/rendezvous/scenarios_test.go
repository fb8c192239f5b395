package rendezvous

import (
	"bytes"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"sixfour/encap/header"
)

var (
	secret  = []byte("sixteen bytes and more")
	here    = netip.MustParseAddrPort("192.0.2.10:5555")   // the caller
	there   = netip.MustParseAddrPort("203.0.113.20:5555") // the listener
	nat     = netip.MustParseAddrPort("198.51.100.7:40001")
	rebound = netip.MustParseAddrPort("198.51.100.7:40002")
	other   = netip.MustParseAddrPort("[2001:db8::bad]:9")
	begun   = time.Date(2026, 11, 30, 12, 0, 0, 123456789, time.UTC)
)

func key(t testing.TB, secret []byte) *Key {
	t.Helper()
	k, err := NewKey(secret)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// network is a caller, a listener and a network between them, with clocks of their own.
type network struct {
	t        *testing.T
	now      time.Time // the listener's clock
	ahead    time.Duration
	caller   *Caller
	listener *Listener
	source   netip.AddrPort // of the caller's packets, as the listener receives them
	hellos   [][]byte       // all that were sent
	answers  [][]byte
	log      []string // outcomes at the listener and the caller
	told     Answer   // the last one
}

func newNetwork(t *testing.T) *network {
	n := &network{t: t, now: begun, caller: NewCaller(key(t, secret), 25*time.Second), source: nat}
	n.restart()
	return n
}

// talked returns a network after the first contact, and the next hello of the caller, which is
// due now.
func talked(t *testing.T) (*network, []byte) {
	t.Helper()
	n := newNetwork(t)
	n.talk()
	n.expect(first, nat)
	n.now = n.now.Add(25 * time.Second)
	hello, _ := n.caller.Next(n.now)
	return n, hello
}

// restart starts the listener again.
func (n *network) restart() {
	n.t.Helper()
	n.listener = NewListener(n.now)
	if err := n.listener.Add("b", key(n.t, secret)); err != nil {
		n.t.Fatal(err)
	}
}

// deliver passes a message to the listener, and returns its answer.
func (n *network) deliver(from netip.AddrPort, b []byte) []byte {
	n.t.Helper()
	e := n.listener.Receive(header.Outer{From: from, At: there}, b, n.now)
	word := e.Outcome.String()
	if e.Moved {
		word += "+moved"
	}
	n.log = append(n.log, word)
	send, _, _ := n.listener.Next(n.now)
	switch {
	case len(send) == 0:
		return nil
	case len(send) > 1, send[0].From != there, send[0].To != from, len(send[0].Bytes) > len(b):
		n.t.Fatalf("answers %+v to a message of %d bytes from %v", send, len(b), from)
	}
	n.answers = append(n.answers, send[0].Bytes)
	return send[0].Bytes
}

// talk lets the caller send what is due, until nothing is.
func (n *network) talk() {
	n.t.Helper()
	for range 20 {
		hello, _ := n.caller.Next(n.now.Add(n.ahead))
		if hello == nil {
			return
		}
		n.hellos = append(n.hellos, hello)
		if answer := n.deliver(n.source, hello); answer != nil {
			n.told = n.caller.Receive(header.Outer{From: there, At: here}, answer, n.now.Add(n.ahead))
			n.log[len(n.log)-1] += ">" + n.told.Outcome.String()
		}
	}
	n.t.Fatal("it does not end:", n.log)
}

// run lets time pass.
func (n *network) run(d time.Duration) {
	n.t.Helper()
	for end := n.now.Add(d); n.now.Before(end); n.now = n.now.Add(100 * time.Millisecond) {
		n.talk()
		n.listener.Next(n.now)
	}
}

// expect compares the log since the last call, and the endpoint.
func (n *network) expect(log string, endpoint netip.AddrPort) {
	n.t.Helper()
	if got := strings.Join(n.log, " "); got != log {
		n.t.Errorf("%s, want %s", got, log)
	}
	if got := n.listener.Endpoint("b"); got != endpoint {
		n.t.Errorf("the endpoint is %v, want %v", got, endpoint)
	}
	n.log = nil
}

// latest returns a copy of the last hello.
func (n *network) latest() []byte { return bytes.Clone(n.hellos[len(n.hellos)-1]) }

const (
	first = "challenged>challenged accepted+moved>accepted"
	again = "accepted>accepted"
)

func TestSteady(t *testing.T) {
	n := newNetwork(t)
	n.talk()
	n.expect(first, nat)
	if n.told.Seen != nat || !n.told.NAT || n.told.Ahead != 0 || n.told.RTT != 0 {
		t.Errorf("%+v", n.told)
	}
	n.run(76 * time.Second)
	n.expect(again+" "+again+" "+again, nat)
}

func TestWithoutNAT(t *testing.T) {
	n := newNetwork(t)
	n.source = here
	n.talk()
	n.expect(first, here)
	if n.told.Seen != here || n.told.NAT {
		t.Errorf("%+v", n.told)
	}
	n.source = netip.MustParseAddrPort("192.0.2.10:1024") // only the port is another
	n.run(26 * time.Second)
	if !n.told.NAT {
		t.Errorf("%+v", n.told)
	}
}

// A NAT that gives the caller another port costs one challenge, at the next hello.
func TestRebind(t *testing.T) {
	n := newNetwork(t)
	n.talk()
	n.expect(first, nat)
	n.source = rebound
	n.run(24 * time.Second)
	n.expect("", nat)
	n.run(2 * time.Second)
	n.expect(first, rebound)
	n.source = nat // and back, with a new cookie each time
	n.caller.Wake(n.now)
	n.talk()
	n.expect(first, nat)
}

// After a move Wake causes a hello at once, but not many.
func TestWake(t *testing.T) {
	n := newNetwork(t)
	n.talk()
	n.expect(first, nat)
	n.run(10 * time.Second)
	n.source = other
	n.caller.Wake(n.now)
	n.talk()
	n.expect(first, other)
	for range 1000 {
		n.caller.Wake(n.now)
		n.talk()
	}
	n.expect("", other)
	n.run(300 * time.Millisecond)
	n.expect(again, other)
}

// A copy of a hello, at once or later, from another address or from the same, moves nothing.
func TestReplay(t *testing.T) {
	n := newNetwork(t)
	n.talk()
	n.run(26 * time.Second)
	n.log = nil
	for _, hello := range n.hellos {
		for _, from := range []netip.AddrPort{other, nat, rebound} {
			n.now = n.now.Add(2 * time.Second)
			n.deliver(from, hello)
		}
	}
	n.expect(strings.TrimSpace(strings.Repeat("stale ", 9)), nat)
	n.now = n.now.Add(50 * time.Second)
	n.deliver(other, n.hellos[0])
	n.expect("clock", nat)
}

// Copies of one hello cause at most one answer in a second.
func TestReplayIsLimited(t *testing.T) {
	n := newNetwork(t)
	n.talk()
	for _, late := range []time.Duration{0, time.Hour} {
		n.now = n.now.Add(late)
		n.answers = nil
		for range 1000 {
			n.deliver(other, n.latest())
			n.now = n.now.Add(10 * time.Millisecond)
		}
		if len(n.answers) != 10 {
			t.Errorf("%d answers in 10 s", len(n.answers))
		}
	}
}

// Somebody is faster with a copy from another address than the original is: the copy gets a
// challenge, which is of no use to him, and the original is accepted.
func TestOvertaken(t *testing.T) {
	n, hello := talked(t)
	challenge := n.deliver(other, hello)
	n.expect("challenged", nat)

	forged := bytes.Clone(hello)
	copy(forged[atCookie:atListenersTime], challenge[atCookie:])
	n.deliver(other, forged)
	n.expect("forged", nat)

	n.deliver(nat, hello)
	n.expect("accepted", nat)
	n.deliver(other, hello)
	n.expect("stale", nat)
}

// A hello that was held back and arrives after the caller has moved moves nothing.
func TestDelayed(t *testing.T) {
	n, held := talked(t)
	n.source = rebound
	n.run(2 * time.Second)
	n.log = nil
	for _, late := range []time.Duration{0, 30 * time.Second, 61500 * time.Millisecond} {
		n.now = n.now.Add(late)
		n.deliver(nat, held)
	}
	n.expect("stale stale clock", rebound)
}

// After the listener's restart, copies of hellos of before are only challenged, and the
// caller is known again after its next hello.
func TestRestart(t *testing.T) {
	n := newNetwork(t)
	n.talk()
	n.run(5 * time.Second)
	n.log = nil
	n.restart()
	for _, hello := range n.hellos {
		n.deliver(nat, hello)
		n.deliver(other, hello)
	}
	n.expect("challenged challenged challenged challenged", netip.AddrPort{})
	n.run(21 * time.Second)
	n.expect(first, nat)
	n.deliver(other, n.hellos[0])
	n.expect("stale", nat)
}

// A restart of the caller needs nothing but a clock that did not go back.
func TestCallerRestarts(t *testing.T) {
	n := newNetwork(t)
	n.talk()
	n.log = nil
	n.now = n.now.Add(time.Second)
	n.caller = NewCaller(key(t, secret), 25*time.Second)
	n.source = rebound
	n.talk()
	n.expect(first, rebound)
}

func TestClocks(t *testing.T) {
	for _, c := range []struct {
		ahead time.Duration // of the caller's clock
		log   string
	}{
		{0, first},
		{80 * time.Second, first},
		{-80 * time.Second, first},
		{100 * time.Second, "clock>clock accepted+moved>accepted"},
		{-100 * time.Second, "clock>clock accepted+moved>accepted"},
		{5 * time.Hour, "clock>clock accepted+moved>accepted"},
		{-begun.Sub(time.Unix(12, 0)), "clock>clock accepted+moved>accepted"}, // no clock that survives a restart
		{200 * 365 * 24 * time.Hour, "clock>clock accepted+moved>accepted"},
	} {
		t.Run(fmt.Sprint(c.ahead), func(t *testing.T) {
			n := newNetwork(t)
			n.ahead = c.ahead
			n.talk()
			n.expect(c.log, nat)
			if n.told.Ahead != -c.ahead {
				t.Errorf("%+v", n.told)
			}
			n.run(51 * time.Second)
			n.expect(again+" "+again, nat)
		})
	}
}

// The listener reports the difference, too.
func TestAheadAtListener(t *testing.T) {
	n := newNetwork(t)
	hello, _ := n.caller.Next(n.now.Add(-time.Hour))
	if e := n.listener.Receive(header.Outer{From: nat, At: there}, hello, n.now); e.Outcome != Clock || e.Ahead != -time.Hour || e.Peer != "b" {
		t.Errorf("%+v", e)
	}
}

// A clock that is set back or forward while both run.
func TestClockIsSet(t *testing.T) {
	for _, by := range []time.Duration{-time.Second, -80 * time.Second, -time.Hour, 80 * time.Second, time.Hour} {
		t.Run("caller "+by.String(), func(t *testing.T) {
			n := newNetwork(t)
			n.run(time.Second)
			n.log = nil
			n.ahead = by
			n.source = rebound
			n.run(30 * time.Second)
			if got := n.listener.Endpoint("b"); got != rebound {
				t.Errorf("%v, %v", got, n.log)
			}
		})
		t.Run("listener "+by.String(), func(t *testing.T) {
			n := newNetwork(t)
			n.run(time.Second)
			n.now, n.ahead, n.log = n.now.Add(by), -by, nil
			n.source = rebound
			n.run(Window + 30*time.Second) // the last stamp may be in the future for so long
			if got := n.listener.Endpoint("b"); got != rebound {
				t.Errorf("%v, %v", got, n.log)
			}
		})
	}
	t.Run("caller restarts with a clock that was set back", func(t *testing.T) {
		n := newNetwork(t)
		n.ahead = 20 * time.Second
		n.run(time.Second)
		n.log, n.ahead = nil, -10*time.Second
		n.source = rebound
		n.caller = NewCaller(key(t, secret), 25*time.Second)
		n.talk()
		n.expect("stale>stale accepted+moved>accepted", rebound)
	})
}
