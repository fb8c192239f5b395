package kernel_test

import (
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"

	"sixfour/encap"
	"sixfour/encap/drop"
	"sixfour/encap/source"
	"sixfour/internal/rig"
	"sixfour/internal/rig/rigtest"
	"sixfour/transport"
	"sixfour/transport/kernel"
	"sixfour/transport/wiretest"
	"sixfour/tun"
)

// process carries what the programs leave to it, as a daemon would.
type process struct {
	*end
	stack   *encap.Stack
	tx      *transport.RawSender
	rx      *transport.RawPort
	packets atomic.Int64 // carried in either direction
}

// start begins to carry packets, until the end of the test.
func (p *process) start(t testing.TB, layers []encap.Layer) {
	outer := layers[len(layers)-1]
	rigtest.Must(t, p.ns.Do(func() (err error) {
		if p.tx, err = transport.DialRaw(outer.Local, int(outer.Kind.Protocol()), transport.Options{}); err != nil {
			return err
		}
		p.rx, err = transport.ListenRaw(outer.Local, int(outer.Kind.Protocol()), transport.Shard{}, transport.Options{})
		return err
	}))
	var running sync.WaitGroup
	running.Go(p.out)
	running.Go(p.in)
	t.Cleanup(func() {
		p.dev.Close()
		p.rx.Close()
		running.Wait()
		p.tx.Close()
	})
}

func (p *process) out() {
	const start = encap.Headroom - tun.VirtioLen
	queue, b := p.dev.Queues()[0], make([]byte, encap.Headroom+tun.MaxRead)
	for queue.Wait() == nil {
		n, err := queue.Read(b[start:])
		if err != nil {
			continue
		}
		super, r := tun.ParseSuper(b[start : start+n])
		if r != drop.None || super.Headers() != 0 { // a super-packet is not sent: the test counts what arrives
			continue
		}
		pkt, r := p.stack.Encapsulate(b[:encap.Headroom+len(super.Packet())], encap.Headroom)
		if r != drop.None {
			continue
		}
		p.packets.Add(1)
		_, _ = p.tx.Send([]transport.Packet{{Head: pkt}})
	}
}

func (p *process) in() {
	bufs, meta := wiretest.Buffers(transport.BatchSize, transport.MaxPacket), make([]transport.Meta, transport.BatchSize)
	gather := tun.NewGatherer(transport.BatchSize, 1500)
	for {
		n, err := p.rx.Receive(bufs, meta)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		for i := range n {
			if inner, r := p.stack.Decapsulate(bufs[i][:meta[i].Size]); r == drop.None {
				p.packets.Add(1)
				gather.Add(inner)
			}
		}
		gather.Write(p.dev.Queues()[0])
	}
}

// TestCarry: a TCP connection through a tunnel runs in the kernel but for its SYNs, also as
// super-packets, with one and with two layers of headers.
//
//	left (six0: 10.1.0.1, 2001:db8:1::1) ---- right (six0: 10.1.0.2, 2001:db8:1::2)
func TestCarry(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		mode     string
		versions []int
	}{{"4in6in4", []int{4, 6}}, {"6in4", []int{6}}, {"4in6", []int{4}}, {"gre", []int{4, 6}}, {"gre6", []int{6}}} {
		t.Run(c.mode, func(t *testing.T) {
			t.Parallel()
			mode, _ := encap.ModeByName(c.mode)
			left, right := wiretest.Two(t)
			ends := [2]*process{
				connect(t, left, mode.Between(ours), "10.1.0.1/24", "2001:db8:1::1/64"),
				connect(t, right, mode.Between(remote), "10.1.0.2/24", "2001:db8:1::2/64"),
			}
			for _, version := range c.versions {
				to := netip.MustParseAddr(map[int]string{4: "10.1.0.2", 6: "2001:db8:1::2"}[version])
				wiretest.Settle(t, left, to)
				const size = 4 << 20
				_, err := rig.TCPTransfer(wiretest.Soon(t), left, right, netip.AddrPortFrom(to, 0), size)
				rigtest.Must(t, err)
				sent, err := ends[0].program.Counts(thePeer)
				rigtest.Must(t, err)
				received, err := ends[1].program.Counts(thePeer)
				rigtest.Must(t, err)
				if sent.Sent.Bytes < size || received.Received.Bytes < size {
					t.Errorf("IPv%d: %d bytes were sent and %d received in the kernel, of %d", version, sent.Sent.Bytes, received.Received.Bytes, size)
				}
				if sent.Sent != received.Received {
					t.Errorf("IPv%d: %+v were sent, %+v received", version, sent.Sent, received.Received)
				}
			}
			for _, e := range ends {
				if n := e.packets.Load(); n > 50 {
					t.Errorf("the process carried %d packets", n)
				}
			}
		})
	}
}

// connect makes an end of a tunnel with one peer, behind which is everything.
func connect(t testing.TB, ns *rig.Namespace, layers []encap.Layer, own ...string) *process {
	t.Helper()
	stack, err := encap.New(layers, 1500, encap.DefaultOptions, source.New(nil, []netip.Addr{layers[len(layers)-1].Local}, false), encap.NewRecord())
	rigtest.Must(t, err)
	mtu := encap.MTU(layers, 1500, encap.DefaultOptions, true)
	e := newEnd(t, ns, tun.Settings{MTU: int(mtu), Offload: tun.OffloadUDP}, func(t testing.TB, tunnel int) *kernel.Programs {
		p, err := kernel.Load()
		rigtest.Must(t, err)
		t.Cleanup(func() { rigtest.Must(t, p.Close()) })
		for _, prefix := range prefixes("0.0.0.0/0", "::/0") {
			rigtest.Must(t, p.Behind(tunnel, prefix, thePeer))
		}
		return p
	})
	p := &process{end: e, stack: stack}
	p.start(t, layers)
	rigtest.Must(t, e.program.Count(thePeer))
	rigtest.Must(t, e.program.Receive(thePeer, e.tunnel, layers))
	for _, version := range []int{4, 6} {
		if h, err := stack.Headers(version); err == nil {
			rigtest.Must(t, e.program.Send(thePeer, version, kernel.Hop{Device: e.device}, h))
		}
	}
	for _, s := range own {
		rigtest.Must(t, ns.AddAddr("six0", netip.MustParsePrefix(s)))
	}
	if len(layers) > 1 {
		e.note(t)
	}
	return p
}

// note puts the route program on every route into the tunnel.
func (e *end) note(t testing.TB) {
	t.Helper()
	rigtest.Must(t, e.ns.Do(func() error {
		routes, err := e.ns.Handle().RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{LinkIndex: e.tunnel}, netlink.RT_FILTER_OIF)
		if err != nil {
			return err
		}
		routes = slices.DeleteFunc(routes, func(r netlink.Route) bool { return r.Type != 1 }) // RTN_UNICAST
		if len(routes) == 0 {
			t.Fatal("no route into the tunnel")
		}
		for _, r := range routes {
			b := new(netlink.BpfEncap)
			if err := b.SetProg(nl.LWT_BPF_XMIT, e.program.RouteProgram().FD(), "sixfour_note"); err != nil {
				return err
			}
			r.Encap = b
			if err := e.ns.Handle().RouteReplace(&r); err != nil {
				return err
			}
		}
		return nil
	}))
}
