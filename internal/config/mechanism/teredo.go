package mechanism

import (
	"hash/maphash"
	"net/netip"
	"slices"
	"strconv"

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
	discovery       bool
	besideNative    bool
	measure         bool
	user            string
	password        config.Secret
}

const modeTeredo = "teredo"

// rolesOfTeredo are the roles that have a key.
var rolesOfTeredo = map[string][]string{
	"server": {"client"}, "server2": {"client"}, "bind": {"server"}, "prefix": {"relay"}, "port": {"client", "relay"},
	"discovery": {"client"}, "beside_native": {"client"}, "measure_refresh": {"client"}, "user": {"client", "server"}, "password_file": {"client", "server"},
}

func readTeredoRole(r *problem.Report, e tree.Entry, m *teredoKeys) {
	m.role, _ = value.Word(r, e, "client", "server", "relay")
}

// host4 reads an IPv4 address or a name.
func host4[M any](field func(M) *config.Host) func(*problem.Report, tree.Entry, M) {
	return func(r *problem.Report, e tree.Entry, m M) {
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

// port reads a UDP port.
func port[M any](field func(M) *uint16) func(*problem.Report, tree.Entry, M) {
	return func(r *problem.Report, e tree.Entry, m M) {
		if n, _, ok := value.Number(r, e, 1, 1<<16-1); ok {
			*field(m) = uint16(n)
		}
	}
}

// presets give a table of a mode keys that it does not have, by its other keys.
var presets = map[string]func(table map[string]tree.Entry, set func(name string, v tree.Value)){
	modeTeredo: presetTeredo, mode6a44: preset6a44, mode6bed4: preset6bed4, modeLISP: presetLISP,
	modeMapE: presetMapE, modeLW4o6: presetLW4o6,
}

// Preset gives a tunnel's table with a role the keys that it does not have, and for which its
// mode has values.
func Preset(table map[string]tree.Entry) {
	role := table["role"]
	if table["mode"].Value == nil || role.Value == nil {
		return
	}
	if preset := presets[table["mode"].Text]; preset != nil {
		preset(table, func(name string, v tree.Value) {
			if _, given := table[name]; !given {
				table[name] = tree.Entry{Name: name, KeyAt: role.KeyAt, Value: &v}
			}
		})
	}
}

// presetTeredo is the part of Preset for mode teredo: local is "auto" at a client, and the
// first address in bind at a server; routes at a relay is the prefix of all clients; and mtu is
// that of the Teredo link.
func presetTeredo(table map[string]tree.Entry, set func(name string, v tree.Value)) {
	role, bind := table["role"], table["bind"]
	set("mtu", tree.Value{Kind: tree.Integer, At: role.At, Text: strconv.Itoa(teredo.MTU)})
	switch {
	case role.Text == "client":
		set("local", tree.Value{Kind: tree.String, At: role.At, Text: "auto"})
	case role.Text == "relay":
		set("routes", tree.Value{Kind: tree.Array, At: role.At, Items: []*tree.Value{{Kind: tree.String, At: role.At, Text: prefixTeredo.String()}}})
	case role.Text == "server" && bind.Value != nil && len(bind.Items) > 0:
		set("local", *bind.Items[0])
	}
}

func (m *teredoKeys) finish(r *problem.Report, t *Tunnel) resolve.Mechanism {
	t.need(r, "role", `"client", "server" or "relay"`)
	t.checkRole(r, m.role, rolesOfTeredo)
	if m.port == 0 { // a port that nobody can guess keeps forged packets away (RFC 6169 section 2.4)
		m.port = uint16(49152 + maphash.String(sumsSeed, m.role+t.Local.String())%16384)
	}
	switch m.role {
	case "server":
		t.need(r, "bind", `two IPv4 addresses of this host, such as ["192.0.2.1", "192.0.2.2"]`)
		if len(m.bind) != 2 {
			m.bind = make([]netip.Addr, 2)
		}
		return node.NewServer(m.bind[0], m.bind[1]).With(m.key(r, t))
	case "relay":
		t.need(r, "prefix", `the IPv6 prefixes whose hosts are served, such as this host's own address`)
		for _, p := range m.prefixes {
			if p.Overlaps(prefixTeredo) {
				r.Add(t.Values["prefix"], "prefix has %v, which contains addresses of Teredo clients: it must be the native addresses of the hosts that the relay serves", p)
			}
		}
		covers := func(p netip.Prefix) bool { return p.Bits() <= prefixTeredo.Bits() && p.Contains(prefixTeredo.Addr()) }
		if at, given := t.Values["routes"]; given && !t.State.Bad["routes"] && !slices.ContainsFunc(t.Routes, covers) {
			r.Add(at, "routes lacks %v, the prefix of all clients, so that the relay would get no packets for them: add it, or leave routes out", prefixTeredo)
		}
		if m.port == teredo.Port {
			r.Add(t.Values["port"], "port is %d, at which only a server may be: choose another one, or leave it out", m.port)
		}
		return node.NewRelay(m.port, m.prefixes)
	}
	if m.role == "client" {
		t.need(r, "server", "the server's IPv4 address or its DNS name")
	}
	c := node.NewClient(m.port, m.server, m.server2).With(m.key(r, t))
	if m.measure {
		if c.Second = m.port + 1; c.Second < 1024 || c.Second == teredo.Port {
			c.Second = m.port - 1
		}
	}
	c.NoDiscovery, c.BesideNative = !m.discovery, m.besideNative
	return c
}

// key returns the key of user and password_file, which need each other.
func (m *teredoKeys) key(r *problem.Report, t *Tunnel) node.Key {
	user, named := t.Values["user"]
	file, given := t.Values["password_file"]
	switch {
	case named && !given:
		r.Add(user, "user needs password_file: set it to a file with the password that the server and its clients have, or leave user out")
	case given && !named:
		r.Add(file, "password_file needs user: set it to the name that the server and its clients have, or leave password_file out")
	}
	return node.NewKey(m.user, m.password.File, m.password.Value())
}

func readTeredoUser(r *problem.Report, e tree.Entry, m *teredoKeys) {
	const want = "a name that the server and its clients have"
	if text, ok := value.String(r, e, want); ok {
		if text == "" || len(text) > 255 {
			value.Refuse(r, e, want+", of 1 to 255 bytes")
			return
		}
		m.user = text
	}
}

func readTeredoPassword(r *problem.Report, e tree.Entry, m *teredoKeys) {
	if s, ok := value.Secret(r, e, 8); ok {
		m.password = s
	}
}

var prefixTeredo = netip.MustParsePrefix("2001::/32")
