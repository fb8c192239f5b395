package main

import (
	"context"

	"go.uber.org/zap"

	"sixfour/encap/lisp"
	"sixfour/internal/config"
	"sixfour/internal/mapserver"
)

// openMapServer opens the LISP map server of a configuration, if it has one.
func openMapServer(cfg *config.Config, log *zap.Logger) (*mapserver.Service, error) {
	if len(cfg.LISP.Listen) == 0 {
		return nil, nil
	}
	c := mapserver.Config{Listen: cfg.LISP.Listen, Store: cfg.LISP.Store, Sites: lispSites(&cfg.LISP)}
	if cfg.Gateway.DefaultRoute != "" { // messages must not go into that tunnel
		c.Mark = config.GatewayMark
	}
	return mapserver.Open(c, log)
}

// lispSites returns the sites of a configuration.
func lispSites(l *config.LISP) (all []mapserver.Site) {
	for _, s := range l.Sites {
		site := mapserver.Site{Name: s.Name, Key: []byte(s.Key.Value()), AnyNonce: s.AnyNonce}
		for _, p := range s.EID {
			site.EIDs = append(site.EIDs, lisp.EID{Instance: s.Instance, Prefix: p})
		}
		all = append(all, site)
	}
	return all
}

// runMapServer serves the routers of sites until ctx ends or the function that it returns is
// called, which waits for that.
func (p *process) runMapServer(ctx context.Context) (stop func()) {
	if p.mapServer == nil {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		p.mapServer.Run(ctx)
	}()
	return func() {
		cancel()
		<-done
	}
}

// reloadMapServer applies a new configuration of the map server. It returns false if that is
// possible only at the next start.
func (p *process) reloadMapServer(cfg *config.LISP) bool {
	if p.mapServer == nil || !p.cfg.LISP.SameBase(cfg) {
		return false
	}
	p.mapServer.Reload(lispSites(cfg))
	return true
}
