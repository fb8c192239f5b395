package source

import (
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

func TestPeers(t *testing.T) {
	p, err := NewPeers([]Peer[string]{
		{"all", prefixes("0.0.0.0/0", "2001:db8::/32")},
		{"net", prefixes("10.1.0.0/16")},
		{"host", prefixes("10.1.2.3/32", "2001:db8:1::7/48")},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ src, dst, to string }{
		{"10.9.9.9", "8.8.8.8", "all"},
		{"8.8.8.8", "10.1.9.9", "net"},
		{"10.1.9.9", "10.1.2.3", "host"},
		{"2001:db8::1", "2001:db8:1:2::3", "host"},
		{"2001:db8:1::1", "2001:db8:2::3", "all"},
		{"2001:db8::1", "2001:db9::", ""},
	} {
		if got, ok := p.To(inner(c.src, c.dst)); got != c.to || ok != (c.to != "") {
			t.Errorf("to %s: %q, want %q", c.dst, got, c.to)
		}
		for _, peer := range []string{"all", "net", "host"} { // a source is allowed for the peer to which the answer goes
			if got := p.Allows(peer, inner(c.dst, c.src)); got != (peer == c.to) {
				t.Errorf("from %s by %s: %v", c.dst, peer, got)
			}
		}
	}
}

func TestPeersThatContradict(t *testing.T) {
	_, err := NewPeers([]Peer[int]{
		{1, prefixes("10.0.0.0/8", "10.0.0.1/8")},
		{2, prefixes("10.0.0.0/8", "10.0.0.0/16")},
	})
	if want := "10.0.0.0/8 is behind two peers"; err == nil || strings.Count(err.Error(), want) != 1 {
		t.Errorf("%v, want %q", err, want)
	}
}

// A table in which some peers are replaced is the one that has been made with all of them;
// the old table is as it was.
func TestReplace(t *testing.T) {
	before := []Peer[string]{{"a", prefixes("10.1.0.0/16")}, {"b", prefixes("10.2.0.0/16", "2001:db8:2::/48")}, {"c", prefixes("10.0.0.0/8")}}
	p, err := NewPeers(before)
	if err != nil {
		t.Fatal(err)
	}
	next, err := p.Replace([]Peer[string]{before[0], before[1]}, []Peer[string]{{"b", prefixes("10.1.0.0/16")}, {"d", prefixes("10.2.3.0/24")}})
	if err != nil {
		t.Fatal(err)
	}
	for dst, want := range map[string][2]string{
		"10.1.1.1": {"a", "b"}, "10.2.1.1": {"b", "c"}, "10.2.3.1": {"b", "d"}, "10.9.9.9": {"c", "c"}, "2001:db8:2::1": {"b", ""},
	} {
		src := "10.200.0.1"
		if strings.Contains(dst, ":") {
			src = "2001:db8::1"
		}
		was, _ := p.To(inner(src, dst))
		is, _ := next.To(inner(src, dst))
		if was != want[0] || is != want[1] {
			t.Errorf("%s: %q, then %q, want %q", dst, was, is, want)
		}
	}
	if _, err := next.Replace(nil, []Peer[string]{{"e", prefixes("10.2.3.0/24")}}); err == nil || !strings.Contains(err.Error(), "10.2.3.0/24 is behind two peers") {
		t.Errorf("two peers: %v", err)
	}
}

// BenchmarkReplace measures the change of one peer of many.
func BenchmarkReplace(b *testing.B) {
	for _, n := range []int{1000, 100_000} {
		list := make([]Peer[int], n)
		for i := range n {
			list[i] = Peer[int]{i, []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 32)}}
		}
		p, err := NewPeers(list)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				at := i * 7919 % n
				if p, err = p.Replace(list[at:at+1], list[at:at+1]); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// TestPeersReplaced replaces a table during lookups: each lookup uses one of the two.
func TestPeersReplaced(t *testing.T) {
	var table atomic.Pointer[Peers[int]]
	make := func(n int) *Peers[int] {
		p, err := NewPeers([]Peer[int]{
			{n, prefixes("10.0.0.0/8")},
			{-n, prefixes("10.0.0.0/16")},
		})
		if err != nil {
			t.Error(err)
		}
		return p
	}
	table.Store(make(1))
	var stop atomic.Bool
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for !stop.Load() {
				p := table.Load()
				wide, _ := p.To(inner("10.9.9.9", "10.1.0.0"))
				narrow, _ := p.To(inner("10.9.9.9", "10.0.0.1"))
				if wide <= 0 || narrow != -wide || !p.Allows(wide, inner("10.1.0.0", "10.9.9.9")) {
					t.Errorf("%d, %d", wide, narrow)
					return
				}
			}
		})
	}
	for n := range 2000 {
		table.Store(make(n + 1))
	}
	stop.Store(true)
	wg.Wait()
}
