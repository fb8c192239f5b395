package ayiya

import (
	"encoding/binary"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"sixfour/encap/drop"
	"sixfour/encap/header"
	"sixfour/transport"
	"sixfour/transport/access"
)

// counter is a client of a broker that counts packets.
type counter struct {
	access.Client
	n atomic.Int64
}

func (c *counter) Receive([]byte) drop.Reason {
	c.n.Add(1)
	return drop.None
}

// window is how many packets are on their way at most, so that none is lost.
const window = 256

// Packets between a client's port and a server over the loopback device. An operation is a
// packet that has been received.
func BenchmarkThroughput(b *testing.B) {
	for _, size := range []int{100, 1360} {
		in := inner(internet, internet, string(make([]byte, size-header.IPv6Len)))
		b.Run(fmt.Sprintf("up/%d", size), func(b *testing.B) {
			c, s, session := pair(b)
			count := &counter{Client: session.client}
			session.member.mu.Lock()
			session.member.client = count
			session.member.mu.Unlock()
			pkts := make([]transport.Packet, transport.BatchSize)
			for i := range pkts {
				pkts[i] = transport.Packet{Head: c.packet(s.Local(), in)}
			}
			var number uint64
			run(b, size, count.n.Load, func(n int) int {
				n = min(n, len(pkts))
				for i := range n { // no two are equal
					number++
					binary.BigEndian.PutUint64(pkts[i].Head[28+header.IPv6Len:], number)
				}
				sent, err := c.tx.Send(pkts[:n])
				must(b, err)
				return sent
			})
		})
		b.Run(fmt.Sprintf("down/%d", size), func(b *testing.B) {
			c, _, session := pair(b)
			var got atomic.Int64
			go func() {
				for range c.got {
					got.Add(1)
				}
			}()
			var number uint64
			run(b, size, got.Load, func(n int) int {
				for i := range n {
					number++
					binary.BigEndian.PutUint64(in[header.IPv6Len:], number)
					if session.Send(in) != nil {
						return i
					}
				}
				return n
			})
		})
	}
}

// pair returns a client's port that is connected to a server, and its session there.
func pair(b *testing.B) (*client, *Server, *session) {
	auth := newBroker(2)
	auth.quiet = true
	s := serve(b, ServerConfig{Authority: auth, Shards: 1})
	c := connect(b, 1, s.Local(), usualTiming)
	c.expect(b, "up 1")
	id := endpoint(1).Client.As16()
	return c, s, s.members.find(&id).attached()
}

// run sends packets until b.N have arrived.
func run(b *testing.B, size int, got func() int64, send func(n int) int) {
	b.SetBytes(int64(size))
	b.ReportAllocs()
	b.ResetTimer()
	var sent int64
	for end := time.Now().Add(10 * time.Second); got() < int64(b.N); {
		if n := min(window-(sent-got()), int64(b.N)-sent); n > 0 {
			sent += int64(send(int(n)))
		} else if time.Now().After(end) {
			b.Fatalf("%d of %d packets have arrived", got(), sent)
		}
	}
}
