package gateway

import (
	"errors"
	"fmt"
	"strings"

	"sixfour/internal/api"
	"sixfour/internal/config"
)

// newStatus returns the status of the gateway for a configuration, from what was wanted and done,
// and err, a failure before anything was done. It returns an empty status if there is
// nothing to do.
func newStatus(cfg *config.Gateway, w Wanted, done Done, err error) *api.GatewayStatus {
	s := &api.GatewayStatus{Advice: done.Advice}
	if done.DefaultErr != nil || done.MasqueradeErr != nil || done.ShareErr != nil {
		err = nil
	}
	if cfg.DefaultRoute != "" {
		d := &api.DefaultRouteStatus{Tunnel: cfg.DefaultRoute, State: api.GatewayActive, IPv4: cfg.IPv4, IPv6: cfg.IPv6}
		for _, p := range cfg.Bypass {
			d.Bypass = append(d.Bypass, p.String())
		}
		switch err := errors.Join(err, done.DefaultErr); {
		case err != nil:
			d.State, d.Detail = api.GatewayFailed, oneLine(err)
		case w.Default == nil:
			d.State, d.Detail = api.GatewayWaiting, fmt.Sprintf("tunnel %s cannot carry packets yet, so packets still take the old default route", cfg.DefaultRoute)
		case w.Default.Index == 0:
			d.State, d.Detail = api.GatewayWaiting, fmt.Sprintf("there is no interface %s: packets to it are lost", cfg.DefaultRoute)
		}
		s.DefaultRoute = d
	}
	if len(cfg.Masquerade) > 0 {
		m := &api.MasqueradeStatus{Interfaces: cfg.Masquerade, State: api.GatewayActive, Missing: done.Missing}
		switch err := errors.Join(err, done.MasqueradeErr); {
		case err != nil:
			m.State, m.Detail = api.GatewayFailed, oneLine(err)
		case len(done.Missing) > 0:
			m.State, m.Detail = api.GatewayWaiting, "there is no interface "+strings.Join(done.Missing, ", ")
		}
		s.Masquerade = m
	}
	for _, share := range w.Shares {
		x := api.ShareStatus{Tunnel: share.Interface, Address: share.Address.String(), State: api.GatewayActive}
		if share.Ports.Check() == nil {
			x.PortCount = share.Ports.Count()
			for r := range share.Ports.Ranges() {
				x.Ports = append(x.Ports, r.String())
			}
		}
		if err := errors.Join(err, done.ShareErr); err != nil {
			x.State, x.Detail = api.GatewayFailed, oneLine(err)
		}
		s.Shares = append(s.Shares, x)
	}
	return s
}

// oneLine returns the text of an error, which may join several, on one line.
func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; and ") }
