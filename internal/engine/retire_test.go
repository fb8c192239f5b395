package engine

import (
	"errors"
	"net"
	"testing"

	"go.uber.org/zap"

	"sixfour/internal/api"
	"sixfour/internal/configfile"
	"sixfour/internal/discovery"
	"sixfour/internal/netcfg"
)

// After a reload has removed a tunnel, an MTU update or an ICMP error that is still waiting
// opens nothing again, and questions to its peers return an error.
func TestRetiredTunnelStaysSo(t *testing.T) {
	cfg, err := configfile.Parse("f", []byte("[[tunnel]]\nname = 'gone0'\nmode = '6in4'\nlocal = '127.0.0.1'\nremote = '127.0.0.2'\nnetns = 'elsewhere'\n"))
	if err != nil {
		t.Fatal(err)
	}
	e, err := New(cfg, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	if e.router, err = netcfg.NewRouter(); err != nil {
		t.Fatal(err)
	}
	defer e.router.Close()
	e.ctx = t.Context()
	e.evaluatePeers(e.tunnels)
	tun := e.tunnels[0]
	p, was := tun.only.paths[0], tun.only.paths[0].Wire.Load()
	if was == nil || tun.wires.Senders.Len() == 0 {
		t.Fatalf("%+v", p.status())
	}
	e.tunnels = nil
	shutAll([]*tunnel{tun})
	tun.retire(e)
	l := discovery.Update{Path: p.Path, Layers: was.Layers, Hop: was.Hop.MTU, MTU: 1300, By: "probe", Applied: make(chan struct{})}
	e.applyMTUUpdate(l)
	<-l.Applied
	if p.Wire.Load() != nil || tun.wires.Senders.Len() > 0 {
		t.Errorf("a path %+v, %d sockets", p.Wire.Load(), tun.wires.Senders.Len())
	}
	if err := p.Echo.Ping(t.Context(), p, api.PingRequest{Peer: "gone0"}, nil); !errors.Is(err, errRemoved) {
		t.Errorf("a question: %v", err)
	}
	if s, err := tun.Reply.Sender(4); s != nil || !errors.Is(err, net.ErrClosed) {
		t.Errorf("a socket for ICMP: %v", err)
	}
}
