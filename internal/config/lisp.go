package config

import (
	"net/netip"
	"reflect"
	"slices"

	"sixfour/internal/config/problem"
)

// LISP is the [lisp] table: this host is a LISP map server and map resolver.
type LISP struct {
	Listen []netip.Addr // at most one of each IP version; none: there is no map server
	Store  string       // file with nonces and registrations
	Sites  []LISPSite
	Source Source // of the table; Keys are those of its values
}

// LISPSite is a [[lisp.site]] table.
type LISPSite struct {
	Name     string
	Key      Secret
	EID      []netip.Prefix // masked
	Instance uint32         // of the prefixes
	AnyNonce bool           // nonces of registrations need not grow
	At       problem.Pos
}

// Equal reports whether two configurations of a map server are equivalent.
func (l *LISP) Equal(o *LISP) bool { return reflect.DeepEqual(l.plain(), o.plain()) }

// SameBase reports whether what cannot change while the map server runs is the same: the
// addresses and the store.
func (l *LISP) SameBase(o *LISP) bool {
	return slices.Equal(l.Listen, o.Listen) && l.Store == o.Store
}

// plain returns the configuration without positions in a file.
func (l *LISP) plain() LISP {
	c := *l
	c.Source, c.Sites = Source{}, slices.Clone(l.Sites)
	for i := range c.Sites {
		c.Sites[i].At = problem.Pos{}
	}
	return c
}

// Problem returns a problem at the position of a site.
func (l *LISP) Problem(s *LISPSite, format string, args ...any) problem.Problem {
	return (&Tunnel{Source: Source{File: l.Source.File, Header: s.At}}).Problem("", format, args...)
}
