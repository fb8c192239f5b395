package resolve

import (
	"fmt"
	"net/netip"
	"sync"
	"testing"

	"sixfour/encap/drop"
)

// clientPrefix returns one of many prefixes of /64.
func clientPrefix(i int) netip.Prefix {
	return netip.PrefixFrom(netip.MustParseAddr(fmt.Sprintf("2001:db8:%x:%x::", 0x100+i>>16, i&0xffff)), 64)
}

func endpointOf(i int) netip.Addr {
	return netip.MustParseAddr(fmt.Sprintf("2001:db8:ff:%x::2", i))
}

func clientPacket(src, dst string) []byte {
	b := make([]byte, 40)
	b[0], b[6], b[7] = 0x60, 59, 64
	s, d := netip.MustParseAddr(src).As16(), netip.MustParseAddr(dst).As16()
	copy(b[8:], s[:])
	copy(b[24:], d[:])
	return b
}

func TestClients(t *testing.T) {
	if _, err := (Clients{}).Resolver(Site{}); err == nil {
		t.Error("a resolver without a table")
	}
	table := NewClientTable()
	r, err := Clients{table}.Resolver(Site{})
	if err != nil {
		t.Fatal(err)
	}
	if again, _ := (Clients{table}).Resolver(Site{Strict: true}); again != r {
		t.Error("at another site the resolver is another one")
	}
	a, err := table.Add(clientPrefix(1), endpointOf(1), "a")
	if err != nil {
		t.Fatal(err)
	}
	b, err := table.Add(netip.MustParsePrefix("2001:db8:200::/48"), netip.Addr{}, "b")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		prefix   netip.Prefix
		endpoint netip.Addr
	}{
		{clientPrefix(1), endpointOf(2)}, {clientPrefix(2), endpointOf(1)}, {netip.MustParsePrefix("192.0.2.0/24"), netip.Addr{}}, {netip.Prefix{}, netip.Addr{}},
	} {
		if _, err := table.Add(c.prefix, c.endpoint, nil); err == nil {
			t.Errorf("%v, %v is another client's", c.prefix, c.endpoint)
		}
	}
	for _, c := range []struct {
		dst  string
		want *TableClient
	}{
		{"2001:db8:100:1::1", a}, {"2001:db8:100:1:ffff::", a}, {"2001:db8:ff:1::2", a}, {"2001:db8:200:ffff::1", b},
		{"2001:db8:ff:1::1", nil}, {"2001:db8:100:2::1", nil}, {"ff02::1", nil}, {"::", nil},
	} {
		to, r := r.To(clientPacket("2001:db8::1", c.dst))
		switch {
		case c.want == nil && r != drop.NoPeer:
			t.Errorf("%s goes to %v, %v", c.dst, to.Addr(), r)
		case c.want != nil && (r != drop.None || to.IPv4() != c.want.Handle || !ClientHandles.Contains(to.Addr())):
			t.Errorf("%s goes to %v, %v, want %x", c.dst, to.Addr(), r, c.want.Handle)
		}
	}
	for _, c := range []struct {
		from     uint32
		src, dst string
		want     drop.Reason
	}{
		{a.Handle, "2001:db8:100:1::1", "2001:db8::1", drop.None},
		{a.Handle, "2001:db8:ff:1::2", "2001:db8::1", drop.None},
		{a.Handle, "2001:db8:200::1", "2001:db8::1", drop.Spoof},
		{a.Handle, "2001:db8:100:1::1", "2001:db8:100:1::2", drop.Loop},
		{a.Handle, "fe80::1", "2001:db8::1", drop.Martian},
		{b.Handle, "2001:db8:200:1::1", "2001:db8::1", drop.None},
		{b.Handle, "::", "2001:db8::1", drop.Spoof},
		{b.Handle + 1, "2001:db8:200:1::1", "2001:db8::1", drop.ForeignSource},
		{0xffffffff, "2001:db8:200:1::1", "2001:db8::1", drop.ForeignSource},
		{0, "2001:db8:200:1::1", "2001:db8::1", drop.ForeignSource},
	} {
		if got := r.From(Endpoint4(c.from), Endpoint{}, clientPacket(c.src, c.dst)); got != c.want {
			t.Errorf("%s to %s from %x: %v, want %v", c.src, c.dst, c.from, got, c.want)
		}
	}
	table.Remove(a)
	table.Remove(a)
	if _, why := r.To(clientPacket("2001:db8::1", "2001:db8:100:1::1")); why != drop.NoPeer || table.At(a.Handle) != nil {
		t.Error("a client that was removed is there")
	}
	if next, err := table.Add(clientPrefix(1), endpointOf(1), nil); err != nil || next.Handle == a.Handle {
		t.Errorf("the handle of a client that has just left is used again: %v, %v", next, err)
	}
}

