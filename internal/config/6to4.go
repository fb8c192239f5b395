package config

import (
	"encoding/binary"
	"maps"
	"net/netip"
	"slices"

	"github.com/pelletier/go-toml/v2/unstable"

	"sixfour/encap/resolve"
)

// anycastRelay is the relay of RFC 3068.
var anycastRelay = Host{Addr: netip.MustParseAddr("192.88.99.1")}

// rolePMT is the role of 6to4 that is a mechanism of its own (RFC 6732).
const rolePMT resolve.Role = "pmt"

// sixToFour is the keys of mode 6to4.
type sixToFour struct {
	resolve.SixToFour
	pmt pmtType
}

func readRole6to4(r *report, e entry, m *sixToFour) {
	roles := []resolve.Role{resolve.RoleRouter, resolve.RoleHost, resolve.RoleRelay, resolve.RoleReturn, rolePMT}
	m.Role = roleOf(r, e, roles)
}

// roleOf is the value of an entry that must be one of some roles.
func roleOf(r *report, e entry, roles []resolve.Role) resolve.Role {
	var words []string
	for _, role := range roles {
		words = append(words, string(role))
	}
	w, _ := wordOf(r, e, words...)
	return resolve.Role(w)
}

func readRelay(r *report, e entry, m *sixToFour) {
	if e.kind == unstable.String && e.text == "none" {
		m.Relay = Host{}
		return
	}
	if h, ok := host(r, e, 4, `, a DNS name or "none"`); ok {
		m.Relay = h
	}
}

func readSubnet(r *report, e entry, m *sixToFour) {
	if n, _, ok := numberOf(r, e, 0, 1<<16-1); ok {
		m.pmt.Subnet = uint16(n)
	}
}

func readMapping(r *report, e entry, m *sixToFour) {
	w, _ := wordOf(r, e, "rewrite", "npt")
	m.pmt.NPT = w == "npt"
}

// rolesWith are the roles of 6to4 that a key is for.
var rolesWith = map[string][]resolve.Role{
	"relay":           {resolve.RoleRouter, resolve.RoleHost},
	"relays":          {resolve.RoleRouter, resolve.RoleHost, resolve.RoleRelay},
	"clients":         {resolve.RoleRelay},
	"sources":         {resolve.RoleReturn},
	"provider_prefix": {rolePMT},
	"v4_common":       {rolePMT},
	"customers":       {rolePMT},
	"subnet":          {rolePMT},
	"mapping":         {rolePMT},
}

func (m *sixToFour) finish(r *report, d *draft) resolve.Mechanism {
	switch {
	case d.state.bad["role"]:
		return m.SixToFour
	case m.Role == "":
		m.Role = resolve.RoleRouter
	}
	for _, name := range slices.Sorted(maps.Keys(rolesWith)) {
		at, given := d.values[name]
		if roles := rolesWith[name]; given && !d.state.bad[name] && !slices.Contains(roles, m.Role) {
			var words []string
			for _, role := range roles {
				words = append(words, string(role))
			}
			r.add(at, "%s contradicts role %q: leave it out, or set role to %s", name, m.Role, list(quoteAll(words)))
		}
	}
	if !slices.Contains(rolesWith["relay"], m.Role) {
		m.Relay = Host{}
	}
	switch m.Role {
	case resolve.RoleRelay:
		d.need(r, "clients", `the IPv4 prefixes that the relay serves; ["0.0.0.0/0"] makes it an open one`)
	case resolve.RoleReturn:
		d.need(r, "sources", "this server's native IPv6 prefixes, whose answers it sends")
	case rolePMT:
		d.need(r, "provider_prefix", "the provider's IPv6 prefix, which takes the place of 2002::/16")
		d.need(r, "customers", "the IPv4 prefixes of the customers that are served")
		m.checkPMT(r, d)
		return m.pmt
	}
	m.checkLocal(r, d)
	return m.SixToFour
}

// checkLocal reports an address in which nobody finds the site (RFC 6343 section
// 4.1).
func (m *sixToFour) checkLocal(r *report, d *draft) {
	local := d.localOf(*d.automatic())
	if !local.Addr.Is4() {
		return
	}
	b := local.Addr.As4()
	if resolve.Martian4(binary.BigEndian.Uint32(b[:]), d.Strict) {
		r.add(local.at, "%s is %v, which is not global, so that no answer could reach it: mode %q needs a public IPv4 address; behind others choose mode %q through a broker's server",
			local.key, local.Addr, "6to4", "6in4")
	}
}

// checkPMT reports a mapping into the provider's prefix that does not fit.
func (m *sixToFour) checkPMT(r *report, d *draft) {
	if !d.state.good("provider_prefix") || d.state.bad["v4_common"] {
		return
	}
	common := 0
	if m.pmt.Common.IsValid() {
		common = m.pmt.Common.Bits()
	}
	at := d.values["provider_prefix"]
	switch bits := 32 - common; {
	case bits == 0:
		r.add(d.values["v4_common"], "v4_common is %v, which leaves no bits of the IPv4 address to tell customers apart: it must be shorter than /32", m.pmt.Common)
	case m.pmt.Provider.Bits()+bits > 64:
		r.add(at, "provider_prefix is %v, and with %d bits of IPv4 addresses a customer's prefix would be /%d, longer than /64: choose a shorter prefix, or a longer v4_common",
			m.pmt.Provider, bits, m.pmt.Provider.Bits()+bits)
	}
}
