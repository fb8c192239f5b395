package engine

import (
	"errors"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"

	"go.uber.org/zap"

	"sixfour/encap"
	"sixfour/internal/config"
	"sixfour/internal/datapath"
	"sixfour/transport"
)

// failing is a receiver that fails a number of times in a row before it works once.
type failing struct {
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

// A receiver that fails for good is replaced, and counted for the tunnels that it served; one
// that works now and then is not replaced.
func TestBrokenReceiver(t *testing.T) {
	tun := tunnelOf(config.Tunnel{Layers: make([]config.Layer, 1)})
	other := tunnelOf(config.Tunnel{Layers: make([]config.Layer, 1)})
	e := &Engine{log: zap.NewNop(), ctx: t.Context(), signals: signals{broken: make(chan broken)}, running: running{tunnels: []*tunnel{tun, other}},
		receiving: receiving{inbounds: make(map[listener][]*datapath.Inbound), errors: make(map[netip.Addr]transport.Receiver)}}
	e.Table.Store(new(datapath.Table))
	e.Plane.Failed = e.isBroken
	for i, local := range []string{"192.0.2.1", "192.0.2.2"} {
		p := e.tunnels[i].only
		p.registered = &datapath.Wire{Layers: []encap.Layer{layer(encap.SixInFour, local, "198.51.100.1", encap.GRE{})}}
	}
	l := listenerOf(tun.paths[0].registered)
	good, bad, icmp := new(failing), new(failing), new(failing)
	good.left.Store(datapath.BrokenAfter - 1)
	bad.left.Store(1 << 40)
	icmp.left.Store(1 << 40)
	done := make(chan struct{})
	for _, rx := range []*failing{good, bad} {
		in := e.NewInbound(datapath.Place{Socket: true}, zap.NewNop(), rx)
		e.inbounds[l] = append(e.inbounds[l], in)
		go func() {
			in.Run()
			done <- struct{}{}
		}()
	}
	e.errors[l.local] = icmp
	go func() {
		e.NewICMP(0, zap.NewNop(), icmp).Run()
		done <- struct{}{}
	}()
	for range 2 {
		b := <-e.broken
		if b.rx == good {
			t.Error("one that works is given up")
		}
		e.replaceReceiver(b)
	}
	for range 3 {
		<-done
	}
	if len(e.inbounds) != 0 || len(e.errors) != 0 || !good.closed.Load() || !bad.closed.Load() || !icmp.closed.Load() || !e.stale {
		t.Errorf("%v %v", e.inbounds, e.errors)
	}
	if n, none := tun.repairs.counts()["socket"], other.repairs.counts(); n != 2 || none != nil {
		t.Errorf("%d repairs, the other tunnel has %v", n, none)
	}
}
