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

// Hellos without an answer are repeated with growing pauses, and an answer may be late.
func TestRetries(t *testing.T) {
	c := NewCaller(key(t, secret), 2*time.Minute)
	var pauses []time.Duration
	now, last := begun, begun
	var hellos [][]byte
	for range 10 {
		hello, next := c.Next(now)
		if hello == nil {
			t.Fatal("nothing at the time that Next returned")
		}
		if b, n := c.Next(now); b != nil || n != next {
			t.Fatal("a second hello at the same time")
		}
		hellos = append(hellos, hello)
		pauses = append(pauses, next.Sub(last))
		now, last = next, next
	}
	if got := fmt.Sprint(pauses); got != "[1s 2s 4s 8s 16s 30s 30s 30s 30s 30s]" {
		t.Error(got)
	}
	answer := func(i int) []byte {
		l := NewListener(begun)
		if err := l.Add("b", key(t, secret)); err != nil {
			t.Fatal(err)
		}
		l.Receive(header.Outer{From: nat, At: there}, hellos[i], readTime(stampOf(hellos[i]).seconds, 0))
		send, _, _ := l.Next(now)
		return send[0].Bytes
	}
	if a := c.Receive(header.Outer{From: there, At: here}, answer(5), now); a.Outcome != Unasked { // too old
		t.Errorf("%+v", a)
	}
	late := answer(7)
	if a := c.Receive(header.Outer{From: there, At: here}, late, now); a.Outcome != Challenged || a.RTT != now.Sub(begun.Add(91*time.Second)) {
		t.Errorf("%+v", a)
	}
	for _, b := range [][]byte{late, answer(9)} { // a copy; and the answer to a hello without the cookie that is known now
		if a := c.Receive(header.Outer{From: there, At: here}, b, now); a.Outcome != Unasked {
			t.Errorf("%+v", a)
		}
	}
}

// A NAT with another port for each packet does not make the caller send without a pause.
func TestEverAnotherPort(t *testing.T) {
	n := newNetwork(t)
	for i := range 600 {
		n.source = netip.AddrPortFrom(nat.Addr(), uint16(1000+i))
		hello, _ := n.caller.Next(n.now)
		if hello != nil {
			n.hellos = append(n.hellos, hello)
			n.caller.Receive(header.Outer{From: there, At: here}, n.deliver(n.source, hello), n.now)
		}
		n.now = n.now.Add(10 * time.Millisecond)
	}
	if len(n.hellos) > 8 || n.listener.Endpoint("b").IsValid() {
		t.Errorf("%d hellos in 6 s, endpoint %v", len(n.hellos), n.listener.Endpoint("b"))
	}
}

func TestExpiry(t *testing.T) {
	n := newNetwork(t)
	if err := n.listener.Add("c", key(t, []byte("another secret of c"))); err != nil {
		t.Fatal(err)
	}
	n.talk()
	_, expired, next := n.listener.Next(n.now)
	if len(expired) > 0 || next != n.now.Add(100*time.Second) {
		t.Errorf("%v, %v", expired, next)
	}
	n.now = n.now.Add(50 * time.Second)
	n.talk()
	if _, expired, next = n.listener.Next(n.now.Add(50 * time.Second)); len(expired) > 0 || next != n.now.Add(100*time.Second) {
		t.Errorf("%v, %v", expired, next)
	}
	if _, expired, next = n.listener.Next(n.now.Add(100 * time.Second)); fmt.Sprint(expired) != "[b]" || !next.IsZero() {
		t.Errorf("%v, %v", expired, next)
	}
	if a := n.listener.Endpoint("b"); a.IsValid() {
		t.Error(a)
	}
}

// Lifetimes beyond the limits are not believed.
func TestLifetimes(t *testing.T) {
	for interval, want := range map[time.Duration]time.Duration{0: 10 * time.Second, time.Second: 10 * time.Second, time.Minute: 4 * time.Minute, 24 * time.Hour: time.Hour} {
		n := newNetwork(t)
		n.caller = NewCaller(key(t, secret), interval)
		n.talk()
		if _, _, next := n.listener.Next(n.now); next != n.now.Add(want) {
			t.Errorf("interval %v: the endpoint expires after %v", interval, next.Sub(n.now))
		}
	}
}

