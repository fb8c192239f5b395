package engine

import (
	"go.uber.org/zap"

	"sixfour/internal/capture"
	"sixfour/internal/config"
)

// tunnelOf returns the tunnel of a configuration, without an interface. It has at least one
// peer unless it is a hub.
func tunnelOf(cfg config.Tunnel) *tunnel { return loggedTunnel(cfg, nil, zap.NewNop()) }

func loggedTunnel(cfg config.Tunnel, c *capture.Set, log *zap.Logger) *tunnel {
	if len(cfg.Peers) == 0 && !cfg.Hub {
		cfg.Peers = []config.Peer{{Remotes: make([]config.Host, max(1, len(cfg.Layers)))}}
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
