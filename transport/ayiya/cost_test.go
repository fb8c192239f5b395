package ayiya

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"sixfour/encap/ayiya"
	"sixfour/encap/header"
	"sixfour/transport"
)

// many is how many clients a server must be able to have.
const many = 20000

// crowd is a server with clients, and packets of theirs. The addresses of the clients do not
// exist.
type crowd struct {
	*Server
	broker *broker
	packs  [][]byte
	outers []header.Outer
	used   int
}

// newCrowd attaches clients, and makes packets with inner packets of a size, from one client
// after another.
func newCrowd(t testing.TB, clients, packets, size int) *crowd {
	t.Helper()
	c := &crowd{broker: newBroker(clients)}
	c.broker.quiet = true
	c.Server = serve(t, ServerConfig{Authority: c.broker, Shards: 1})
	key := ayiya.NewKey(ayiya.SHA1, password)
	for n := range clients {
		beat := make([]byte, 44)
		id := ayiya.Identity(endpoint(n).Client)
		ayiya.Sign(beat, &ayiya.Header{Next: ayiya.NextNone, Epoch: ayiya.Epoch(time.Now()) - 1, Identity: id}, &key)
		for !c.arriving.look(&first{c.shards[0], beat, id, outerOf(n)}) {
			time.Sleep(time.Millisecond) // as many as may attach at a time do
			c.members.find(&id).recent = ayiya.Recent{}
		}
	}
	eventually(t, "all attachments", func() bool {
		for _, m := range c.members.all() {
			if m.attached() == nil {
				return false
			}
		}
		return true
	})
	for i := range packets {
		n := i % clients
		in := inner(endpoint(n).Client, internet, string(make([]byte, size-header.IPv6Len)))
		binary.BigEndian.PutUint64(in[header.IPv6Len:], uint64(i))
		b := append(make([]byte, 44), in...)
		ayiya.Sign(b, &ayiya.Header{Op: ayiya.Forward, Next: ayiya.NextIPv6, Epoch: ayiya.Epoch(time.Now()), Identity: ayiya.Identity(endpoint(n).Client)}, &key)
		c.packs = append(c.packs, b)
		c.outers = append(c.outers, outerOf(n))
	}
	return c
}

// outerOf returns the outer headers of packets of a client.
func outerOf(n int) header.Outer {
	a := netip.AddrFrom4([4]byte{198, 18, byte(n >> 8), byte(n)})
	return header.Outer{From: netip.AddrPortFrom(a, 40000), At: netip.MustParseAddrPort("127.0.0.1:5072"), TTL: 64}
}

// next gives the server another packet.
func (c *crowd) next(now time.Time) {
	if c.used == len(c.packs) {
		c.used = 0
	}
	c.arrived(c.shards[0], c.packs[c.used], &c.outers[c.used], now)
	c.used++
}

// forget makes all packets new again.
func (c *crowd) forget() {
	for _, m := range c.members.all() {
		m.recent = ayiya.Recent{}
	}
}

// A packet of a client costs the same with one client and with many: look it up, verify it,
// hand over what is inside.
func BenchmarkServer(b *testing.B) {
	for _, size := range []int{56, 1280} {
		for _, clients := range []int{1, many} {
			b.Run(fmt.Sprintf("receive/%d/%d", size, clients), func(b *testing.B) {
				c := newCrowd(b, clients, 2*many, size)
				now := time.Now()
				b.SetBytes(int64(size))
				b.ReportAllocs()
				for b.Loop() {
					if c.used == len(c.packs) {
						b.StopTimer()
						c.forget()
						now = time.Now()
						b.StartTimer()
					}
					c.next(now)
				}
			})
			b.Run(fmt.Sprintf("sign/%d/%d", size, clients), func(b *testing.B) {
				c := newCrowd(b, clients, 1, size)
				sessions := make([]*session, clients)
				for n := range sessions {
					id := ayiya.Identity(endpoint(n).Client)
					sessions[n] = c.members.find(&id).attached()
				}
				local := c.Local()
				in := inner(internet, internet, string(make([]byte, size-header.IPv6Len)))
				var p parcel
				h := ayiya.Header{Op: ayiya.Forward, Next: ayiya.NextIPv6}
				b.SetBytes(int64(size))
				b.ReportAllocs()
				for i := 0; b.Loop(); i++ {
					to := sessions[i%clients]
					p.put(in)
					h.Epoch, h.Identity = uint32(i), to.server
					at := to.member.at()
					o := outer(local, at.at, at.from)
					seal(p.b, &o, &h, &to.key, &c.shards[0].signer)
				}
			})
		}
	}
}

