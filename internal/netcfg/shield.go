package netcfg

import (
	"errors"
	"fmt"

	"github.com/google/nftables"
)

// Shield keeps the kernel's answers back: a peer takes a port unreachable for
// the end of its tunnel. It is a table of our own (see Tables) for each family that
// needs one: an ICMP port unreachable that the host sends, that quotes a packet of
// one of the protocols, and that is about one of our addresses with it, is dropped,
// and counted. Such packets the kernel has no other reason to send, but for a GRE
// tunnel of its own that shares our address.
//
// It is for when KernelAnswers says that it is needed, and only then: a rule on
// the way out is one for each packet that we send, too.
//
// One goroutine may use it.
type Shield struct {
	own    *Tables
	v4, v6 guard
}

// OpenShield makes a shield that protects nothing yet. Close it. There is a table
// for IPv4 from the beginning, which shows that nftables can do it; the one for
// IPv6 is made when it is needed.
func OpenShield() (*Shield, error) { return openShield(tableOwner) }

func openShield(flags uint32) (*Shield, error) {
	s := new(Shield)
	s.v4 = guard{family: nftables.TableFamilyIPv4, key: nftables.TypeIPAddr, rules: rules4}
	s.v6 = guard{family: nftables.TableFamilyIPv6, key: nftables.TypeIP6Addr, rules: rules6}
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

// Name is the name of the tables.
func (s *Shield) Name() string { return s.own.Name() }

// make makes a family's table and what is in it.
func (s *Shield) make(g *guard) (err error) {
	if g.table, err = s.own.Add(g.family); err != nil {
		return err
	}
	g.present = make(map[End]bool)
	if err := s.own.Change(g.fill); err != nil {
		return fmt.Errorf("fill nftables table %s: %w", s.Name(), err)
	}
	return nil
}

// Protect makes the shield protect these ends, and no others. It is cheap if it
// does so already; a table that somebody removed is made again.
func (s *Shield) Protect(ends []End) error {
	var v4, v6 []End
	for _, e := range ends {
		if e.Local.Is4() {
			v4 = append(v4, e)
		} else {
			v6 = append(v6, e)
		}
	}
	return errors.Join(s.protect(&s.v4, v4), s.protect(&s.v6, v6))
}

// protect does so for one family.
func (s *Shield) protect(g *guard, ends []End) error {
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
	wanted := make(map[End]bool, len(ends))
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

// exists tells whether a family's table is still there.
func (s *Shield) exists(g *guard) (bool, error) {
	if g.present == nil {
		return false, nil
	}
	return s.own.Exists(g.family)
}

// change adds elements to the set, and removes others, at once.
func (s *Shield) change(g *guard, add, remove []nftables.SetElement) error {
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
func (s *Shield) Close() error { return s.own.Close() }
