package datapath

import (
	"bytes"
	"errors"
	"net/netip"
	"testing"

	"go.uber.org/zap"

	"sixfour/encap"
	"sixfour/encap/drop"
	"sixfour/encap/header"
	"sixfour/encap/resolve"
	"sixfour/internal/recovery"
	"sixfour/transport"
)

// faulty is a resolver that panics on packets with hop limit 13.
type faulty struct{}

func (faulty) To(inner []byte) (resolve.Endpoint, drop.Reason) {
	faulty{}.From(resolve.Endpoint{}, resolve.Endpoint{}, inner)
	return resolve.Endpoint4(0xc6336401), drop.None
}

func (faulty) From(_, _ resolve.Endpoint, inner []byte) drop.Reason {
	if header.IPv6(inner).HopLimit() == 13 {
		panic("hop limit 13")
	}
	return drop.None
}

// sixes returns inner packets with the given hop limits.
func sixes(hopLimits ...byte) (list [][]byte) {
	for _, n := range hopLimits {
		pkt := datagram("2001:db8::1", "2001:db8::2", 60, 60)
		pkt[7] = n
		list = append(list, pkt)
	}
	return list
}

// A packet that causes a panic affects only itself: the others in its batch are carried.
func TestPanicInBatch(t *testing.T) {
	automatic := encap.Layer{Kind: encap.SixInFour, Local: netip.MustParseAddr("192.0.2.1"), Resolver: faulty{}}
	e, tn, p, to := labOf(t, 1500, encap.DefaultOptions, automatic)
	to.Senders = []transport.Sender{&sends{refuse: -1}}
	useWire(p, to)
	in := e.NewInbound(Place{Socket: true}, zap.NewNop(), batch{})
	var outer [][]byte
	for _, pkt := range sixes(64, 13, 64, 13, 13, 64) {
		o := arriving("198.51.100.1", "192.0.2.1", header.ProtoIPv6, pkt...)
		o[3] = byte(len(o))
		header.IPv4(o).SetChecksum()
		outer = append(outer, o)
	}
	in.carry(put(in, outer...))
	drops := func(r drop.Reason) uint64 {
		return p.In.Traffic().Drops[r.String()] + tn.In.Traffic().Drops[r.String()] + tn.Out.Traffic().Drops[r.String()] + e.Stray.Traffic().Drops[r.String()]
	}
	// There is no device, so valid packets are dropped at the end.
	if drops(drop.InternalError) != 3 || drops(drop.InterfaceDown) != 3 || panics(tn) != 3 {
		t.Errorf("%v %v, %d panics", p.In.Traffic().Drops, tn.In.Traffic().Drops, panics(tn))
	}
	// When sending, the packets of the same batch are lost, but not those of the next.
	o := NewOutbound(tn, nil, 0)
	turn := func(pkts [][]byte) {
		o.workspace = workspaces.New().(*workspace)
		if recovery.Guard(nil, "", func() {
			for _, pkt := range pkts {
				o.add(append(make([]byte, encap.Headroom), pkt...))
			}
			o.send()
		}) {
			o.failed()
		}
	}
	turn(sixes(64, 64, 13))
	turn(sixes(64, 64))
	if got := drops(drop.InternalError); got != 5 || p.Out.Packets.Load() != 2 {
		t.Errorf("%d lost by panics, want 5; %d carried, want 2", got, p.Out.Packets.Load())
	}
}

// A panic while packets are collected or written loses no more than the packets collected
// so far, counts each of them once, and the tunnel carries the packets that follow.
func TestPanicWithCollectedPackets(t *testing.T) {
	good := tunnelled("198.51.100.1", "10.0.0.2", 30)
	for _, c := range []struct {
		name        string
		before      func(in *Inbound, tn *Tunnel, p *Path)
		batch, lost int // packets, and how many are lost by the panic
	}{
		{"collect", func(in *Inbound, tn *Tunnel, p *Path) {
			s := in.sink(tn)
			s.gather.Add(bytes.Clone(good[60:]))               // a panic in the gatherer leaves a packet like this
			sick := &Path{PathOf: PathOf{Tunnel: new(Tunnel)}} // without an owner
			sick.Notices.Request(1, true)                      // so that counting its packet panics
			s.path, s.packets, s.bytes = sick, 1, len(good)-60
			tn.In.Carried(1, s.bytes) // as for sick, which is no peer of this tunnel
		}, 3, 2},
		{"write", func(_ *Inbound, tn *Tunnel, p *Path) {
			p.Owner = nil
			p.Notices.Request(1, true)
		}, 3, 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			e, tn, p, _ := lab(t)
			in := e.NewInbound(Place{Socket: true}, zap.NewNop(), batch{})
			c.before(in, tn, p)
			drops := func(r drop.Reason) int {
				return int(p.In.Traffic().Drops[r.String()] + tn.In.Traffic().Drops[r.String()])
			}
			var pkts [][]byte
			for range c.batch {
				pkts = append(pkts, good)
			}
			in.carry(put(in, pkts...))
			if got := drops(drop.InternalError); got != c.lost {
				t.Errorf("%d are lost by the panic, want %d", got, c.lost)
			}
			was := drops(drop.InterfaceDown) // there is no device, so that what is good is lost last
			in.carry(put(in, good, good))
			if got := drops(drop.InterfaceDown) - was; got != 2 {
				t.Errorf("after it %d of 2 reach the interface", got)
			}
			if got := int64(p.In.Packets.Load() + tn.In.Packets.Load()); got != 0 {
				t.Errorf("%d packets too many are counted as carried", got)
			}
		})
	}
}

// once is a receiver of one packet.
type once struct {
	transport.Receiver
	done bool
}

func (o *once) Receive(bufs [][]byte, meta []transport.Meta) (int, error) {
	if o.done {
		return 0, errors.New("no more")
	}
	o.done, meta[0].Size = true, copy(bufs[0], arriving("198.51.100.1", "192.0.2.1", header.ICMP, make([]byte, 40)...))
	bufs[0][3] = 60
	header.IPv4(bufs[0][:60]).SetChecksum()
	return 1, nil
}

// The goroutines that do not carry packets also survive a panic.
func TestPanicsOfICMPAndFragments(t *testing.T) {
	broken := make(chan error, 1)
	// There is no table: dereferencing it panics.
	pl := &Plane{Failed: func(_ transport.Receiver, err error) { broken <- err }}
	o := pl.NewICMP(0, zap.NewNop(), &once{})
	o.Run()
	if err := <-broken; err == nil || pl.Stray.Traffic().Drops[drop.InternalError.String()] != 1 {
		t.Errorf("ICMP errors: %v, %v", err, pl.Stray.Traffic())
	}

	_, tn, _, _ := lab(t)
	f := &reassembly{}
	if !recovery.Guard(nil, "", func() { f.add(tn, nil) }) || f.r != nil || !f.mu.TryLock() {
		t.Error("fragments are kept after a panic, or their lock")
	}
}
