package bench

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"

	"sixfour/encap/header"
	"sixfour/encap/source"
)

// peerTable returns n peers, each with a network of 256 addresses of its own, and
// packets between random ones of them.
func peerTable(tb testing.TB, n int) (*source.Peers[int32], [][]byte) {
	tb.Helper()
	r := rand.New(rand.NewPCG(1, uint64(n)))
	network := func(i int) uint32 { return 10<<24 + uint32(i)<<8 } // 10.0.0.0 and on
	list := make([]source.Peer[int32], n)
	for i := range list {
		var inside [4]byte
		binary.BigEndian.PutUint32(inside[:], network(i))
		list[i] = source.Peer[int32]{Peer: int32(i), Allowed: []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4(inside), 24)}}
	}
	p, err := source.NewPeers(list)
	if err != nil {
		tb.Fatal(err)
	}
	pkts := make([][]byte, 4096)
	for i := range pkts {
		b := make([]byte, header.IPv4Len)
		b[0] = 0x45
		binary.BigEndian.PutUint32(b[12:], network(r.IntN(n))+1)
		binary.BigEndian.PutUint32(b[16:], network(r.IntN(n))+1)
		pkts[i] = b
	}
	return p, pkts
}

// BenchmarkPeers measures the cost of finding the peer for a packet, and of checking
// that a packet may come from its peer.
func BenchmarkPeers(b *testing.B) {
	for _, n := range []int{1, 1000, 100_000} {
		p, pkts := peerTable(b, n)
		b.Run(fmt.Sprintf("to/%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if _, ok := p.To(pkts[i%len(pkts)]); !ok {
					b.Fatal("no peer")
				}
			}
		})
		b.Run(fmt.Sprintf("allows/%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				pkt := header.IPv4(pkts[i%len(pkts)])
				peer := int32(binary.BigEndian.Uint32(pkt.Source())>>8 - 10<<16)
				if !p.Allows(peer, pkt) {
					b.Fatal("not from its peer")
				}
			}
		})
	}
}

func TestPeersNoAllocs(t *testing.T) {
	p, pkts := peerTable(t, 1000)
	i := 0
	if n := testing.AllocsPerRun(1000, func() {
		i++
		pkt := pkts[i%len(pkts)]
		peer, _ := p.To(pkt)
		_ = p.Allows(peer, pkt)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
