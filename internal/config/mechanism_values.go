package config

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/pelletier/go-toml/v2/unstable"
)

// prefixOf reads a prefix of an IP version.
func prefixOf[T any](version int, field func(T) *netip.Prefix) func(*report, entry, T) {
	return func(r *report, e entry, into T) {
		if e.kind != unstable.String {
			refuseType(r, e, "a string, "+prefixLike(version))
			return
		}
		p, err := networkOf(e.text, version)
		if err != nil {
			r.add(e.at, "%s is %s: %v", e.name, quote(e.text), err)
			return
		}
		*field(into) = p
	}
}

// prefixesOf reads a list of prefixes of an IP version, or a single one. For IPv4, an
// address also counts as a prefix.
func prefixesOf[T any](version int, field func(T) *[]netip.Prefix) func(*report, entry, T) {
	return func(r *report, e entry, into T) {
		for _, s := range stringsOf(r, e, prefixLike(version)) {
			p, err := networkOf(s.text, version)
			if a, bad := netip.ParseAddr(s.text); bad == nil && a.Is4() && version == 4 {
				p, err = netip.PrefixFrom(a, 32), nil
			}
			if err != nil {
				r.add(s.at, "%s has %s: %v", e.name, quote(s.text), err)
				continue
			}
			*field(into) = append(*field(into), p)
		}
	}
}

// hostsOf reads a list of IPv4 addresses and DNS names, or a single one.
func hostsOf[T any](field func(T) *[]Host) func(*report, entry, T) {
	return func(r *report, e entry, into T) {
		for _, s := range stringsOf(r, e, "an IPv4 address or a DNS name") {
			if h, ok := host(r, s, 4, orName); ok {
				*field(into) = append(*field(into), h)
			}
		}
	}
}

// stringsOf returns the strings of an entry that must be a string or an array of at
// least one string.
func stringsOf(r *report, e entry, want string) []entry {
	switch {
	case e.kind == unstable.String:
		return []entry{e}
	case e.kind != unstable.Array:
		refuseType(r, e, "a string or an array of strings, each "+want)
		return nil
	case len(e.items) == 0:
		r.add(e.at, "%s is empty: it must have at least one string, %s", e.name, want)
		return nil
	}
	var all []entry
	for _, item := range e.items {
		if item.kind != unstable.String {
			r.add(item.at, "%s has %s in it: it must be an array of strings, each %s", e.name, kindNames[item.kind], want)
			continue
		}
		all = append(all, entry{e.name, e.keyAt, item})
	}
	return all
}

func prefixLike(version int) string {
	if version == 4 {
		return `an IPv4 prefix such as "192.0.2.0/24"`
	}
	return `an IPv6 prefix such as "2001:db8::/32"`
}

// networkOf reads a prefix of unicast addresses of an IP version.
func networkOf(s string, want int) (netip.Prefix, error) {
	p, err := parsePrefix(s)
	switch {
	case err == nil && version(p.Addr()) != want:
		err = fmt.Errorf("it must be %s", prefixLike(want))
	case err == nil && p != p.Masked():
		err = fmt.Errorf("it has bits set beyond its prefix length: write %v", p.Masked())
	case err == nil && (p.Addr().IsMulticast() || p.Addr().Is6() && p.Addr().IsLinkLocalUnicast()):
		err = errors.New("it must be a prefix of global or private unicast addresses")
	}
	return p, err
}