// Handles are used again, so that a table with few clients stays small however often they come
// and go.
func TestClientHandles(t *testing.T) {
	table, seen := NewClientTable(), map[uint32]bool{}
	for range 10 * restHandles {
		c, err := table.Add(clientPrefix(1), netip.Addr{}, nil)
		if err != nil {
			t.Fatal(err)
		}
		seen[c.Handle] = true
		table.Remove(c)
	}
	if len(seen) > restHandles+2 {
		t.Errorf("%d handles", len(seen))
	}
}

// Readers see a client as it was or as it is, while others come and go.
func TestClientsConcurrent(t *testing.T) {
	table := NewClientTable()
	r, _ := Clients{table}.Resolver(Site{})
	stays, err := table.Add(clientPrefix(0), netip.Addr{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	var readers, writers sync.WaitGroup
	for range 2 {
		readers.Go(func() {
			pkt, back := clientPacket("2001:db8::1", "2001:db8:100::1"), clientPacket("2001:db8:100::1", "2001:db8::1")
			for {
				select {
				case <-stop:
					return
				default:
				}
				if to, why := r.To(pkt); why != drop.None || to.IPv4() != stays.Handle {
					t.Errorf("%v, %v", to.Addr(), why)
					return
				}
				if why := r.From(Endpoint4(stays.Handle), Endpoint{}, back); why != drop.None {
					t.Error(why)
					return
				}
			}
		})
	}
	for w := range 4 {
		writers.Go(func() {
			for i := range 2000 {
				c, err := table.Add(clientPrefix(1+w*2000+i), netip.Addr{}, nil)
				if err != nil {
					t.Error(err)
					return
				}
				if i%2 == 0 {
					table.Remove(c)
				}
			}
		})
	}
	writers.Wait()
	close(stop)
	readers.Wait()
}

func TestClientsNoAllocs(t *testing.T) {
	table := NewClientTable()
	r, _ := Clients{table}.Resolver(Site{})
	c, _ := table.Add(clientPrefix(7), netip.Addr{}, nil)
	pkt, back := clientPacket("2001:db8::1", "2001:db8:100:7::1"), clientPacket("2001:db8:100:7::1", "2001:db8::1")
	if n := testing.AllocsPerRun(1000, func() {
		r.To(pkt)
		r.From(Endpoint4(c.Handle), Endpoint{}, back)
	}); n != 0 {
		t.Errorf("%v allocations for a packet in each direction", n)
	}
}

func BenchmarkClients(b *testing.B) {
	for _, n := range []int{1, 20_000, 100_000} {
		table := NewClientTable()
		all := make([]*TableClient, n)
		for i := range all {
			var err error
			if all[i], err = table.Add(clientPrefix(i), netip.Addr{}, nil); err != nil {
				b.Fatal(err)
			}
		}
		r, _ := Clients{table}.Resolver(Site{})
		pkts := make([][]byte, min(n, 1024)) // that the caches hold, so that the table is measured
		for i := range pkts {
			a := all[i*(n/len(pkts))].Prefix.Addr().Next()
			pkts[i] = clientPacket(a.String(), a.String())
		}
		b.Run(fmt.Sprintf("to/%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for i := range b.N {
				r.To(pkts[i%len(pkts)])
			}
		})
		b.Run(fmt.Sprintf("from/%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for i := range b.N {
				r.From(Endpoint4(all[i%len(pkts)*(n/len(pkts))].Handle), Endpoint{}, pkts[i%len(pkts)])
			}
		})
		b.Run(fmt.Sprintf("change/%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for range b.N {
				c, err := table.Add(clientPrefix(n+1), netip.Addr{}, nil)
				if err != nil {
					b.Fatal(err)
				}
				table.Remove(c)
			}
		})
	}
}
