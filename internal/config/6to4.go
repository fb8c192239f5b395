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

// rolePMT is the 6to4 role that is a separate mechanism (RFC 6732).
const rolePMT resolve.Role = "pmt"

// sixToFour holds the keys of mode 6to4.
type sixToFour struct {
	resolve.SixToFour
	pmt resolve.PMT
}

func readRole6to4(r *report, e entry, m *sixToFour) {
	roles := []resolve.Role{resolve.RoleRouter, resolve.RoleHost, resolve.RoleRelay, resolve.RoleReturn, rolePMT}
	m.Role = roleOf(r, e, roles)
}

// roleOf returns the value of an entry that must be one of some roles.
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
	if w, ok := wordOf(r, e, string(resolve.PMTRewrite), string(resolve.PMTNPT)); ok {
		m.pmt.Mode = resolve.PMTMode(w)
	}
}

// rolesWith are the 6to4 roles that have a key.
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
		m.finishPMT(r, d)
		return m.pmt
	}
	m.checkLocal(r, d)
	return m.SixToFour
}

// checkLocal reports a local address from which a site cannot be reached (RFC 6343
// section 4.1).
func (m *sixToFour) checkLocal(r *report, d *draft) {
	local := d.localOf(*d.automatic())
	if !local.Addr.Is4() || local.Addr.IsLoopback() { // no mechanism accepts it
		return
	}
	b := local.Addr.As4()
	if resolve.Martian4(binary.BigEndian.Uint32(b[:]), d.Strict) {
		r.add(local.at, "%s is %v, which is not global, so that no answer could reach it: mode %q needs a public IPv4 address; behind others choose mode %q through a broker's server",
			local.key, local.Addr, "6to4", "6in4")
	}
}
