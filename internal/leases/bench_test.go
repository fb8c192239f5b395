package leases

import (
	"context"
	"fmt"
	"net/netip"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"sixfour/internal/store"
	"sixfour/internal/store/etcd"
	"sixfour/internal/store/etcd/etcdtest"
)

// many is how many leases the benchmarks have.
const many = 100_000

// fill gives leases to many accounts, in transactions of the largest size.
func fill(b *testing.B, base *Base) {
	b.Helper()
	done := make(chan error)
	const clients = 4 * maxBatch
	for c := range clients {
		go func() {
			for i := c; i < many; i += clients {
				if _, err := base.Assign(context.Background(), fmt.Sprintf("client-%06d", i), 0); err != nil {
					done <- err
					return
				}
			}
			done <- nil
		}()
	}
	for range clients {
		if err := <-done; err != nil {
			b.Fatal(err)
		}
	}
}

// wide has room for many leases.
func wide(s store.Store) Config {
	c := config(s)
	c.Pool, c.Endpoints, c.Open = []netip.Prefix{prefix("2001:db8:100::/40")}, prefix("2001:db8:f0::/44"), true
	return c
}

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// BenchmarkOpen opens a store with 100,000 accounts and leases, from the file to the first
// answer, and reports how much memory they take.
func BenchmarkOpen(b *testing.B) {
	path := filepath.Join(b.TempDir(), "broker.db")
	s := bolt(b, path)
	base := base(b, wide(s))
	began := time.Now()
	fill(b, base)
	granted := many / time.Since(began).Seconds()
	base.Close()
	s.Close()
	b.ResetTimer()
	for range b.N {
		before := heap()
		s, err := store.OpenBolt(path)
		if err != nil {
			b.Fatal(err)
		}
		again, err := Open(context.Background(), wide(s))
		if err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		b.ReportMetric(float64(heap()-before)/many, "B/lease")
		b.ReportMetric(granted, "grants/s")
		if _, n, _ := again.Sizes(); n != many {
			b.Errorf("%d leases", n)
		}
		again.Close()
		s.Close()
		b.StartTimer()
	}
}

// BenchmarkAssign gives one lease after the other: each waits for the disk.
func BenchmarkAssign(b *testing.B) {
	base := base(b, wide(bolt(b, filepath.Join(b.TempDir(), "broker.db"))))
	b.ResetTimer()
	for i := range b.N {
		if _, err := base.Assign(context.Background(), fmt.Sprint(i), 0); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkKnown asks for leases that exist, as clients that connect again do.
func BenchmarkKnown(b *testing.B) {
	base := base(b, wide(bolt(b, filepath.Join(b.TempDir(), "broker.db"))))
	for i := range 1000 {
		if _, err := base.Assign(context.Background(), fmt.Sprint(i), 0); err != nil {
			b.Fatal(err)
		}
	}
	names := make([]string, 1000)
	for i := range names {
		names[i] = fmt.Sprint(i)
	}
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		if _, err := base.Assign(context.Background(), names[i%1000], 0); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkCluster gives leases, and says who has clients, through three members of etcd on
// this machine.
func BenchmarkCluster(b *testing.B) {
	c := etcdtest.New(b)
	s, err := etcd.Open(etcd.Config{Endpoints: c.Endpoints(), CA: c.CA, Cert: c.Cert, Key: c.Key, Dial: c.Dial(0)})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	base := base(b, wide(s))
	const n = 20_000
	for range b.N {
		began := time.Now()
		done := make(chan error)
		const clients = 4 * maxBatch
		for c := range clients {
			go func() {
				for i := c; i < n; i += clients {
					if _, err := base.Assign(context.Background(), fmt.Sprint(i), 0); err != nil {
						done <- err
						return
					}
				}
				done <- nil
			}()
		}
		for range clients {
			if err := <-done; err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(n/time.Since(began).Seconds(), "grants/s")
		began = time.Now()
		for i := range n {
			base.Hold(fmt.Sprint(i), "json", outer)
		}
		etcdtest.Until(b, "all clients to be known", func() bool {
			base.mu.RLock()
			defer base.mu.RUnlock()
			return len(base.holds.session) == 0 && base.view.revision >= base.holds.written && base.holds.written > 0
		})
		b.ReportMetric(n/time.Since(began).Seconds(), "holds/s")
	}
}

// BenchmarkTransactions makes transactions of one change at three members of etcd on this
// machine, from 100 clients at the same time.
func BenchmarkTransactions(b *testing.B) {
	c := etcdtest.New(b)
	s, err := etcd.Open(etcd.Config{Endpoints: c.Endpoints(), CA: c.CA, Cert: c.Cert, Key: c.Key, Dial: c.Dial(0)})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	b.SetParallelism(50)
	b.ResetTimer()
	b.RunParallel(func(p *testing.PB) {
		for p.Next() {
			if _, err := s.Commit(context.Background(), store.Txn{Put: []store.Put{{Key: "x", Value: []byte("y")}}}); err != nil {
				b.Error(err)
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "transactions/s")
}
