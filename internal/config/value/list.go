package value

import (
	"errors"
	"fmt"
	"net/netip"

	"sixfour/internal/config"
	"sixfour/internal/config/problem"
	"sixfour/internal/config/tree"
)

// Prefix reads a prefix of an IP version.
func Prefix[T any](version int, field func(T) *netip.Prefix) func(*problem.Report, tree.Entry, T) {
	return func(r *problem.Report, e tree.Entry, into T) {
		if e.Kind != tree.String {
			RefuseType(r, e, "a string, "+prefixLike(version))
			return
		}
		p, err := networkOf(e.Text, version)
		if err != nil {
			r.Add(e.At, "%s is %s: %v", e.Name, problem.Quote(e.Text), err)
			return
		}
		*field(into) = p
	}
}

// Prefixes reads a list of prefixes of an IP version, or of either if that is 0, or a single one. For IPv4, an
// address also counts as a prefix.
func Prefixes[T any](version int, field func(T) *[]netip.Prefix) func(*problem.Report, tree.Entry, T) {
	return func(r *problem.Report, e tree.Entry, into T) {
		for _, s := range Strings(r, e, prefixLike(version)) {
			p, err := networkOf(s.Text, version)
			if a, bad := netip.ParseAddr(s.Text); bad == nil && a.Is4() && version == 4 {
				p, err = netip.PrefixFrom(a, 32), nil
			}
			if err != nil {
				r.Add(s.At, "%s has %s: %v", e.Name, problem.Quote(s.Text), err)
				continue
			}
			*field(into) = append(*field(into), p)
		}
	}
}

// Hosts reads a list of addresses of an IP version and DNS names, or a single one.
func Hosts[T any](version int, field func(T) *[]config.Host) func(*problem.Report, tree.Entry, T) {
	return func(r *problem.Report, e tree.Entry, into T) {
		for _, s := range Strings(r, e, addressOf(version)+OrName) {
			if h, ok := Host(r, s, version, OrName); ok {
				*field(into) = append(*field(into), h)
			}
		}
	}
}

// Strings returns the strings of an entry that must be a string or an array of at
// least one string.
func Strings(r *problem.Report, e tree.Entry, want string) []tree.Entry {
	switch {
	case e.Kind == tree.String:
		return []tree.Entry{e}
	case e.Kind != tree.Array:
		RefuseType(r, e, "a string or an array of strings, each "+want)
		return nil
	case len(e.Items) == 0:
		r.Add(e.At, "%s is empty: it must have at least one string, %s", e.Name, want)
		return nil
	}
	var all []tree.Entry
	for _, item := range e.Items {
		if item.Kind != tree.String {
			r.Add(item.At, "%s has %s in it: it must be an array of strings, each %s", e.Name, tree.KindNames[item.Kind], want)
			continue
		}
		all = append(all, tree.Entry{Name: e.Name, KeyAt: e.KeyAt, Value: item})
	}
	return all
}

func prefixLike(version int) string {
	switch version {
	case 0:
		return `a prefix such as "2001:db8::/32" or "192.0.2.0/24"`
	case 4:
		return `an IPv4 prefix such as "192.0.2.0/24"`
	}
	return `an IPv6 prefix such as "2001:db8::/32"`
}

// networkOf reads a prefix of unicast addresses of an IP version; 0: either.
func networkOf(s string, want int) (netip.Prefix, error) {
	p, err := ParsePrefix(s)
	switch {
	case err == nil && want != 0 && Version(p.Addr()) != want:
		err = fmt.Errorf("it must be %s", prefixLike(want))
	case err == nil && p != p.Masked():
		err = fmt.Errorf("it has bits set beyond its prefix length: write %v", p.Masked())
	case err == nil && (p.Addr().IsMulticast() || p.Addr().Is6() && p.Addr().IsLinkLocalUnicast()):
		err = errors.New("it must be a prefix of global or private unicast addresses")
	}
	return p, err
}
