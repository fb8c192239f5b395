package engine

import (
	"errors"
	"net"
	"sync/atomic"
	"testing"

	"go.uber.org/zap"

	"sixfour/encap"
	"sixfour/encap/framing"
	"sixfour/encap/header"
	"sixfour/internal/config"
	"sixfour/internal/datapath"
	"sixfour/internal/ports"
	"sixfour/internal/wiring"
	"sixfour/transport"
)

// failing is a port that fails a number of times in a row before it works once.
type failing struct {
	transport.Port
	left   atomic.Int64
	closed atomic.Bool
}

func (f *failing) Receive([][]byte, []transport.Meta) (int, error) {
	if f.closed.Load() {
		return 0, net.ErrClosed
	}
	if f.left.Add(-1) < 0 {
		f.left.Store(datapath.BrokenAfter - 1)
		return 0, nil
	}
	return 0, errors.New("no")
}

func (f *failing) Lost() (uint32, bool) { return 0, false }

func (f *failing) Close() error {
	f.closed.Store(true)
	return nil
}

// given provides sockets that are already open.
type given map[ports.Key][]*failing

func (g given) Listen(k ports.Key, s transport.Shard, _ transport.Options) (transport.Port, error) {
	return g[k][s.Index], nil
}

func (given) Dial(ports.Key, transport.Options) (transport.Sender, error) {
	return nil, errors.New("no")
}

func (given) Adopt(int, ports.Key, transport.Options) (transport.Port, error) {
	return nil, transport.ErrOther
}

// A receiver that fails for good is replaced, and counted for the tunnels that it served; one
// that works now and then is not replaced.
func TestBrokenReceiver(t *testing.T) {
	tun := tunnelOf(config.Tunnel{Layers: make([]config.Layer, 1)})
	other := tunnelOf(config.Tunnel{Layers: make([]config.Layer, 1)})
	e := &Engine{log: zap.NewNop(), ctx: t.Context(), signals: signals{broken: make(chan broken)}, running: running{tunnels: []*tunnel{tun, other}}}
	e.Plane.Failed = e.isBroken
	wires := make([]*datapath.Wire, 2)
	for i, local := range []string{"192.0.2.1", "192.0.2.2"} {
		p := e.tunnels[i].only.paths[0]
		wires[i] = &datapath.Wire{Path: p.Path, Layers: []encap.Layer{layer(encap.SixInFour, local, "198.51.100.1", framing.GRE{})}}
	}
	good, bad, icmp := new(failing), new(failing), new(failing)
	good.left.Store(datapath.BrokenAfter - 1)
	bad.left.Store(1 << 40)
	icmp.left.Store(1 << 40)
	k := ports.Raw(header.ProtoIPv6, wires[0].Outer().Local)
	ofICMP, _ := wiring.ICMPPort(k.Local.Addr())
	e.arrivals = arrivalsOf(e, nil)
	for i, w := range wires {
		e.arrivals.Register(e.tunnels[i].only.paths[0], w)
	}
	e.arrivals.Sockets = ports.New(ports.Config{Log: e.log, Sockets: given{k: {good, bad}, ofICMP: {icmp}}, Read: func(k ports.Key, _ int, p transport.Port) {
		if k.IsICMP() {
			e.NewICMP(0, e.log, p).Run()
			return
		}
		e.NewInbound(datapath.Place{Socket: true}, e.log, p).Run()
	}})
	e.arrivals.Sockets.Need(map[ports.Key]ports.Need{k: {Shards: 2}, ofICMP: {}})
	for range 2 {
		b := <-e.broken
		if b.rx == good {
			t.Error("one that works is given up")
		}
		e.replaceReceiver(b)
	}
	if len(e.arrivals.Sockets.Open()) != 0 || !good.closed.Load() || !bad.closed.Load() || !icmp.closed.Load() || e.arrivals.IsComplete() {
		t.Errorf("open are %v", e.arrivals.Sockets.Open())
	}
	e.arrivals.Sockets.Close() // when nothing receives any more
	if n, none := tun.report.Repairs()["socket"], other.report.Repairs(); n != 2 || none != nil {
		t.Errorf("%d repairs, the other tunnel has %v", n, none)
	}
}
