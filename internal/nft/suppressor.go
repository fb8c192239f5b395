package nft

import (
	"errors"
	"fmt"

	"github.com/google/nftables"
)

// Suppressor suppresses ICMP errors of the kernel about packets of tunnels: a peer takes
// a port unreachable for the end of its tunnel. For each family that needs it, there is a
// table of our own (see Tables). Its rules drop and count each ICMP port unreachable of
// this host that quotes a packet of one of the protocols to one of our addresses. The
// kernel has no other reason to send such packets, except for a GRE tunnel of its own
// that has the same address.
//
// Use it only if KernelAnswers says that it is needed: its rules are evaluated for each
// packet that this host sends.
//
// Suppressor is not safe for concurrent use.
type Suppressor struct {
	own    *Tables
	v4, v6 familyRules
}

// OpenSuppressor makes a Suppressor that covers no end yet. Close it after use. The table
// for IPv4 exists from the beginning, to verify that nftables works; the table for IPv6
// is made when it is needed.
func OpenSuppressor() (*Suppressor, error) { return openSuppressor(tableOwner) }

func openSuppressor(flags uint32) (*Suppressor, error) {
	s := new(Suppressor)
	s.v4 = familyRules{family: nftables.TableFamilyIPv4, key: nftables.TypeIPAddr, rules: rules4}
	s.v6 = familyRules{family: nftables.TableFamilyIPv6, key: nftables.TypeIP6Addr, rules: rules6}
	var err error
	if s.own, err = openTables(randomName(), flags); err != nil {
		return nil, err
	}
	if err := s.make(&s.v4); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// Name returns the name of the tables.
func (s *Suppressor) Name() string { return s.own.Name() }

// make makes a family's table and its content.
func (s *Suppressor) make(g *familyRules) (err error) {
	if g.table, err = s.own.Add(g.family); err != nil {
		return err
	}
	g.present = make(map[Endpoint]bool)
	if err := s.own.Change(g.fill); err != nil {
		return fmt.Errorf("fill nftables table %s: %w", s.Name(), err)
	}
	return nil
}

// Suppress makes the Suppressor cover these ends, and no others. It is cheap if nothing
// changes. It makes a table again that was removed.
func (s *Suppressor) Suppress(ends []Endpoint) error {
	var v4, v6 []Endpoint
	for _, e := range ends {
		if e.Local.Is4() {
			v4 = append(v4, e)
		} else {
			v6 = append(v6, e)
		}
	}
	return errors.Join(s.suppress(&s.v4, v4), s.suppress(&s.v6, v6))
}

// suppress is Suppress for one family.
func (s *Suppressor) suppress(g *familyRules, ends []Endpoint) error {
	switch exists, err := s.exists(g); {
	case err != nil:
		return err
	case !exists:
		g.present = nil
		if len(ends) == 0 {
			return nil
		}
		if err := s.make(g); err != nil {
			return err
		}
	}
	wanted := make(map[Endpoint]bool, len(ends))
	var add, remove []nftables.SetElement
	for _, e := range ends {
		if !wanted[e] && !g.present[e] {
			add = append(add, e.element())
		}
		wanted[e] = true
	}
	for e := range g.present {
		if !wanted[e] {
			remove = append(remove, e.element())
		}
	}
	if err := s.change(g, add, remove); err != nil {
		return fmt.Errorf("change set of nftables table %s: %w", s.Name(), err)
	}
	g.present = wanted
	return nil
}

// exists reports whether a family's table still exists.
func (s *Suppressor) exists(g *familyRules) (bool, error) {
	if g.present == nil {
		return false, nil
	}
	return s.own.Exists(g.family)
}

// change adds elements to the set and removes others, in one step.
func (s *Suppressor) change(g *familyRules, add, remove []nftables.SetElement) error {
	return s.own.Change(func(c *nftables.Conn) error {
		if len(add) > 0 {
			if err := c.SetAddElements(g.ends, add); err != nil {
				return err
			}
		}
		if len(remove) > 0 {
			return c.SetDeleteElements(g.ends, remove)
		}
		return nil
	})
}

// Close removes the tables.
func (s *Suppressor) Close() error { return s.own.Close() }
