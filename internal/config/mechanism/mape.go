package mechanism

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"sixfour/encap/mape"
	"sixfour/encap/mape/node"
	"sixfour/encap/resolve"
	"sixfour/internal/config"
	"sixfour/internal/config/problem"
	"sixfour/internal/config/tree"
	"sixfour/internal/config/value"
	"sixfour/internal/text"
)

// mapE holds the keys of mode map_e.
type mapE struct {
	role    string
	prefix  netip.Prefix // delegated to a customer edge
	rules   []mape.Rule
	relays  []config.Host
	draft03 bool
	option  *mape.Domain // option94; nil: none
}

// lw4o6 holds the keys of mode lw4o6.
type lw4o6 struct {
	role     string
	bindings []mape.Edge
	relays   []config.Host
	option   *mape.Domain // option96; nil: none
}

const (
	modeMapE  = "map_e"
	modeLW4o6 = "lw4o6"
)

// rolesOfMapE and rolesOfLW4o6 are the roles that have a key.
var (
	rolesOfMapE  = map[string][]string{"prefix": {"ce"}, "border_relay": {"ce"}, "option94": {"ce"}}
	rolesOfLW4o6 = map[string][]string{"border_relay": {"b4"}, "option96": {"b4"}}
)

func readRoleMapE(r *problem.Report, e tree.Entry, m *mapE) { m.role, _ = value.Word(r, e, "ce", "br") }

func readRoleLW4o6(r *problem.Report, e tree.Entry, m *lw4o6) {
	m.role, _ = value.Word(r, e, "b4", "aftr")
}

func readDraft03(r *problem.Report, e tree.Entry, m *mapE) { m.draft03, _ = value.Bool(r, e) }

// portKeys are the keys of ports in tables of type T.
func portKeys[T any](ports func(*T) *mape.Ports) []tree.Key[*T] {
	number := func(most int64, set func(p *mape.Ports, n int64)) func(*problem.Report, tree.Entry, *T) {
		return func(r *problem.Report, e tree.Entry, t *T) {
			if n, _, ok := value.Number(r, e, 0, most); ok {
				set(ports(t), n)
			}
		}
	}
	return []tree.Key[*T]{
		{Name: "offset", Read: number(15, func(p *mape.Ports, n int64) { p.Offset = int(n) })},
		{Name: "psid_len", Read: number(16, func(p *mape.Ports, n int64) { p.PSIDLen = int(n) })},
		{Name: "psid", Read: number(1<<16-1, func(p *mape.Ports, n int64) { p.PSID = uint16(n) })},
	}
}

var ruleKeys = slices.Concat([]tree.Key[*mape.Rule]{
	{Name: "ipv6", Read: value.Prefix(6, func(m *mape.Rule) *netip.Prefix { return &m.IPv6 })},
	{Name: "ipv4", Read: readPrefix4(func(m *mape.Rule) *netip.Prefix { return &m.IPv4 })},
	{Name: "ea_bits", Read: func(r *problem.Report, e tree.Entry, m *mape.Rule) {
		if n, _, ok := value.Number(r, e, 0, 48); ok {
			m.EABits = int(n)
		}
	}},
	{Name: "forwarding", Read: func(r *problem.Report, e tree.Entry, m *mape.Rule) { m.Forwarding, _ = value.Bool(r, e) }},
}, portKeys(func(m *mape.Rule) *mape.Ports { return &m.Ports }))

var bindingKeys = slices.Concat([]tree.Key[*mape.Edge]{
	{Name: "ipv4", Read: readPrefix4(func(m *mape.Edge) *netip.Prefix { return &m.IPv4 })},
	{Name: "ipv6", Read: func(r *problem.Report, e tree.Entry, m *mape.Edge) {
		m.IPv6, _ = value.Addr(r, e, 6, "", value.ParseAddr)
	}},
}, portKeys(func(m *mape.Edge) *mape.Ports { return &m.Ports }))

// readPrefix4 reads an IPv4 prefix or address.
func readPrefix4[T any](field func(T) *netip.Prefix) func(*problem.Report, tree.Entry, T) {
	return func(r *problem.Report, e tree.Entry, t T) {
		if e.Kind == tree.Array {
			value.RefuseType(r, e, "a string, an IPv4 address or prefix")
			return
		}
		var list []netip.Prefix
		value.Prefixes(4, func(l *[]netip.Prefix) *[]netip.Prefix { return l })(r, e, &list)
		if len(list) == 1 {
			*field(t) = list[0]
		}
	}
}

