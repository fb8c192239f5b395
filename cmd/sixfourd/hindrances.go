package main

import (
	"errors"

	"sixfour/internal/config"
	"sixfour/internal/netcfg"
)

// hindrances are what on this host is in the way of a configuration: interface names
// that are taken, namespaces that are not there, routes that other interfaces have.
// While the daemon runs tunnels wait for that. A person who checks a file, or writes a
// new tunnel into it, wants to know now. Runs is what a reload replaces, about whose
// tunnels nothing is said; nil: the file is only checked.
func hindrances(cfg, runs *config.Config) (problems config.Problems) {
	for i := range cfg.Tunnels {
		t := &cfg.Tunnels[i]
		if runs != nil && has(runs, t) {
			continue
		}
		key, err := "name", netcfg.CheckName(t.Netns, t.Name)
		if errors.As(err, new(*netcfg.NamespaceError)) {
			key = "netns"
		}
		if err == nil && runs == nil { // a reload tries the routes, and puts everything back
			key, err = t.RoutesKey(), netcfg.CheckRoutes(t.Netns, t.Name, t.Routes)
		}
		if err != nil {
			problems = append(problems, t.Problem(key, "%v", err))
		}
	}
	return problems
}

// has reports whether a tunnel with this interface is among those of a configuration.
func has(cfg *config.Config, t *config.Tunnel) bool {
	for i := range cfg.Tunnels {
		if o := &cfg.Tunnels[i]; o.Name == t.Name && o.Netns == t.Netns {
			return true
		}
	}
	return false
}
