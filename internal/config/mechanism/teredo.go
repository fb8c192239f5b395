package mechanism

import (
	"hash/maphash"
	"net/netip"
	"slices"

	"sixfour/encap/resolve"
	"sixfour/encap/teredo"
	"sixfour/encap/teredo/node"
	"sixfour/internal/config"
	"sixfour/internal/config/problem"
	"sixfour/internal/config/tree"
	"sixfour/internal/config/value"
)

// teredoKeys holds the keys of mode teredo.
type teredoKeys struct {
	role            string
	server, server2 config.Host
	bind            []netip.Addr
	prefixes        []netip.Prefix
	port            uint16
}

const modeTeredo = "teredo"

// rolesOfTeredo are the roles that have a key.
var rolesOfTeredo = map[string][]string{
	"server": {"client"}, "server2": {"client"}, "bind": {"server"}, "prefix": {"relay"}, "port": {"client", "relay"},
}

func readTeredoRole(r *problem.Report, e tree.Entry, m *teredoKeys) {
	m.role, _ = value.Word(r, e, "client", "server", "relay")
}

func readTeredoHost(field func(m *teredoKeys) *config.Host) func(*problem.Report, tree.Entry, *teredoKeys) {
	return func(r *problem.Report, e tree.Entry, m *teredoKeys) {
		if h, ok := value.Host(r, e, 4, " or a DNS name"); ok {
			*field(m) = h
		}
	}
}

func readBind(r *problem.Report, e tree.Entry, m *teredoKeys) {
	const want = `two IPv4 addresses of this host, such as ["192.0.2.1", "192.0.2.2"]`
	items := value.Strings(r, e, want)
	for _, item := range items {
		if a, ok := value.Addr(r, item, 4, "", value.ParseAddr); ok {
			m.bind = append(m.bind, a)
		}
	}
	if len(items) != 2 && e.Kind == tree.Array {
		r.Add(e.At, "bind has %d addresses: it must be %s", len(items), want)
	}
}

func readTeredoPort(r *problem.Report, e tree.Entry, m *teredoKeys) {
	if n, _, ok := value.Number(r, e, 1, 1<<16-1); ok {
		m.port = uint16(n)
	}
}

// PresetLocal gives a table of mode teredo the key local, if it does not have it: at a client
// it is "auto", and at a server the first address in bind.
func PresetLocal(table map[string]tree.Entry) {
	if _, given := table["local"]; given || table["mode"].Value == nil || table["mode"].Text != modeTeredo || table["role"].Value == nil {
		return
	}
	switch bind := table["bind"].Value; table["role"].Text {
	case "client":
		at := table["role"]
		table["local"] = tree.Entry{Name: "local", KeyAt: at.KeyAt, Value: &tree.Value{Kind: tree.String, At: at.At, Text: "auto"}}
	case "server":
		if bind != nil && len(bind.Items) > 0 {
			table["local"] = tree.Entry{Name: "local", KeyAt: table["bind"].KeyAt, Value: bind.Items[0]}
		}
	}
}

func (m *teredoKeys) finish(r *problem.Report, t *Tunnel) resolve.Mechanism {
	t.need(r, "role", `"client", "server" or "relay"`)
	if m.role != "" {
		for _, name := range []string{"server", "server2", "bind", "prefix", "port"} {
			if at, given := t.Values[name]; given && !slices.Contains(rolesOfTeredo[name], m.role) {
				r.Add(at, "%s contradicts role %q: leave it out, or set role to %s", name, m.role, problem.Alternatives(problem.QuoteAll(rolesOfTeredo[name])))
			}
		}
	}
	if m.port == 0 { // a port that nobody can guess keeps forged packets away (RFC 6169 section 2.4)
		m.port = uint16(49152 + maphash.String(sumsSeed, m.role+t.Local.String())%16384)
	}
	switch m.role {
	case "server":
		t.need(r, "bind", `two IPv4 addresses of this host, such as ["192.0.2.1", "192.0.2.2"]`)
		if len(m.bind) != 2 {
			m.bind = make([]netip.Addr, 2)
		}
		return node.NewServer(m.bind[0], m.bind[1])
	case "relay":
		t.need(r, "prefix", `the IPv6 prefixes whose hosts are served, such as this host's own address`)
		for _, p := range m.prefixes {
			if p.Overlaps(prefixTeredo) {
				r.Add(t.Values["prefix"], "prefix has %v, which contains addresses of Teredo clients: it must be the native addresses of the hosts that the relay serves", p)
			}
		}
		if m.port == teredo.Port {
			r.Add(t.Values["port"], "port is %d, at which only a server may be: choose another one, or leave it out", m.port)
		}
		return node.NewRelay(m.port, m.prefixes)
	}
	if m.role == "client" {
		t.need(r, "server", "the server's IPv4 address or its DNS name")
	}
	return node.NewClient(m.port, m.server, m.server2)
}

var prefixTeredo = netip.MustParsePrefix("2001::/32")
