package engine

import (
	"net"
	"net/netip"
	"slices"
	"testing"

	"go.uber.org/zap"

	"sixfour/encap"
	"sixfour/encap/framing"
	"sixfour/encap/header"
	"sixfour/internal/config"
	"sixfour/internal/datapath"
	"sixfour/internal/ports"
	"sixfour/internal/wiring"
)

// datagrams is a framing with ports.
type datagrams struct{ framing.Bare }

func (datagrams) Properties() framing.Properties {
	return framing.Properties{Protocol: header.UDP, Overhead: header.UDPLen, OverheadBack: header.UDPLen, Longest: header.UDPLen, Carries6: true, Ports: framing.Ports{Local: 6635, Remote: 6636}}
}

// A path over UDP needs its port before its packets may arrive, because it sends through
// it. When the port is replaced, the path is made again. Suppressing the kernel's errors
// is not necessary there.
func TestUDPPort(t *testing.T) {
	tun := tunnelOf(config.Tunnel{FwMark: 7, Layers: make([]config.Layer, 1)})
	l := layer(encap.SixInFour, "192.0.2.1", "198.51.100.1", framing.GRE{})
	l.Kind = l.Kind.With(datagrams{framing.Bare(6)})
	p, w := tun.only.paths[0], &datapath.Wire{Path: tun.only.paths[0].Path, Layers: []encap.Layer{l}}
	p.Wire.Store(w)

	k := ports.Key{Protocol: header.UDP, Local: netip.MustParseAddrPort("192.0.2.1:6635"), Mark: 7}
	rx := new(failing)
	rx.left.Store(1 << 40)
	e := &Engine{log: zap.NewNop(), ctx: t.Context(), running: running{tunnels: []*tunnel{tun}}}
	e.arrivals = arrivalsOf(e, given{k: {rx}})
	if from := wiring.Origin(w, 7); from != (ports.Origin{Key: k, Mark: 7}) {
		t.Errorf("packets leave through %+v", from)
	}
	e.arrivals.Renew()
	e.arrivals.Arrange()
	if open := e.arrivals.Sockets.Open(); !slices.Equal(open, []ports.Key{k}) {
		t.Fatalf("open are %v", open)
	}
	if ends := e.arrivals.Unknown(); len(ends) != 0 {
		t.Errorf("errors are suppressed at %v", ends)
	}
	e.replaceReceiver(broken{rx, net.ErrClosed})
	if p.Wire.Load() != nil || !rx.closed.Load() || e.arrivals.IsComplete() {
		t.Errorf("the path is still %+v", p.Wire.Load())
	}
	e.arrivals.Sockets.Close()
}