// Several peers at one port, also behind one NAT.
func TestPeers(t *testing.T) {
	l := NewListener(begun)
	callers := map[string]*Caller{}
	for i := range 100 {
		name, secret := fmt.Sprint("peer", i), fmt.Append(nil, "the secret of peer ", i)
		if err := l.Add(name, key(t, secret)); err != nil {
			t.Fatal(err)
		}
		callers[name] = NewCaller(key(t, secret), time.Minute)
	}
	source := map[string]netip.AddrPort{}
	for range 2 {
		at := map[netip.AddrPort]*Caller{}
		for name, c := range callers {
			if !source[name].IsValid() {
				source[name] = netip.AddrPortFrom(nat.Addr(), uint16(2000+len(source)))
			}
			hello, _ := c.Next(begun)
			at[source[name]] = c
			if e := l.Receive(header.Outer{From: source[name], At: there}, hello, begun); e.Peer != name {
				t.Fatalf("%s is %+v", name, e)
			}
		}
		send, _, _ := l.Next(begun)
		if len(send) != len(callers) {
			t.Fatalf("%d answers", len(send))
		}
		for _, m := range send {
			at[m.To].Receive(header.Outer{From: there, At: here}, m.Bytes, begun)
		}
	}
	for name := range callers {
		if got := l.Endpoint(name); got != source[name] {
			t.Errorf("%s is at %v, not %v", name, got, source[name])
		}
	}
	l.Remove("peer7")
	l.Remove("nobody")
	if a := l.Endpoint("peer7"); a.IsValid() {
		t.Error(a)
	}
}

