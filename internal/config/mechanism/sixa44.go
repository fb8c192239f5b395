package mechanism

import (
	"net/netip"
	"strconv"

	"sixfour/encap/resolve"
	"sixfour/encap/sixa44"
	"sixfour/encap/sixa44/node"
	"sixfour/internal/config"
	"sixfour/internal/config/problem"
	"sixfour/internal/config/tree"
	"sixfour/internal/config/value"
)

// sixA44 holds the keys of mode 6a44.
type sixA44 struct {
	role      string
	relay     config.Host
	prefix    netip.Prefix
	customers []netip.Prefix
}

const mode6a44 = "6a44"

// rolesOf6a44 are the roles that have a key.
var rolesOf6a44 = map[string][]string{"relay": {"client"}, "prefix": {"relay"}, "customers": {"relay"}}

func readRole6a44(r *problem.Report, e tree.Entry, m *sixA44) {
	m.role, _ = value.Word(r, e, "client", "relay")
}

// preset6a44 is the part of Preset for mode 6a44: local is "auto" at a client, and routes at a
// relay is the prefix of its clients.
func preset6a44(table map[string]tree.Entry, set func(name string, v tree.Value)) {
	role, prefix := table["role"], table["prefix"]
	set("mtu", tree.Value{Kind: tree.Integer, At: role.At, Text: strconv.Itoa(sixa44.MTU)})
	switch {
	case role.Text == "client":
		set("local", tree.Value{Kind: tree.String, At: role.At, Text: "auto"})
	case prefix.Value != nil && prefix.Kind == tree.String:
		set("routes", tree.Value{Kind: tree.Array, At: prefix.At, Items: []*tree.Value{prefix.Value}})
	}
}

func (m *sixA44) finish(r *problem.Report, t *Tunnel) resolve.Mechanism {
	t.need(r, "role", `"client" or "relay"`)
	t.checkRole(r, m.role, rolesOf6a44)
	if m.role != "relay" {
		return node.Client{Relay: m.relay}
	}
	t.need(r, "prefix", "the /48 of the provider, whose addresses have the outer addresses and ports of clients")
	if at, given := t.Values["prefix"]; given && !t.State.Bad["prefix"] && m.prefix.Bits() != sixa44.ProviderBits {
		r.Add(at, "prefix is %v: it must be a /48, whose addresses have the outer addresses and ports of clients", m.prefix)
	}
	for _, c := range m.customers {
		if a := c.Addr(); a.IsLoopback() || a.IsMulticast() || a.IsLinkLocalUnicast() || a.IsUnspecified() {
			r.Add(t.Values["customers"], "customers has %v, in which no customer can have an address: leave it out; without customers the relay serves all public addresses", c)
		}
	}
	return node.Relay{Prefix: m.prefix, Customers: m.customers}
}