func readRules(r *problem.Report, e tree.Entry, m *mapE) {
	const want = `an array of tables, such as [{ ipv6 = "2001:db8::/40", ipv4 = "192.0.2.0/24", ea_bits = 16 }]`
	m.rules = readTables(r, e, want, mape.Rule{Ports: mape.Ports{Offset: mape.DefaultOffset}}, ruleKeys, [][2]string{{"ipv6", "the IPv6 prefix of the rule"}, {"ipv4", "the IPv4 prefix of the rule"}}, (*mape.Rule).Check)
}

func readBindings(r *problem.Report, e tree.Entry, m *lw4o6) {
	const want = `an array of tables, such as [{ ipv4 = "192.0.2.1", psid_len = 6, psid = 1, ipv6 = "2001:db8::1" }]`
	m.bindings = readTables(r, e, want, mape.Edge{}, bindingKeys, [][2]string{{"ipv4", "the IPv4 address"}}, func(b *mape.Edge) error {
		if !b.IPv4.IsSingleIP() {
			return fmt.Errorf("%v is not one IPv4 address: write a binding for each", b.IPv4)
		}
		return b.Ports.Check()
	})
}

// readTables reads an array of tables with values like preset. Needed are the keys that each must
// have, and what to set them to. Tables that are not valid are left out.
func readTables[T any](r *problem.Report, e tree.Entry, want string, preset T, keys []tree.Key[*T], needed [][2]string, check func(*T) error) (all []T) {
	if e.Kind != tree.Array {
		value.RefuseType(r, e, want)
		return nil
	}
	if len(e.Items) == 0 {
		r.Add(e.At, "%s is empty: it must be %s", e.Name, want)
	}
	for _, item := range e.Items {
		if r.Full(item.At) {
			return all
		}
		if item.Kind != tree.Table {
			r.Add(item.At, "%s has %s in it: it must be %s", e.Name, tree.KindNames[item.Kind], want)
			continue
		}
		t, before := preset, r.Found
		s := tree.Read(r, "a table of "+e.Name, item, keys, &t, tree.Hints{Elsewhere: func(string, string) string { return "" }})
		for _, n := range needed {
			s.Need(r, item.At, n[0], n[1])
		}
		if r.Found > before {
			continue
		}
		if err := check(&t); err != nil {
			r.Add(item.At, "%s: %v", e.Name, err)
			continue
		}
		all = append(all, t)
	}
	return all
}

// readDomain reads a container option of DHCPv6 as hexadecimal digits.
func readDomain[M any](code int, field func(M) **mape.Domain) func(*problem.Report, tree.Entry, M) {
	return func(r *problem.Report, e tree.Entry, m M) {
		want := fmt.Sprintf("option %d of DHCPv6 as hexadecimal digits, with its code and length", code)
		digits, ok := value.String(r, e, want)
		if !ok {
			return
		}
		b, err := hex.DecodeString(strings.NewReplacer(":", "", " ", "").Replace(digits))
		if err != nil || len(b) < 2 {
			value.Refuse(r, e, want)
			return
		}
		if int(b[0])<<8|int(b[1]) != code {
			r.Add(e.At, "%s is %s, an option with code %d: it must be %s", e.Name, problem.Quote(digits), int(b[0])<<8|int(b[1]), want)
			return
		}
		d, err := mape.Parse(b)
		if err != nil {
			r.Add(e.At, "%s is %s: %s: ask for what the DHCP server sent", e.Name, problem.Quote(digits), text.Clean(err.Error()))
			return
		}
		*field(m) = &d
	}
}

// take takes what the DHCP server said for what the keys say, and reports keys that contradict
// it.
func take(r *problem.Report, t *Tunnel, option string, d *mape.Domain, relays *[]config.Host, others ...string) {
	for _, name := range others {
		if at, given := t.Values[name]; given {
			r.Add(at, "%s contradicts %s, which has %[1]s, too: leave one of them out", name, option)
		}
	}
	if _, given := t.Values["border_relay"]; !given {
		for _, a := range d.BRs {
			*relays = append(*relays, config.Host{Addr: a})
		}
	}
}

// own returns the customer edge with the delegated prefix, by the rule with the longest IPv6
// prefix that contains it.
func (m *mapE) own() (mape.Edge, error) {
	if m.option != nil {
		m.rules = m.option.Rules
	}
	var basic *mape.Rule
	for i := range m.rules {
		r := &m.rules[i]
		r.Draft03 = m.draft03
		if r.IPv6.Overlaps(m.prefix) && (basic == nil || r.IPv6.Bits() > basic.IPv6.Bits()) {
			basic = r
		}
	}
	if basic == nil {
		return mape.Edge{}, fmt.Errorf("prefix is %v, which is in the IPv6 prefix of no rule: give the one that the provider has delegated to this site, and the provider's rules", m.prefix)
	}
	if n := basic.IPv6.Bits() + basic.EABits; m.prefix.Bits() < n {
		return mape.Edge{}, fmt.Errorf("prefix is %v, and the rule for %v gives each customer a /%d: give the prefix that the provider has delegated to this site", m.prefix, basic.IPv6, n)
	}
	return basic.Edge(m.prefix.Addr())
}

