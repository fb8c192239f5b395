package engine

import (
	"errors"
	"net/netip"
	"slices"
	"testing"

	"go.uber.org/zap"

	"sixfour/encap"
	"sixfour/encap/framing"
	"sixfour/encap/header"
	"sixfour/encap/source"
	"sixfour/internal/arrival"
	"sixfour/internal/capture"
	"sixfour/internal/config"
	"sixfour/internal/datapath"
	"sixfour/internal/discovery"
	"sixfour/internal/ports"
	"sixfour/transport"
)

// tunnelOf returns the tunnel of a configuration, without an interface. It has at least one
// peer unless it is a hub.
func tunnelOf(cfg config.Tunnel) *tunnel { return loggedTunnel(cfg, nil, zap.NewNop()) }

func loggedTunnel(cfg config.Tunnel, c *capture.Set, log *zap.Logger) *tunnel {
	if len(cfg.Peers) == 0 && !cfg.Hub {
		cfg.Peers = []config.Peer{{Paths: make([]config.Path, 1), InnerRemotes: make([]netip.Addr, max(0, len(cfg.Layers)-1))}}
	}
	cfg.Peers = slices.Clone(cfg.Peers)
	for i := range cfg.Peers {
		if len(cfg.Peers[i].Paths) == 0 {
			cfg.Peers[i].Paths = make([]config.Path, 1)
		}
	}
	t, err := newTunnel(0, cfg, 1, discovery.New(log), ports.New(ports.Config{Log: log}), c, log)
	if err != nil {
		panic(err)
	}
	return t
}

// wired returns a 4in6in4 tunnel with a path that has a wire, without devices and sockets.
func wired(t testing.TB) (*tunnel, *path, *datapath.Wire) {
	t.Helper()
	tun := tunnelOf(config.Tunnel{Name: "t0", Layers: make([]config.Layer, 2)})
	tun.MTU.Store(1440)
	p := tun.only.paths[0]
	w := &datapath.Wire{Path: p.Path, MTU: 1500, Options: encap.DefaultOptions, Layers: []encap.Layer{
		layer(encap.FourInSix, "fc00::1", "fc00::2", framing.GRE{}), layer(encap.SixInFour, "192.0.2.1", "198.51.100.1", framing.GRE{}),
	}}
	var err error
	if w.Stack, err = encap.New(w.Layers, w.MTU, w.Options, source.New(nil, nil, false), p.Record); err != nil {
		t.Fatal(err)
	}
	p.publish(w)
	new(arrival.Set).Register(p, w)
	return tun, p, w
}

func layer(k encap.Kind, local, remote string, g framing.GRE) encap.Layer {
	l := encap.Layer{Kind: k, Local: netip.MustParseAddr(local), Remote: netip.MustParseAddr(remote)}
	if g != (framing.GRE{}) {
		l.Kind = k.With(g)
	}
	return l
}

// arriving returns the beginning of an outer packet.
func arriving(src, dst string, protocol byte, payload ...byte) []byte {
	s, d := netip.MustParseAddr(src), netip.MustParseAddr(dst)
	if s.Is4() {
		b := make([]byte, header.IPv4Len)
		b[0], b[9] = 0x45, protocol
		copy(b[12:], s.AsSlice())
		copy(b[16:], d.AsSlice())
		return append(b, payload...)
	}
	b := make([]byte, header.IPv6Len)
	b[0], b[6] = 0x60, protocol
	copy(b[8:], s.AsSlice())
	copy(b[24:], d.AsSlice())
	return append(b, payload...)
}

// addPath adds a peer with one path to a tunnel.
func addPath(t *tunnel, cfg config.Peer) *path {
	if len(cfg.Paths) == 0 {
		cfg.Paths = make([]config.Path, 1)
	}
	p := newPeer(t, &cfg)
	t.peers = append(t.peers, p)
	return p.paths[0]
}

// arrivalsOf returns the arrivals of an engine that uses the given sockets.
func arrivalsOf(e *Engine, s ports.Sockets) *arrival.Set {
	a := arrival.New(e.log, &e.Plane, nil, e.arriving, e.receives)
	a.NeedShards(1)
	a.Sockets = ports.New(ports.Config{Log: e.log, Read: func(ports.Key, int, transport.Port) {}, Sockets: s})
	return a
}

// refusing is sockets that cannot be opened.
type refusing struct{ ports.Sockets }

func (refusing) Listen(ports.Key, transport.Shard, transport.Options) (transport.Port, error) {
	return nil, errors.New("no")
}
