package mapserver

import (
	"net/netip"
	"sync"
	"time"

	"sixfour/encap/lisp"
)

// Message is a control message to send, from our address of the receiver's family and the
// control port.
type Message struct {
	To    netip.AddrPort
	Bytes []byte
}

// Server is a map server and map resolver. Its methods may be called concurrently, except for
// Admit and Apply, which one goroutine calls.
type Server struct {
	// Sends reports whether messages can be sent to an address, and may be. It must be set
	// before the first call of Answer.
	Sends func(netip.Addr) bool

	counters counters
	budget   budget

	mu     sync.RWMutex
	sites  map[string]*site
	spaces map[uint32]*space
	all    map[lisp.EID]*mapping
}

// New returns a server without sites.
func New() *Server {
	return &Server{budget: newBudget(), sites: map[string]*site{}, spaces: map[uint32]*space{}, all: map[lisp.EID]*mapping{}}
}

// SetSites sets the sites, whose names are different. What is known of a site stays if its key
// and its prefixes are the same. It returns the names of the others: Restore has what they
// registered earlier.
func (s *Server) SetSites(sites []Site) (fresh map[string]bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fresh = map[string]bool{}
	old, mappings := s.sites, s.all
	s.sites, s.spaces, s.all = make(map[string]*site, len(sites)), map[uint32]*space{}, map[lisp.EID]*mapping{}
	for _, c := range sites {
		o := old[c.Name]
		if o == nil || !o.equal(&c) {
			o = &site{routers: map[identity]*router{}}
			fresh[c.Name] = true
		}
		o.Site = c
		s.sites[c.Name] = o
		for _, e := range c.EIDs {
			s.space(e.Instance).sites.Insert(e.Prefix, o)
		}
	}
	for e, m := range mappings {
		if s.siteOf(e) != m.site { // it is gone, or the prefix belongs to another one now
			m.site.prefixes--
			continue
		}
		s.space(e.Instance).mappings.Insert(e.Prefix, m)
		s.all[e] = m
	}
	return fresh
}

// space returns the space of an instance, which is made if there is none. S.mu is held.
func (s *Server) space(instance uint32) *space {
	p := s.spaces[instance]
	if p == nil {
		p = new(space)
		s.spaces[instance] = p
	}
	return p
}

// siteOf returns the site in whose prefixes an EID is; nil: there is none. S.mu is held.
func (s *Server) siteOf(e lisp.EID) *site {
	p := s.spaces[e.Instance]
	if p == nil || !e.IsValid() {
		return nil
	}
	_, found, _ := p.sites.LookupPrefixLPM(e.Prefix)
	return found
}

// set makes a mapping the one of its prefix. S.mu is held.
func (s *Server) set(m *mapping) {
	e := m.record.EID
	if old := s.all[e]; old != nil {
		old.site.prefixes--
	}
	m.site.prefixes++
	s.all[e] = m
	s.space(e.Instance).mappings.Insert(e.Prefix, m)
}

// remove removes the mapping of a prefix. S.mu is held.
func (s *Server) remove(e lisp.EID) {
	if old := s.all[e]; old != nil {
		old.site.prefixes--
		delete(s.all, e)
		s.spaces[e.Instance].mappings.Delete(e.Prefix)
	}
}

// Expire removes the mappings that were not registered again in time.
func (s *Server) Expire(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for e, m := range s.all {
		if !m.until.After(now) {
			s.remove(e)
		}
	}
}

// Refuse counts a message that is not served.
func (s *Server) Refuse(why Reason) { s.counters.refused[why].Add(1) }
