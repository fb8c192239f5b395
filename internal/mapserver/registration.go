package mapserver

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"strings"
	"time"

	"sixfour/encap/lisp"
	"sixfour/internal/store"
)

// Lifetimes of registrations (RFC 9301 section 8.2).
const (
	lifetime    = 3 * time.Minute
	maxLifetime = 24 * time.Hour // of one that lives as long as the TTL of its record
)

// Admitted is a registration that is authentic, and whose nonce is greater than the last one of
// its router. It is not in effect before Apply.
type Admitted struct {
	// Save and Forget are what to change in the store before Apply, so that the nonce does
	// not go back when the server is started again.
	Save   []store.Put
	Forget []string

	message *lisp.Registration
	site    *site
	by      identity
	from    netip.AddrPort
}

// Admit checks a Map-Register.
func (s *Server) Admit(b []byte, from netip.AddrPort, now time.Time) (*Admitted, Reason) {
	a, why := s.admit(b, from, now)
	if why != Served {
		s.Refuse(why)
	}
	return a, why
}

func (s *Server) admit(b []byte, from netip.AddrPort, now time.Time) (*Admitted, Reason) {
	m, err := lisp.ParseRegistration(b)
	if err != nil || m.Type != lisp.TypeRegister || len(m.Records) == 0 {
		return nil, Malformed
	}
	of, why := s.siteOfAll(m)
	if why != Served {
		return nil, why
	}
	if len(of.Key) == 0 || m.Verify(b, of.Key) != nil { // the file with the key could not be read
		s.blame(of, WrongKey)
		return nil, WrongKey
	}
	a := &Admitted{message: m, site: of, by: identityOf(m), from: from}
	s.mu.Lock()
	defer s.mu.Unlock()
	if why := s.limits(a); why != Served {
		of.refused[why]++
		return nil, why
	}
	r := of.routers[a.by]
	if !of.AnyNonce && (r != nil && m.Nonce <= r.nonce || r == nil && of.floor > 0 && m.Nonce <= of.floor) {
		of.refused[OldNonce]++
		return nil, OldNonce
	}
	if r == nil {
		if len(of.routers) >= maxRouters {
			a.forget(of)
		}
		r = new(router)
		of.routers[a.by] = r
	}
	r.nonce, r.at = m.Nonce, now
	value := binary.BigEndian.AppendUint64(nil, uint64(now.Unix()))
	a.Save = append(a.Save, store.Put{Key: keyOf(of.Name, a.by.String()), Value: append(value, b...)})
	return a, Served
}

// siteOfAll returns the site of all records of a message.
func (s *Server) siteOfAll(m *lisp.Registration) (*site, Reason) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var of *site
	for i := range m.Records {
		found := s.siteOf(m.Records[i].EID)
		if found == nil || of != nil && found != of {
			return nil, UnknownSite
		}
		of = found
	}
	return of, Served
}

// limits refuses what a site may not make the server remember. S.mu is held.
func (s *Server) limits(a *Admitted) Reason {
	more := 0
	for i := range a.message.Records {
		e := &a.message.Records[i]
		if len(e.Locators) > maxLocators {
			return TooMany
		}
		if e.TTL > 0 && s.all[e.EID] == nil {
			more++
		}
	}
	if more > 0 && a.site.prefixes+more > maxPrefixes {
		return TooMany
	}
	return Served
}

// forget removes the router that registered first of those that a site had, and notes its nonce:
// the registrations of other routers that are not known must have greater ones.
func (a *Admitted) forget(of *site) {
	var oldest identity
	for id, r := range of.routers {
		if o := of.routers[oldest]; o == nil || r.at.Before(o.at) {
			oldest = id
		}
	}
	of.floor = max(of.floor, of.routers[oldest].nonce)
	delete(of.routers, oldest)
	a.Forget = append(a.Forget, keyOf(of.Name, oldest.String()))
	a.Save = append(a.Save, store.Put{Key: keyOf(of.Name, floorKey), Value: binary.BigEndian.AppendUint64(nil, of.floor)})
}

// blame counts for a site what was refused.
func (s *Server) blame(of *site, why Reason) {
	s.mu.Lock()
	defer s.mu.Unlock()
	of.refused[why]++
}

// Apply puts a registration into effect. It returns the Map-Notify, if the router wants one.
func (s *Server) Apply(a *Admitted, now time.Time) (Message, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sites[a.site.Name] != a.site { // the configuration has changed since
		return Message{}, false
	}
	s.apply(a.site, a.message, now, now)
	a.site.seen, a.site.from = now, a.from
	s.counters.served[Registered].Add(1)
	if !a.message.WantNotify {
		return Message{}, false
	}
	n := lisp.Registration{Type: lisp.TypeNotify, Nonce: a.message.Nonce, KeyID: a.message.KeyID, Algorithm: a.message.Algorithm, Records: a.message.Records}
	return Message{netip.AddrPortFrom(a.from.Addr(), lisp.ControlPort), n.Append(nil, a.site.Key, a.message.Cut())}, true
}

// apply sets the mappings of a registration that arrived at a time. S.mu is held.
func (s *Server) apply(of *site, m *lisp.Registration, at, now time.Time) {
	for i := range m.Records {
		e := &m.Records[i]
		if e.TTL == 0 { // withdrawn
			s.remove(e.EID)
			continue
		}
		life := lifetime
		if m.UseTTL {
			life = min(time.Duration(e.TTL)*time.Minute, maxLifetime)
		}
		if until := at.Add(life); until.After(now) {
			s.set(&mapping{record: *e, proxy: m.Proxy, until: until, site: of})
		}
	}
}

// Keys of the store are the name of the site and the identity of the router.
const (
	storePrefix = "lisp/"
	floorKey    = "floor"
)

func keyOf(site, of string) string { return storePrefix + site + "/" + of }

// Restore puts what Admitted.Save had into effect for sites that SetSites has returned. What
// was registered with another key, or is not in the site's prefixes any more, is ignored.
func (s *Server) Restore(items []store.Item, fresh map[string]bool, now time.Time) {
	type saved struct {
		at time.Time
		m  *lisp.Registration
		of *site
	}
	var all []saved
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, item := range items {
		name, ok := strings.CutPrefix(item.Key, storePrefix)
		i := strings.LastIndexByte(name, '/')
		if !ok || i < 0 || !fresh[name[:i]] || len(item.Value) < 8 {
			continue
		}
		of := s.sites[name[:i]]
		number := binary.BigEndian.Uint64(item.Value)
		if name[i+1:] == floorKey {
			of.floor = number
			continue
		}
		m, err := lisp.ParseRegistration(item.Value[8:])
		if err == nil && m.Verify(item.Value[8:], of.Key) == nil {
			all = append(all, saved{time.Unix(int64(number), 0), m, of})
		}
	}
	slices.SortStableFunc(all, func(a, b saved) int { return a.at.Compare(b.at) })
	for _, o := range all {
		by := identityOf(o.m)
		o.of.routers[by] = &router{nonce: o.m.Nonce, at: o.at}
		inside := !slices.ContainsFunc(o.m.Records, func(e lisp.Record) bool { return s.siteOf(e.EID) != o.of })
		if inside && !o.at.After(now) {
			s.apply(o.of, o.m, o.at, now)
		}
	}
}
