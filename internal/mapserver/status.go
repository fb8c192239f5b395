package mapserver

import (
	"cmp"
	"slices"

	"sixfour/internal/api"
)

// maxSites is how many sites the status has. Those with problems come first.
const maxSites = 1000

// Status returns the state of the service.
func (v *Service) Status() *api.MapServerStatus {
	s := v.server.status()
	v.mu.Lock()
	defer v.mu.Unlock()
	s.Store, s.Error = v.cfg.Store, v.broken
	for _, p := range v.ports {
		l := api.MapServerListener{Address: p.at}
		switch {
		case p.err != nil:
			l.Error = p.err.Error()
		case p.conn == nil:
			l.Error = "it is not open yet"
		}
		s.Listeners = append(s.Listeners, l)
	}
	return s
}

// status returns the state of the server.
func (s *Server) status() *api.MapServerStatus {
	out := &api.MapServerStatus{Served: map[string]uint64{}, Refused: map[string]uint64{}}
	for c := range counts {
		out.Served[c.String()] = s.counters.served[c].Load()
	}
	for r := Served + 1; r < reasons; r++ {
		if n := s.counters.refused[r].Load(); n > 0 {
			out.Refused[r.String()] = n
		}
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	out.Sites, out.Prefixes = len(s.sites), len(s.all)
	sites := make([]*site, 0, len(s.sites))
	for _, o := range s.sites {
		if o.prefixes > 0 {
			out.Registered++
		}
		sites = append(sites, o)
	}
	slices.SortFunc(sites, func(a, b *site) int {
		return cmp.Or(cmp.Compare(min(a.prefixes, 1), min(b.prefixes, 1)), cmp.Compare(a.Name, b.Name))
	})
	for _, o := range sites[:min(len(sites), maxSites)] {
		out.SiteList = append(out.SiteList, o.status())
	}
	return out
}

// status returns the state of a site. Server.mu is held.
func (o *site) status() api.MapServerSite {
	t := api.MapServerSite{Name: o.Name, Prefixes: o.prefixes}
	if !o.seen.IsZero() {
		seen := o.seen
		t.LastRegistered, t.From = &seen, o.from
	}
	for r, n := range o.refused {
		if n > 0 {
			if t.Refused == nil {
				t.Refused = map[string]uint64{}
			}
			t.Refused[Reason(r).String()] = n
		}
	}
	return t
}
