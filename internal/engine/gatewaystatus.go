package engine

import (
	"errors"
	"fmt"
	"strings"

	"sixfour/internal/config"
	"sixfour/internal/gateway"
)

// GatewayStatus is what [gateway] came to.
type GatewayStatus struct {
	DefaultRoute *DefaultRouteStatus `json:"default_route,omitempty"`
	Masquerade   *MasqueradeStatus   `json:"masquerade,omitempty"`
	Advice       []string            `json:"advice,omitempty"` // what does not work though nothing went wrong
}

// HalfState is where one half of [gateway] stands.
type HalfState string

// The states of a half: it does what it should; something that it needs is not there yet;
// the kernel refuses.
const (
	HalfActive  HalfState = "active"
	HalfWaiting HalfState = "waiting"
	HalfFailed  HalfState = "failed"
)

// DefaultRouteStatus is the way of this host into the internet.
type DefaultRouteStatus struct {
	Tunnel string    `json:"tunnel"`
	State  HalfState `json:"state"`
	Detail string    `json:"detail,omitempty"` // why it is not active
	IPv4   bool      `json:"ipv4"`             // which IP versions go into the tunnel
	IPv6   bool      `json:"ipv6"`
	Bypass []string  `json:"bypass,omitempty"`
}

// MasqueradeStatus is what this host does for those at the other ends.
type MasqueradeStatus struct {
	Interfaces []string  `json:"interfaces"`
	State      HalfState `json:"state"`
	Detail     string    `json:"detail,omitempty"`
	Missing    []string  `json:"missing,omitempty"` // interfaces that there are not
}

// newGatewayStatus is what came of a configuration: of what was wanted, done, and of an
// error before anything was. Nil: there is nothing to do.
func newGatewayStatus(cfg *config.Gateway, w gateway.Wanted, done gateway.Done, err error) *GatewayStatus {
	s := &GatewayStatus{Advice: done.Advice}
	if done.DefaultErr != nil || done.MasqueradeErr != nil {
		err = nil
	}
	if cfg.DefaultRoute != "" {
		d := &DefaultRouteStatus{Tunnel: cfg.DefaultRoute, State: HalfActive, IPv4: cfg.IPv4, IPv6: cfg.IPv6}
		for _, p := range cfg.Bypass {
			d.Bypass = append(d.Bypass, p.String())
		}
		switch err := errors.Join(err, done.DefaultErr); {
		case err != nil:
			d.State, d.Detail = HalfFailed, oneLine(err)
		case w.Default == nil:
			d.State, d.Detail = HalfWaiting, fmt.Sprintf("tunnel %s has not been able to carry packets yet: everything goes the old way", cfg.DefaultRoute)
		case w.Default.Index == 0:
			d.State, d.Detail = HalfWaiting, fmt.Sprintf("there is no interface %s: what would go into it is lost", cfg.DefaultRoute)
		}
		s.DefaultRoute = d
	}
	if len(cfg.Masquerade) > 0 {
		m := &MasqueradeStatus{Interfaces: cfg.Masquerade, State: HalfActive, Missing: done.Missing}
		switch err := errors.Join(err, done.MasqueradeErr); {
		case err != nil:
			m.State, m.Detail = HalfFailed, oneLine(err)
		case len(done.Missing) > 0:
			m.State, m.Detail = HalfWaiting, "there is no interface "+strings.Join(done.Missing, ", ")
		}
		s.Masquerade = m
	}
	return s
}

// oneLine is the text of an error that may be of several.
func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; and ") }
