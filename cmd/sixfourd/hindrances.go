package main

import (
	"errors"
	"net"
	"net/netip"

	"sixfour/internal/config"
	"sixfour/internal/config/problem"
	"sixfour/internal/iface"
	"sixfour/internal/netns"
)

// hostProblems returns what on this host prevents a configuration from working: interface
// names that are in use, missing namespaces, routes that other interfaces have. In a
// running daemon, tunnels wait until that changes. A check of a file, and a reload with
// a new tunnel, must report it at once. runs is the configuration that a reload
// replaces, whose tunnels are not checked; nil: the file is only checked.
func hostProblems(cfg, running *config.Config) (problems problem.List) {
	for i := range cfg.Tunnels {
		t := &cfg.Tunnels[i]
		if running != nil && hasTunnel(running, t) {
			continue
		}
		key, err := "name", iface.CheckName(t.Netns, t.Name)
		if errors.As(err, new(*netns.Error)) {
			key = "netns"
		}
		if err == nil && running == nil { // a reload tries the routes, and undoes everything on an error
			key, err = t.RoutesKey(), iface.CheckRoutes(t.Netns, t.Name, t.Routes)
		}
		if err != nil {
			problems = append(problems, t.Problem(key, "%v", err))
		}
	}
	if running == nil || !running.Broker.Equal(&cfg.Broker) {
		problems = append(problems, brokerProblems(&cfg.Broker)...)
	}
	return problems
}

// brokerProblems returns the networks for a broker's clients that an interface of this host has
// on its link: packets for them would go there.
func brokerProblems(b *config.Broker) (problems problem.List) {
	interfaces, err := net.Interfaces()
	if err != nil || b.Interface == "" {
		return nil
	}
	for _, i := range interfaces {
		addrs, err := i.Addrs()
		if err != nil || i.Name == b.Interface {
			continue
		}
		for _, a := range addrs {
			p, err := netip.ParsePrefix(a.String())
			if err != nil || !p.Addr().Is6() {
				continue
			}
			for _, of := range b.Networks() {
				key := "pool"
				if of == b.Endpoints {
					key = "endpoints"
				}
				switch {
				case !of.Overlaps(p.Masked()):
				case of.Contains(p.Addr()):
					problems = append(problems, b.Problem(key, "%s has %v, in which interface %s has the address %v: choose a prefix without it", key, of, i.Name, p.Addr()))
				case b.NDPProxy != i.Name:
					problems = append(problems, b.Problem(key, "%s has %v, which is on the link of interface %s (%v): set ndp_proxy to %s, or choose another prefix", key, of, i.Name, p.Masked(), problem.Quote(i.Name)))
				}
			}
		}
	}
	return problems
}

// hasTunnel reports whether a configuration has a tunnel with the same interface.
func hasTunnel(cfg *config.Config, t *config.Tunnel) bool {
	for i := range cfg.Tunnels {
		if o := &cfg.Tunnels[i]; o.Name == t.Name && o.Netns == t.Netns {
			return true
		}
	}
	return false
}