func TestAdd(t *testing.T) {
	l := NewListener(begun)
	for _, c := range []struct{ name, secret, want string }{
		{"a", "0123456789abcdef", ""},
		{"a", "0123456789abcdeX", "there already is a peer a"},
		{"b", "0123456789abcdef", "peers a and b have the same secret: give each peer its own"},
		{"b", "0123456789abcdeX", ""},
	} {
		got := ""
		if err := l.Add(c.name, key(t, []byte(c.secret))); err != nil {
			got = err.Error()
		}
		if got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
	l.Remove("a")
	if err := l.Add("c", key(t, []byte("0123456789abcdef"))); err != nil {
		t.Error(err)
	}
	if _, err := NewKey([]byte("0123456789abcde")); err == nil || !strings.HasPrefix(err.Error(), "the secret has 15 bytes: use at least 16") {
		t.Error(err)
	}
}

// A peer that is removed gets no answer any more, and one that is added instead is not told
// what was for the former.
func TestRemovedWithAnswer(t *testing.T) {
	n := newNetwork(t)
	hello, _ := n.caller.Next(n.now)
	n.listener.Receive(header.Outer{From: nat, At: there}, hello, n.now)
	n.listener.Remove("b")
	if send, _, _ := n.listener.Next(n.now); len(send) > 0 {
		t.Errorf("%+v", send)
	}
	if e := n.listener.Receive(header.Outer{From: nat, At: there}, hello, n.now); e.Outcome != Stranger {
		t.Errorf("%+v", e)
	}
}

// The answer that accepts a hello is not replaced by one to a copy before it is sent.
func TestPending(t *testing.T) {
	n, hello := talked(t)
	for _, from := range []netip.AddrPort{other, nat, rebound, other} {
		n.listener.Receive(header.Outer{From: from, At: there}, hello, n.now)
	}
	send, _, _ := n.listener.Next(n.now)
	if len(send) != 1 || send[0].To != nat || Outcome(send[0].Bytes[atOutcome]) != Accepted {
		t.Errorf("%+v", send)
	}
}

// Each message that is damaged in any byte is refused, and nothing changes.
func TestDamaged(t *testing.T) {
	n, hello := talked(t)
	answers := len(n.answers)
	for i := range hello {
		for bit := range 8 {
			b := bytes.Clone(hello)
			b[i] ^= 1 << bit
			n.deliver(other, b)
		}
		n.deliver(other, hello[:i])
	}
	n.deliver(other, append(bytes.Clone(hello), 0))
	if len(n.answers) != answers || n.listener.Endpoint("b") != nat {
		t.Errorf("%d answers, endpoint %v", len(n.answers)-answers, n.listener.Endpoint("b"))
	}
	// One bit of the mark, of the version, of the type; the identifier; the rest. And each
	// length but the right one: the first two have no mark.
	counts := n.listener.Counts()
	want := [Outcomes]uint64{Accepted: 1, Challenged: 1, Malformed: 8 + 3 + 8 + 97, Version: 5, Stranger: 64, Forged: 8 * (96 - 1 - 1 - 1 - 8)}
	if counts != want {
		t.Errorf("%v, want %v", counts, want)
	}
	n.deliver(nat, hello)

	answer := n.answers[len(n.answers)-1]
	for i := range answer {
		for bit := range 8 {
			b := bytes.Clone(answer)
			b[i] ^= 1 << bit
			if a := n.caller.Receive(header.Outer{From: there, At: here}, b, n.now); a.Outcome <= Stale {
				t.Errorf("byte %d: %+v", i, a)
			}
		}
		if a := n.caller.Receive(header.Outer{From: there, At: here}, answer[:i], n.now); a.Outcome != Malformed {
			t.Errorf("%d bytes: %+v", i, a)
		}
	}
	// What one end sends is not accepted by an end of the same kind.
	if a := n.caller.Receive(header.Outer{From: there, At: here}, hello, n.now); a.Outcome != Malformed {
		t.Errorf("a hello: %+v", a)
	}
	if e := n.listener.Receive(header.Outer{From: nat, At: there}, answer, n.now); e.Outcome != Malformed {
		t.Errorf("an answer: %+v", e)
	}
	if a := n.caller.Receive(header.Outer{From: there, At: here}, answer, n.now); a.Outcome != Accepted {
		t.Errorf("the answer: %+v", a)
	}
}

// Messages are no tunnel packets, whatever the framing.
func TestMark(t *testing.T) {
	hello, _ := NewCaller(key(t, secret), time.Minute).Next(begun)
	switch {
	case !IsMessage(hello), len(hello) != Size:
		t.Errorf("%x", hello)
	case hello[0]>>4 == 4, hello[0]>>4 == 6:
		t.Error("it begins like an IP packet")
	case hello[0]>>6 < 2:
		t.Error("it begins like a GUE packet")
	case hello[1]&7 < 2:
		t.Error("it begins like a GRE packet")
	}
	for _, b := range [][]byte{nil, {mark}, {0x45, 0x0f}, {0x60, 0x0f}, {mark, 0}, {0x00, 0x07}} {
		if IsMessage(b) {
			t.Errorf("%x", b)
		}
	}
}

func TestWords(t *testing.T) {
	words := map[string]bool{}
	for o := range Outcomes {
		words[o.String()] = true
	}
	if len(words) != int(Outcomes) || words[""] || Outcomes.String() != "invalid" {
		t.Error(words)
	}
}

func TestNoAllocs(t *testing.T) {
	n := newNetwork(t)
	hello, _ := n.caller.Next(n.now)
	forged := bytes.Clone(hello)
	forged[Size-1]++
	stranger := bytes.Clone(hello)
	stranger[atID]++
	for name, b := range map[string][]byte{"stranger": stranger, "forged": forged, "short": hello[:50]} {
		if allocs := testing.AllocsPerRun(100, func() { n.listener.Receive(header.Outer{From: other, At: there}, b, n.now) }); allocs > 0 {
			t.Errorf("%s: %v allocations", name, allocs)
		}
	}
}
