package mechanism

import (
	"net/netip"
	"slices"

	"sixfour/encap/lisp"
	"sixfour/encap/lisp/node"
	"sixfour/encap/resolve"
	"sixfour/internal/config"
	"sixfour/internal/config/problem"
	"sixfour/internal/config/tree"
	"sixfour/internal/config/value"
)

// lispKeys holds the keys of mode lisp.
type lispKeys struct {
	role string
	node.Router
	key       config.Secret
	algorithm lisp.Algorithm
}

const modeLISP = "lisp"

// rolesOfLISP are the roles that have a key.
var rolesOfLISP = map[string][]string{
	"rloc": {"xtr"}, "map_server": {"xtr"}, "key_file": {"xtr"}, "algorithm": {"xtr"}, "nonce_file": {"xtr"}, "proxy_etr": {"xtr"}, "proxy_reply": {"xtr"},
}

func readRoleLISP(r *problem.Report, e tree.Entry, m *lispKeys) {
	m.role, _ = value.Word(r, e, "xtr", "pxtr")
}

var rlocKeys = []tree.Key[*node.RLOC]{
	{Name: "address", Read: func(r *problem.Report, e tree.Entry, l *node.RLOC) {
		l.Addr, _ = value.Addr(r, e, 0, "", value.ParseAddr)
	}},
	{Name: "priority", Read: byteKey(func(l *node.RLOC) *uint8 { return &l.Priority })},
	{Name: "weight", Read: byteKey(func(l *node.RLOC) *uint8 { return &l.Weight })},
}

func byteKey[T any](field func(T) *uint8) func(*problem.Report, tree.Entry, T) {
	return func(r *problem.Report, e tree.Entry, t T) {
		if n, _, ok := value.Number(r, e, 0, 255); ok {
			*field(t) = uint8(n)
		}
	}
}

func readRLOCs(r *problem.Report, e tree.Entry, m *lispKeys) {
	const want = `an array of tables, such as [{ address = "192.0.2.1", priority = 1, weight = 100 }]`
	m.RLOCs = readTables(r, e, want, node.RLOC{Priority: 1, Weight: 100}, rlocKeys, [][2]string{{"address", "the address of the locator"}}, func(*node.RLOC) error { return nil })
}

func readLISPKey(r *problem.Report, e tree.Entry, m *lispKeys) {
	if s, ok := value.Secret(r, e, 1); ok {
		m.key = s
	}
}

// algorithms are the words for those that authenticate registrations.
var algorithms = []string{lisp.SHA1: "sha1", lisp.SHA256: "sha256", lisp.SHA256HKDF: "sha256-hkdf"}

func readAlgorithm(r *problem.Report, e tree.Entry, m *lispKeys) {
	if word, ok := value.Word(r, e, algorithms[lisp.SHA1:]...); ok {
		m.algorithm = lisp.Algorithm(slices.Index(algorithms, word))
	}
}

// defaultNonceFile is in the directory that the daemon's unit makes.
const defaultNonceFile = "/var/lib/sixfour/lisp.nonce"

func readNonceFile(r *problem.Report, e tree.Entry, m *lispKeys) {
	if path, ok := value.File(r, e); ok {
		m.NonceFile = path
	}
}

func readInstance(r *problem.Report, e tree.Entry, m *lispKeys) {
	if n, _, ok := value.Number(r, e, 0, lisp.MaxInstance); ok {
		m.Instance = uint32(n)
	}
}

// presetLISP is the part of Preset for mode lisp: outer headers have the TTL of the packet (RFC
// 9300 section 5.3), and the routes of a proxy xTR are the prefixes of all sites.
func presetLISP(table map[string]tree.Entry, set func(name string, v tree.Value)) {
	role, local := table["role"], table["local"]
	name := "ttl"
	if local.Value != nil {
		if a, err := netip.ParseAddr(local.Text); err == nil && a.Is6() {
			name = "hop_limit"
		}
	}
	set(name, text1(role.At, "inherit"))
	if eid := table["eid"]; role.Text == "pxtr" && eid.Value != nil {
		set("routes", *eid.Value)
	}
}

