package mechanism

import (
	"hash/maphash"
	"net/netip"
	"slices"
	"strconv"

	"sixfour/encap/header"
	"sixfour/encap/resolve"
	"sixfour/encap/sixbed4"
	"sixfour/encap/sixbed4/node"
	"sixfour/internal/config"
	"sixfour/internal/config/problem"
	"sixfour/internal/config/tree"
	"sixfour/internal/config/value"
)

// sixBed4 holds the keys of mode 6bed4.
type sixBed4 struct {
	role   string
	router config.Host
	netid  uint16
	prefix netip.Prefix
	direct bool
	port   uint16
}

const mode6bed4 = "6bed4"

// rolesOf6bed4 are the roles that have a key.
var rolesOf6bed4 = map[string][]string{"router": {"peer"}, "direct": {"peer"}, "netid": {"router"}, "prefix": {"router"}}

func readRole6bed4(r *problem.Report, e tree.Entry, m *sixBed4) {
	m.role, _ = value.Word(r, e, "peer", "router")
}

// yesNo reads "yes" or "no".
func yesNo[M any](field func(M) *bool) func(*problem.Report, tree.Entry, M) {
	return func(r *problem.Report, e tree.Entry, m M) {
		if word, ok := value.Word(r, e, "yes", "no"); ok {
			*field(m) = word == "yes"
		}
	}
}

func readNetID(r *problem.Report, e tree.Entry, m *sixBed4) {
	if n, _, ok := value.Number(r, e, 0, 1<<16-1); ok {
		m.netid = uint16(n)
	}
}

// preset6bed4 is the part of Preset for mode 6bed4: local is "auto" at a peer, and routes at a
// router are its own network, and those of other routers.
func preset6bed4(table map[string]tree.Entry, set func(name string, v tree.Value)) {
	role := table["role"]
	set("mtu", tree.Value{Kind: tree.Integer, At: role.At, Text: strconv.Itoa(sixbed4.MTU)})
	if role.Text == "peer" {
		set("local", tree.Value{Kind: tree.String, At: role.At, Text: "auto"})
		return
	}
	network := native6bed4.String()
	if p, given := table["prefix"]; given && p.Value != nil && p.Kind == tree.String {
		if own, err := netip.ParsePrefix(p.Text); err == nil && !native6bed4.Contains(own.Addr()) {
			network = p.Text
		}
	}
	set("routes", tree.Value{Kind: tree.Array, At: role.At, Items: []*tree.Value{{Kind: tree.String, At: role.At, Text: network}}})
}

// native6bed4 has the networks that are named after their router.
var native6bed4 = netip.MustParsePrefix("fc64::/16")

func (m *sixBed4) finish(r *problem.Report, t *Tunnel) resolve.Mechanism {
	t.need(r, "role", `"peer" or "router"`)
	t.checkRole(r, m.role, rolesOf6bed4)
	if m.role == "router" {
		if m.port == 0 {
			m.port = sixbed4.Port
		}
		m.checkRouter(r, t)
		return node.NewRouter(m.port, m.prefix)
	}
	if m.role == "peer" {
		t.need(r, "router", "the router's IPv4 address or its DNS name")
	}
	if m.port == 0 {
		m.port = uint16(49152 + maphash.String(sumsSeed, mode6bed4+t.Local.String())%16384)
	}
	return node.NewPeer(m.port, m.router, m.direct)
}

// checkRouter checks the network of a router, and sets it if only netid is given.
func (m *sixBed4) checkRouter(r *problem.Report, t *Tunnel) {
	at, given := t.Values["prefix"]
	netid, byID := t.Values["netid"]
	switch {
	case given && byID:
		r.Add(netid, "netid contradicts prefix, which is the whole network: leave one of them out")
	case byID && t.Local.Is4():
		a := t.Local.As4()
		network := sixbed4.NetworkOf(m.netid, uint32(a[0])<<24|uint32(a[1])<<16|uint32(a[2])<<8|uint32(a[3]))
		m.prefix = netip.PrefixFrom(header.Word6{Hi: network}.Addr(), 64)
	case byID:
		t.need(r, "local", "the IPv4 address of the router, which is part of its network")
	case !given:
		t.need(r, "prefix", "the /64 of the router's peers; or set netid, such as 2989, for one in fc64::/16")
	case t.State.Bad["prefix"]:
	case m.prefix.Bits() != 64:
		r.Add(at, "prefix is %v: it must be a /64, whose addresses have the outer addresses and ports of peers in their second half", m.prefix)
	case native6bed4.Contains(m.prefix.Addr()) && t.Local.Is4():
		a := m.prefix.Addr().As16()
		if own := netip.AddrFrom4([4]byte(a[4:8])); own != t.Local {
			r.Add(at, "prefix is %v, the network of a router at %v: set local to that address, or netid in place of prefix", m.prefix, own)
		}
	}
}

// checkRole reports keys of other roles. Roles has those of each key that not all have.
func (t *Tunnel) checkRole(r *problem.Report, role string, roles map[string][]string) {
	if role == "" {
		return
	}
	names := make([]string, 0, len(roles))
	for name := range roles {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		if at, given := t.Values[name]; given && !slices.Contains(roles[name], role) {
			r.Add(at, "%s contradicts role %q: leave it out, or set role to %s", name, role, problem.Alternatives(problem.QuoteAll(roles[name])))
		}
	}
}