// What a client costs in memory, without what the broker needs for it.
func TestServerMemory(t *testing.T) {
	var before, after runtime.MemStats
	b := newBroker(many)
	b.quiet = true
	s := serve(t, ServerConfig{Authority: b, Shards: 1})
	runtime.GC()
	runtime.ReadMemStats(&before)
	var sessions []*session
	for n := range many {
		id := ayiya.Identity(endpoint(n).Client)
		at := outerOf(n)
		m := s.members.add(&id, place{at.From, at.At}, 0)
		of := &session{member: m, out: s.shards[0], key: ayiya.NewKey(ayiya.SHA1, password), account: "", server: id}
		of.begin(0)
		sessions = append(sessions, of)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	per := (after.HeapAlloc - before.HeapAlloc) / many
	t.Logf("%d bytes for each of %d clients", per, many)
	if per > 2048 {
		t.Errorf("%d bytes for each client", per)
	}
	for _, of := range sessions {
		of.end()
	}
}

// makeBuffers waits until no packet waits, and makes the buffers of those that will.
func makeBuffers(b *outbox) {
	for {
		b.mu.Lock()
		if b.n == 0 {
			for i := range b.in {
				b.in[i].put(make([]byte, usualLen-room))
			}
			b.mu.Unlock()
			return
		}
		b.mu.Unlock()
		time.Sleep(time.Millisecond)
	}
}

func TestServerNoAllocs(t *testing.T) {
	const runs = 1000
	c := newCrowd(t, 10, 2*runs+10, 100)
	c.config.Now = func() time.Time { return time.Time{} }
	now := time.Now()
	if n := testing.AllocsPerRun(runs, func() { c.next(now) }); n != 0 {
		t.Errorf("%v allocations for a packet of a client", n)
	}
	id := ayiya.Identity(endpoint(1).Client)
	m := c.members.find(&id)
	m.last = place{netip.MustParseAddrPort("127.0.0.1:9"), c.Local()}
	of := m.attached()
	in := inner(internet, endpoint(1).Client, "x")
	send := func() {
		if err := of.Send(in); err != nil {
			time.Sleep(time.Millisecond) // all room is used
		}
	}
	for range 2 {
		makeBuffers(of.out)
		if err := of.Send(in); err != nil { // the other half of the buffers is filled next
			t.Fatal(err)
		}
	}
	if n := testing.AllocsPerRun(runs, send); n != 0 {
		t.Errorf("%v allocations for a packet to a client", n)
	}
}

func TestClientNoAllocs(t *testing.T) {
	const runs = 1000
	s := newStub(t)
	c := connect(t, 1, s.at(), quick)
	c.expect(t, "up 1")
	pkt := c.packet(s.at(), inner(endpoint(1).Client, internet, "x"))
	pkts := []transport.Packet{{Head: pkt}, {Head: pkt[:40], Body: pkt[40:]}}
	if n := testing.AllocsPerRun(runs, func() { _, _ = c.tx.Send(pkts) }); n != 0 {
		t.Errorf("%v allocations for packets to a server", n)
	}
	var packs [][]byte
	front := header.IPv4Len + header.UDPLen
	for i := range runs + 10 {
		b := s.packet(ayiya.Forward, ayiya.NextIPv6, inner(internet, endpoint(1).Client, fmt.Sprint(i)), 0)
		packs = append(packs, append(make([]byte, front), b...))
	}
	m := transport.Meta{Outer: header.Outer{From: s.at(), At: c.local}}
	now, i := time.Now(), 0
	if n := testing.AllocsPerRun(runs, func() {
		m.Size = len(packs[i])
		if size, _ := c.open(packs[i], &m, now); size == 0 {
			t.Error("a packet is refused")
		}
		i++
	}); n != 0 {
		t.Errorf("%v allocations for a packet from a server", n)
	}
}