func (m *lispKeys) finish(r *problem.Report, t *Tunnel) resolve.Mechanism {
	t.need(r, "role", `"xtr" or "pxtr"`)
	t.checkRole(r, m.role, rolesOfLISP)
	if m.role == "pxtr" {
		t.need(r, "eid", `the prefixes of all sites that are served, such as ["2001:db8:e0::/44"]`)
		m.Proxy = true
	} else {
		t.need(r, "eid", `the prefixes of this site, such as ["2001:db8:e1::/48"]`)
	}
	t.need(r, "map_resolver", "the address of the map resolver, which knows the locators of other sites, or its DNS name")
	server, registers := t.Values["map_server"]
	key, given := t.Values["key_file"]
	switch {
	case registers && !given:
		r.Add(server, "map_server needs key_file: set it to a file with the key that the map server has for this site")
	case given && !registers && m.role != "pxtr":
		r.Add(key, "key_file needs map_server: set it to the map server at which this site registers, or leave key_file out")
	}
	m.Key = node.NewKey(m.key.File, m.key.Value(), m.algorithm)
	m.checkEIDs(r, t)
	m.checkLocators(r, t)
	m.checkVersion(r, t)
	return m.Router
}

// checkEIDs reports prefixes that overlap.
func (m *lispKeys) checkEIDs(r *problem.Report, t *Tunnel) {
	for i, p := range m.EIDs {
		for _, o := range m.EIDs[:i] {
			if p.Overlaps(o) {
				r.Add(t.Values["eid"], "eid has %v and %v, which overlap: leave the longer one out", o, p)
			}
		}
		if p.Bits() == 0 {
			r.Add(t.Values["eid"], "eid has %v, which contains all addresses, locators too: it must be the prefixes of sites", p)
		}
	}
}

// checkLocators reports locators that lead into the tunnel, and a list without this router.
func (m *lispKeys) checkLocators(r *problem.Report, t *Tunnel) {
	at := t.Values["rloc"]
	for i, l := range m.RLOCs {
		for _, p := range m.EIDs {
			if p.Contains(l.Addr) {
				r.Add(at, "rloc has %v, which is in the prefix %v of eid: packets to it would enter the tunnel; a locator is an address of the network between the sites", l.Addr, p)
			}
		}
		if slices.ContainsFunc(m.RLOCs[:i], func(o node.RLOC) bool { return o.Addr == l.Addr }) {
			r.Add(at, "rloc has %v twice: leave one out", l.Addr)
		}
	}
	if len(m.RLOCs) > 0 && t.Local.IsValid() && !slices.ContainsFunc(m.RLOCs, func(l node.RLOC) bool { return l.Addr == t.Local }) {
		r.Add(at, "rloc lacks %v, which is %s, so that other sites would send nothing to this router: add it", t.Local, t.LocalKey)
	}
}

// checkVersion reports hosts that cannot be reached from the local address, or only through the
// tunnel.
func (m *lispKeys) checkVersion(r *problem.Report, t *Tunnel) {
	for name, hosts := range map[string][]config.Host{"map_resolver": m.Resolvers, "map_server": m.Servers, "proxy_etr": m.ProxyETRs} {
		for _, h := range hosts {
			if !h.Addr.IsValid() {
				continue
			}
			if t.Local.IsValid() && h.Addr.Is4() != t.Local.Is4() {
				r.Add(t.Values[name], "%s has %v, and %s is %v: both must be IPv4 addresses, or both IPv6 addresses", name, h.Addr, t.LocalKey, t.Local)
			}
			for _, p := range m.EIDs {
				if p.Contains(h.Addr) {
					r.Add(t.Values[name], "%s has %v, which is in the prefix %v of eid: packets to it would enter the tunnel", name, h.Addr, p)
				}
			}
		}
	}
}
