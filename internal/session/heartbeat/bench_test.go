package heartbeat

import (
	"context"
	"fmt"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"sixfour/encap/drop"
	wire "sixfour/encap/heartbeat"
	"sixfour/transport/access"
)

// plain is an Authority that does nothing but find accounts.
type plain map[netip.Addr]access.Account

func (p plain) Named(string) (access.Account, error)                             { panic("not here") }
func (p plain) At(a netip.Addr) (access.Account, error)                          { return p[a], nil }
func (p plain) Refuse(_ string, _ netip.AddrPort, _ string, why *access.Refusal) { panic(why.Text) }
func (p plain) Allow(netip.Addr) bool                                            { return true }
func (p plain) Attach(context.Context, access.Account, access.Attachment) (access.Client, error) {
	return nothing{}, nil
}

type nothing struct{ access.Client }

func (nothing) Receive([]byte) drop.Reason { return drop.None }
func (nothing) Heard(_, _ netip.AddrPort)  {}
func (nothing) Leave(string)               {}

// BenchmarkClients measures a beat and a packet of one of several clients, and the memory of
// a client here, which the Authority does not count in.
func BenchmarkClients(b *testing.B) {
	for _, n := range []int{1, 20_000} {
		all := make(plain, n)
		now := begun
		s := newServer(Config{Authority: all, Local: netip.MustParseAddrPort("198.51.100.2:3740"), Now: func() time.Time { return now }})
		ends, outer := make([]netip.Addr, n), make([]netip.AddrPort, n)
		for i := range n {
			ends[i] = netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 5: byte(i >> 8), 6: byte(i), 15: 2})
			outer[i] = netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 4000)
			all[ends[i]] = access.Account{Name: "a", Secret: secret}
		}
		message := func(i int) []byte {
			return wire.Append(nil, wire.Message{Inner: ends[i], Epoch: now.Unix()}, secret, wire.MD5)
		}
		before := memory()
		for i := range n {
			s.handle(outer[i], message(i))
		}
		s.done.Wait()
		each := float64(memory()-before) / float64(n)
		b.Run(fmt.Sprintf("beat/%d", n), func(b *testing.B) {
			b.ReportAllocs()
			texts := make([][]byte, n)
			for i := range n {
				texts[i] = message(i)
			}
			for i := 0; b.Loop(); i++ {
				s.handle(outer[i%n], texts[i%n])
			}
			if n > 1 {
				b.ReportMetric(each, "B/client")
			}
		})
		p := packet(ends[0].String())
		b.Run(fmt.Sprintf("packet/%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if r := s.Receive(outer[i%n].Addr(), p); r != drop.None {
					b.Fatal(r)
				}
			}
		})
		s.Close()
	}
}

// memory returns the bytes in use.
func memory() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
