package rendezvous

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"sixfour/encap/header"
)

// exchange returns the messages of a first contact with fixed times, counter and key for
// cookies: hello, challenge, hello with the cookie, answer; and the same over IPv6, to a
// listener whose clock is an hour ahead.
func exchange(t testing.TB) (names []string, messages [][]byte) {
	for _, c := range []struct {
		name     string
		from, at netip.AddrPort
		ahead    time.Duration
	}{
		{"v4", nat, there, 40 * time.Millisecond},
		{"v6", netip.MustParseAddrPort("[2001:db8::10]:5555"), netip.MustParseAddrPort("[2001:db8::20]:6080"), time.Hour},
	} {
		caller, listener := NewCaller(key(t, secret), 25*time.Second), newListener(begun, bytes.Repeat([]byte{7}, 32))
		caller.counter = 0xfffffffe
		if err := listener.Add("b", key(t, secret)); err != nil {
			t.Fatal(err)
		}
		for _, step := range []string{"1", "2"} {
			hello, _ := caller.Next(begun)
			listener.Receive(header.Outer{From: c.from, At: c.at}, hello, begun.Add(c.ahead))
			send, _, _ := listener.Next(begun.Add(c.ahead))
			caller.Receive(header.Outer{From: c.at, At: here}, send[0].Bytes, begun)
			names = append(names, c.name+" hello "+step, c.name+" answer "+step)
			messages = append(messages, hello, send[0].Bytes)
		}
	}
	return names, messages
}

// TestVectors compares the messages with testdata/vectors.txt, which is computed by
// testdata/vectors.py, an implementation of its own.
func TestVectors(t *testing.T) {
	f, err := os.Open("testdata/vectors.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	want := map[string]string{}
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if name, value, ok := strings.Cut(lines.Text(), ": "); ok {
			want[name] = value
		}
	}
	names, messages := exchange(t)
	if len(names) != 8 || len(want) != 8 {
		t.Fatalf("%d messages, %d vectors", len(names), len(want))
	}
	for i, name := range names {
		if got := hex.EncodeToString(messages[i]); got != want[name] {
			t.Errorf("%s:\n%s, want\n%s", name, got, want[name])
		}
	}
}

// FuzzReceive passes any bytes to both ends: neither may panic, and no bytes but their own
// may be accepted.
func FuzzReceive(f *testing.F) {
	names, messages := exchange(f)
	for i := range names {
		f.Add(messages[i])
		f.Add(messages[i][:Size-1])
	}
	f.Add([]byte{mark, second})
	f.Fuzz(func(t *testing.T, b []byte) {
		listener := NewListener(begun)
		if err := listener.Add("b", key(t, secret)); err != nil {
			t.Fatal(err)
		}
		caller := NewCaller(key(t, secret), time.Minute)
		caller.Next(begun) // a hello without a cookie, which is not accepted either
		e := listener.Receive(header.Outer{From: other, At: there}, b, begun)
		if e.Outcome == Accepted || listener.Endpoint("b").IsValid() {
			t.Errorf("%x is a valid hello: %+v", b, e)
		}
		send, _, _ := listener.Next(begun)
		if len(send) > 1 || len(send) == 1 && len(send[0].Bytes) > len(b) {
			t.Errorf("%x is answered by %+v", b, send)
		}
		if a := caller.Receive(header.Outer{From: there, At: here}, b, begun); a.Outcome <= Stale {
			t.Errorf("%x is a valid answer: %+v", b, a)
		}
	})
}

// BenchmarkStranger is the cost of messages that are refused.
func BenchmarkStranger(b *testing.B) {
	_, messages := exchange(b)
	listener := NewListener(begun)
	if err := listener.Add("b", key(b, secret)); err != nil {
		b.Fatal(err)
	}
	unknown := bytes.Clone(messages[0])
	unknown[atID]++
	forged := bytes.Clone(messages[0])
	forged[Size-1]++
	for _, c := range []struct {
		name string
		b    []byte
	}{{"unknown", unknown}, {"forged", forged}} {
		b.Run(c.name, func(b *testing.B) {
			o := header.Outer{From: other, At: there}
			b.ReportAllocs()
			for b.Loop() {
				listener.Receive(o, c.b, begun)
			}
		})
	}
}