func (m *mapE) finish(r *problem.Report, t *Tunnel) resolve.Mechanism {
	t.need(r, "role", `"ce" or "br"`)
	t.checkRole(r, m.role, rolesOfMapE)
	if m.option != nil {
		take(r, t, "option94", m.option, &m.relays, "rules")
	} else if !t.State.Set["option94"] {
		t.need(r, "rules", `the provider's mapping rules, such as [{ ipv6 = "2001:db8::/40", ipv4 = "192.0.2.0/24", ea_bits = 16 }]`)
	}
	if m.role != "ce" {
		_, _ = m.own() // sets Draft03 in the rules
		return node.Relay{Rules: m.rules}
	}
	t.need(r, "prefix", "the IPv6 prefix that the provider has delegated to this site")
	t.needRelay(r, m.relays, "option94", "border relay")
	own := mape.Edge{}
	if m.prefix.IsValid() && len(m.rules) > 0 || m.option != nil {
		var err error
		if own, err = m.own(); err != nil && m.prefix.IsValid() {
			r.Add(t.Values["prefix"], "%v", err)
		}
	}
	t.checkShared(r, own)
	forwarding := slices.DeleteFunc(slices.Clone(m.rules), func(r mape.Rule) bool { return !r.Forwarding })
	return node.Edge{Mode: modeMapE, Own: own, Relays: m.relays, Rules: forwarding}
}

func (m *lw4o6) finish(r *problem.Report, t *Tunnel) resolve.Mechanism {
	t.need(r, "role", `"b4" or "aftr"`)
	t.checkRole(r, m.role, rolesOfLW4o6)
	switch {
	case m.option != nil:
		take(r, t, "option96", m.option, &m.relays, "bindings")
	case m.role == "b4" && !t.State.Set["option96"]:
		t.need(r, "bindings", `the IPv4 address and the ports of this end, such as [{ ipv4 = "192.0.2.1", psid_len = 6, psid = 1 }]`)
	case m.role == "aftr":
		t.need(r, "bindings", `those of all customers, such as [{ ipv4 = "192.0.2.1", psid_len = 6, psid = 1, ipv6 = "2001:db8::1" }]`)
	}
	at := t.Values["bindings"]
	if m.role != "b4" {
		for _, b := range m.bindings {
			if !b.IPv6.IsValid() {
				r.Add(at, "bindings: that of %v has no ipv6: give the customer's IPv6 address", b.IPv4.Addr())
			}
		}
		return node.AFTR{Bindings: m.bindings}
	}
	t.needRelay(r, m.relays, "option96", "AFTR")
	if len(m.bindings) > 1 {
		r.Add(at, "bindings has %d tables: a B4 has only its own", len(m.bindings))
	}
	own, _ := m.own()
	t.checkShared(r, own)
	return node.Edge{Mode: modeLW4o6, Own: mape.Edge{IPv4: own.IPv4, Ports: own.Ports}, Relays: m.relays}
}

// own returns this end's binding. Its IPv6 address is set if the binding says which one it has.
func (m *lw4o6) own() (own mape.Edge, ok bool) {
	switch {
	case m.option != nil && m.option.Bind != nil:
		b := m.option.Bind
		own = mape.Edge{IPv4: netip.PrefixFrom(b.IPv4, 32), Ports: b.Ports}
		switch {
		case b.Prefix.IsSingleIP():
			own.IPv6 = b.Prefix.Addr()
		case b.Prefix.Bits() > 0 && b.Prefix.Bits() <= 64: // RFC 7596 section 5.1: as in RFC 7597 section 6
			rule := mape.Rule{IPv6: b.Prefix, IPv4: own.IPv4, Ports: b.Ports}
			if e, err := rule.Edge(b.Prefix.Addr()); err == nil {
				own.IPv6 = e.IPv6
			}
		}
		return own, true
	case len(m.bindings) > 0:
		return m.bindings[0], true
	}
	return own, false
}

// needRelay reports that a customer edge has no relay.
func (t *Tunnel) needRelay(r *problem.Report, relays []config.Host, option, what string) {
	switch {
	case !t.State.Set[option]:
		t.need(r, "border_relay", "the IPv6 address of the provider's "+what+", or its DNS name")
	case len(relays) == 0 && t.State.Good(option) && !t.State.Bad["border_relay"]:
		r.Add(t.Values[option], "%s has no %s: set border_relay to its IPv6 address or its DNS name", option, what)
	}
}

