package main

import (
	"context"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"sixfour/internal/config"
	"sixfour/internal/config/problem"
)

// patience is how long resolving all names of a configuration may take.
const patience = 10 * time.Second

// unresolved returns problems for routers and relays of automatic tunnels whose names
// cannot be resolved. A running daemon tries again and again; a check of a configuration
// must report them at once.
func unresolved(cfg *config.Config) problem.List {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var mu sync.Mutex
	var all sync.WaitGroup
	var problems problem.List
	for i := range cfg.Tunnels {
		t := &cfg.Tunnels[i]
		for _, l := range t.Layers {
			if l.Mechanism == nil {
				continue
			}
			for _, h := range l.Mechanism.Hosts() {
				if h.Name == "" {
					continue
				}
				all.Go(func() {
					if _, err := net.DefaultResolver.LookupNetIP(ctx, "ip4", h.Name); err != nil {
						mu.Lock()
						defer mu.Unlock()
						problems = append(problems, t.HostProblem("%q has no IPv4 address: %v: correct it, or add it to the DNS", h.Name, err))
					}
				})
			}
		}
	}
	all.Wait()
	slices.SortFunc(problems, func(a, b problem.Problem) int { return strings.Compare(a.Text, b.Text) })
	return problems.Sorted()
}
