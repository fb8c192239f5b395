package mechanism

import (
	"encoding/binary"
	"maps"
	"net/netip"
	"slices"

	"sixfour/encap/resolve"
	"sixfour/internal/config"
	"sixfour/internal/config/problem"
	"sixfour/internal/config/tree"
	"sixfour/internal/config/value"
)

// AnycastRelay is the relay of RFC 3068.
var AnycastRelay = config.Host{Addr: netip.MustParseAddr("192.88.99.1")}

// rolePMT is the 6to4 role that is a separate mechanism (RFC 6732).
const rolePMT resolve.Role = "pmt"

// sixToFour holds the keys of mode 6to4.
type sixToFour struct {
	resolve.SixToFour
	pmt resolve.PMT
}

func readRole6to4(r *problem.Report, e tree.Entry, m *sixToFour) {
	roles := []resolve.Role{resolve.RoleRouter, resolve.RoleHost, resolve.RoleRelay, resolve.RoleReturn, rolePMT}
	m.Role = roleOf(r, e, roles)
}

// roleOf returns the value of an entry that must be one of some roles.
func roleOf(r *problem.Report, e tree.Entry, roles []resolve.Role) resolve.Role {
	var words []string
	for _, role := range roles {
		words = append(words, string(role))
	}
	w, _ := value.Word(r, e, words...)
	return resolve.Role(w)
}

func readRelay(r *problem.Report, e tree.Entry, m *sixToFour) {
	if e.Kind == tree.String && e.Text == "none" {
		m.Relay = config.Host{}
		return
	}
	if h, ok := value.Host(r, e, 4, `, a DNS name or "none"`); ok {
		m.Relay = h
	}
}

func readSubnet(r *problem.Report, e tree.Entry, m *sixToFour) {
	if n, _, ok := value.Number(r, e, 0, 1<<16-1); ok {
		m.pmt.Subnet = uint16(n)
	}
}

func readMapping(r *problem.Report, e tree.Entry, m *sixToFour) {
	if w, ok := value.Word(r, e, string(resolve.PMTRewrite), string(resolve.PMTNPT)); ok {
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

func (m *sixToFour) finish(r *problem.Report, t *Tunnel) resolve.Mechanism {
	switch {
	case t.State.Bad["role"]:
		return m.SixToFour
	case m.Role == "":
		m.Role = resolve.RoleRouter
	}
	for _, name := range slices.Sorted(maps.Keys(rolesWith)) {
		at, given := t.Values[name]
		if roles := rolesWith[name]; given && !t.State.Bad[name] && !slices.Contains(roles, m.Role) {
			var words []string
			for _, role := range roles {
				words = append(words, string(role))
			}
			r.Add(at, "%s contradicts role %q: leave it out, or set role to %s", name, m.Role, problem.Alternatives(problem.QuoteAll(words)))
		}
	}
	if !slices.Contains(rolesWith["relay"], m.Role) {
		m.Relay = config.Host{}
	}
	switch m.Role {
	case resolve.RoleRelay:
		t.need(r, "clients", `the IPv4 prefixes that the relay serves; ["0.0.0.0/0"] makes it an open one`)
	case resolve.RoleReturn:
		t.need(r, "sources", "this server's native IPv6 prefixes, whose answers it sends")
	case rolePMT:
		m.finishPMT(r, t)
		return m.pmt
	}
	m.checkLocal(r, t)
	return m.SixToFour
}

// checkLocal reports a local address from which a site cannot be reached (RFC 6343
// section 4.1).
func (m *sixToFour) checkLocal(r *problem.Report, t *Tunnel) {
	if !t.Local.Is4() || t.Local.IsLoopback() { // no mechanism accepts it
		return
	}
	b := t.Local.As4()
	if resolve.Martian4(binary.BigEndian.Uint32(b[:]), t.Strict) {
		r.Add(t.LocalAt, "%s is %v, which is not global, so that no answer could reach it: mode %q needs a public IPv4 address; behind others choose mode %q through a broker's server",
			t.LocalKey, t.Local, "6to4", "6in4")
	}
}
