package main

import (
	"errors"

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
