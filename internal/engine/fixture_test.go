package engine

import (
	"net/netip"

	"go.uber.org/zap"

	"sixfour/internal/capture"
	"sixfour/internal/config"
)

// tunnelOf returns the tunnel of a configuration, without an interface. It has at least one
// peer unless it is a hub.
func tunnelOf(cfg config.Tunnel) *tunnel { return loggedTunnel(cfg, nil, zap.NewNop()) }

func loggedTunnel(cfg config.Tunnel, c *capture.Set, log *zap.Logger) *tunnel {
	if len(cfg.Peers) == 0 && !cfg.Hub {
		cfg.Peers = []config.Peer{{Paths: make([]config.Path, 1), InnerRemotes: make([]netip.Addr, max(0, len(cfg.Layers)-1))}}
	}
	t, err := newTunnel(0, cfg, 1, newProber(), c, log)
	if err != nil {
		panic(err)
	}
	return t
}

// useWire makes packets of a path leave by a wire.
func useWire(p *path, w *Wire) {
	w.path = p.dataPath
	p.publish(w)
}