// checkShared reports what makes the translation to a customer edge's address impossible.
func (t *Tunnel) checkShared(r *problem.Report, own mape.Edge) {
	if at, given := t.Values["netns"]; given && own.IPv4.IsValid() && own.IPv4.IsSingleIP() {
		r.Add(at, "netns contradicts a shared IPv4 address: packets are translated to %v in the daemon's own namespace only: leave it out, and run the daemon in that namespace", own.IPv4.Addr())
	}
	if own.IPv4.IsValid() && own.IPv4.IsSingleIP() && own.Ports.PSIDLen > 0 && own.Ports.Count() == 0 {
		r.Add(t.Header, "%v with %d offset bits and port set identifier %d has no ports: ask the provider for the right values", own.IPv4.Addr(), own.Ports.Offset, own.Ports.PSID)
	}
}

// presetMapE is the part of Preset for mode map_e: local is the customer edge's address in its
// prefix, address its IPv4 address if it need not share that, and all of IPv4 goes to it; the routes of a border relay are
// the IPv4 prefixes of its rules.
func presetMapE(table map[string]tree.Entry, set func(name string, v tree.Value)) {
	var m mapE
	readAgain(keysMapE, table, &m)
	if m.role == "ce" {
		own, err := m.own()
		if err != nil || !m.prefix.IsValid() { // the file will be refused: that local is missing is not the reason
			own = mape.Edge{IPv6: anyAddress}
		}
		presetEdge(own, table["role"].At, set)
		return
	}
	prefixes := make([]string, len(m.rules))
	for i, rule := range m.rules {
		prefixes[i] = rule.IPv4.String()
	}
	presetRelay(prefixes, table["role"].At, set)
}

// anyAddress is the local address in a file that will be refused for another reason.
var anyAddress = netip.MustParseAddr("2001:db8::1")

// presetLW4o6 is presetMapE for mode lw4o6. The local address of a B4 that its binding does not
// name is the one that routing uses.
func presetLW4o6(table map[string]tree.Entry, set func(name string, v tree.Value)) {
	var m lw4o6
	readAgain(keysLW4o6, table, &m)
	at := table["role"].At
	if m.role == "b4" {
		if own, ok := m.own(); ok {
			presetEdge(own, at, set)
		}
		local := "auto"
		if len(m.relays) == 0 && m.option == nil { // routing to nowhere: the file will be refused
			local = anyAddress.String()
		}
		set("local", text1(at, local))
		return
	}
	prefixes := make([]string, len(m.bindings))
	for i, b := range m.bindings {
		prefixes[i] = b.IPv4.String()
	}
	presetRelay(prefixes, at, set)
}

// readAgain reads a table's keys into m, without reporting problems.
func readAgain[M any](keys []tree.Key[*M], table map[string]tree.Entry, m *M) {
	quiet := &problem.Report{}
	for _, k := range keys {
		if e, given := table[k.Name]; given && e.Value != nil {
			k.Read(quiet, e, m)
		}
	}
}

func presetEdge(own mape.Edge, at problem.Pos, set func(name string, v tree.Value)) {
	if own.IPv6.IsValid() {
		set("local", text1(at, own.IPv6.String()))
	}
	switch {
	case own.Ports.PSIDLen > 0: // the other ports of its address are on other hosts
		set("address", texts(at, []string{addressOfEdge}))
	case own.IPv4.IsValid() && own.IPv4.IsSingleIP():
		set("address", texts(at, []string{own.IPv4.String()}))
	}
	set("routes", texts(at, []string{"0.0.0.0/0"}))
}

// The addresses of a B4 and an AFTR in the tunnel (RFC 6333 section 5.7).
const (
	addressOfEdge  = "192.0.0.2/32"
	addressOfRelay = "192.0.0.1/32"
)

func presetRelay(prefixes []string, at problem.Pos, set func(name string, v tree.Value)) {
	set("address", texts(at, []string{addressOfRelay}))
	slices.Sort(prefixes)
	if prefixes = slices.Compact(prefixes); len(prefixes) > 0 {
		set("routes", texts(at, prefixes))
	}
}

// text1 and texts return a string and an array of strings.
func text1(at problem.Pos, s string) tree.Value {
	return tree.Value{Kind: tree.String, At: at, Text: s}
}

func texts(at problem.Pos, list []string) tree.Value {
	v := tree.Value{Kind: tree.Array, At: at}
	for _, s := range list {
		one := text1(at, s)
		v.Items = append(v.Items, &one)
	}
	return v
}
