package tsp_test

import (
	"fmt"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sixfour/transport/access"
)

// populate attaches clients to a server, without dialogues. Heap is what one costs, with what the
// test keeps of it.
func populate(b *testing.B, clients int) (receive func(i int, packet []byte), first *attached, heap float64) {
	a := newAuthority()
	a.add("client", "secret")
	s := serve(b, a, nil)
	at := s.Local()
	from := func(i int) netip.AddrPort {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 40000)
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	all := make([]*attached, clients)
	for i := range clients {
		all[i] = &attached{authority: a, account: a.accounts["client"]}
		all[i].discard.Store(true)
		s.Attach(all[i], access.Attachment{From: from(i), At: at})
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	heap = float64(after.HeapAlloc-before.HeapAlloc) / float64(clients)
	return func(i int, packet []byte) { s.Datagram(packet, from(i%clients), at) }, all[0], heap
}

// A packet of one of many clients costs what one of few costs.
func BenchmarkReceive(b *testing.B) {
	for _, clients := range []int{1, 20000} {
		b.Run(fmt.Sprint(clients), func(b *testing.B) {
			receive, c, heap := populate(b, clients)
			p := packet(c.account.Endpoint.Client, netip.MustParseAddr("2001:db8::5"), 17, make([]byte, 1000))
			b.ReportAllocs()
			i, began := 0, cpu()
			for b.Loop() {
				receive(i, p)
				i += 7919
			}
			b.ReportMetric(heap, "heap-B/client")
			b.ReportMetric(float64(cpu()-began)/float64(b.N), "cpu-ns/op") // without what other programs take
		})
	}
}

// cpu returns how long the process has run on processors.
func cpu() time.Duration {
	var r unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &r) // never fails
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}
