// Package mechanism has the automatic modes: the keys of each, and how a mechanism of
// package resolve is made from their values.
package mechanism

import (
	"net/netip"
	"slices"

	"sixfour/encap/lisp"
	"sixfour/encap/lisp/node"
	"sixfour/encap/mape"
	"sixfour/encap/resolve"
	"sixfour/encap/sixa44"
	"sixfour/internal/config"
	"sixfour/internal/config/problem"
	"sixfour/internal/config/tree"
	"sixfour/internal/config/value"
)

// Row is an automatic mode: its keys, and how they are read.
type Row struct {
	Mode      string
	Keys      []string
	Outermost string // why it must be the outermost layer of a stack; "": it need not be
	Begin     func() Reading
}

// Reading holds the keys of one tunnel's mechanism while they are read.
type Reading struct {
	Read func(name string, r *problem.Report, e tree.Entry)
	// Finish checks the values against each other and the rest of the tunnel.
	Finish func(r *problem.Report, t *Tunnel) resolve.Mechanism
}

// Tunnel is the tunnel of a mechanism: what is known of it when all its keys are read.
type Tunnel struct {
	State    tree.State
	Header   problem.Pos            // of the table
	Values   map[string]problem.Pos // of the keys in the table
	Address  []netip.Prefix
	Routes   []netip.Prefix
	Strict   bool
	Local    netip.Addr // the outer address; zero: none, or "auto"
	LocalKey string     // the key that sets it
	LocalAt  problem.Pos
}

// need reports that the tunnel does not have a key.
func (t *Tunnel) need(r *problem.Report, name, set string) { t.State.Need(r, t.Header, name, set) }

// Rows are the automatic modes. A new mode needs a row here and one in
// encap.Modes. The row has preset values, the keys that set fields in them, and the
// function that builds the mechanism from them.
var Rows = []Row{
	row("6to4", sixToFour{resolve.SixToFour{Relay: AnycastRelay}, resolve.PMT{Mode: resolve.PMTRewrite}}, []tree.Key[*sixToFour]{
		{Name: "role", Read: readRole6to4},
		{Name: "relay", Read: readRelay},
		{Name: "relays", Read: value.Prefixes(4, func(m *sixToFour) *[]netip.Prefix { return &m.Relays })},
		{Name: "clients", Read: value.Prefixes(4, func(m *sixToFour) *[]netip.Prefix { return &m.Clients })},
		{Name: "sources", Read: value.Prefixes(6, func(m *sixToFour) *[]netip.Prefix { return &m.Sources })},
		{Name: "provider_prefix", Read: value.Prefix(6, func(m *sixToFour) *netip.Prefix { return &m.pmt.ProviderPrefix })},
		{Name: "v4_common", Read: value.Prefix(4, func(m *sixToFour) *netip.Prefix { return &m.pmt.Common })},
		{Name: "customers", Read: value.Prefixes(4, func(m *sixToFour) *[]netip.Prefix { return &m.pmt.Customers })},
		{Name: "subnet", Read: readSubnet},
		{Name: "mapping", Read: readMapping},
	}, (*sixToFour).finish),
	row("6rd", sixRD{}, []tree.Key[*sixRD]{
		{Name: "prefix", Read: value.Prefix(6, func(m *sixRD) *netip.Prefix { return &m.Prefix })},
		{Name: "mask_len", Read: readMaskLen},
		{Name: "border_relay", Read: value.Hosts(4, func(m *sixRD) *[]config.Host { return &m.Relays })},
		{Name: "option212", Read: readOption212},
		{Name: "v4_common", Read: value.Prefix(4, func(m *sixRD) *netip.Prefix { return &m.common })},
		{Name: "role", Read: readRole6rd},
	}, (*sixRD).finish),
	outermost("it knows its routers and neighbours by the outer addresses of their packets", row("isatap", isatap{}, []tree.Key[*isatap]{
		{Name: "routers", Read: value.Hosts(4, func(m *isatap) *[]config.Host { return &m.Routers })},
		{Name: "router", Read: func(r *problem.Report, e tree.Entry, m *isatap) { m.Router, _ = value.Bool(r, e) }},
		{Name: "prefix", Read: value.Prefixes(6, func(m *isatap) *[]netip.Prefix { return &m.Prefixes })},
	}, (*isatap).finish)),
	row("v4compat", resolve.V4Compat{}, nil, plain[resolve.V4Compat]),
	outermost("it sends to IPv4 multicast groups", row("6over4", resolve.SixOverFour{Scope: 192}, []tree.Key[*resolve.SixOverFour]{
		{Name: "scope", Read: readScope},
	}, plain[resolve.SixOverFour])),
	outermost("its packets have a UDP header of their own", row(modeTeredo, teredoKeys{discovery: true}, []tree.Key[*teredoKeys]{
		{Name: "role", Read: readTeredoRole},
		{Name: "server", Read: host4(func(m *teredoKeys) *config.Host { return &m.server })},
		{Name: "server2", Read: host4(func(m *teredoKeys) *config.Host { return &m.server2 })},
		{Name: "bind", Read: readBind},
		{Name: "prefix", Read: value.Prefixes(6, func(m *teredoKeys) *[]netip.Prefix { return &m.prefixes })},
		{Name: "port", Read: port(func(m *teredoKeys) *uint16 { return &m.port })},
		{Name: "discovery", Read: yesNo(func(m *teredoKeys) *bool { return &m.discovery })},
		{Name: "beside_native", Read: yesNo(func(m *teredoKeys) *bool { return &m.besideNative })},
		{Name: "measure_refresh", Read: yesNo(func(m *teredoKeys) *bool { return &m.measure })},
		{Name: "user", Read: readTeredoUser},
		{Name: "password_file", Read: readTeredoPassword},
	}, (*teredoKeys).finish)),
	outermost("its packets have a UDP header of their own", row(mode6a44, sixA44{relay: config.Host{Addr: sixa44.Anycast}}, []tree.Key[*sixA44]{
		{Name: "role", Read: readRole6a44},
		{Name: "relay", Read: host4(func(m *sixA44) *config.Host { return &m.relay })},
		{Name: "prefix", Read: value.Prefix(6, func(m *sixA44) *netip.Prefix { return &m.prefix })},
		{Name: "customers", Read: value.Prefixes(4, func(m *sixA44) *[]netip.Prefix { return &m.customers })},
	}, (*sixA44).finish)),
	outermost("its packets have a UDP header of their own", row(mode6bed4, sixBed4{direct: true}, []tree.Key[*sixBed4]{
		{Name: "role", Read: readRole6bed4},
		{Name: "router", Read: host4(func(m *sixBed4) *config.Host { return &m.router })},
		{Name: "netid", Read: readNetID},
		{Name: "prefix", Read: value.Prefix(6, func(m *sixBed4) *netip.Prefix { return &m.prefix })},
		{Name: "direct", Read: yesNo(func(m *sixBed4) *bool { return &m.direct })},
		{Name: "port", Read: port(func(m *sixBed4) *uint16 { return &m.port })},
	}, (*sixBed4).finish)),
	outermost("its packets have a UDP header of their own", row(modeLISP, lispKeys{algorithm: lisp.SHA256, Router: node.Router{NonceFile: defaultNonceFile}}, []tree.Key[*lispKeys]{
		{Name: "role", Read: readRoleLISP},
		{Name: "eid", Read: value.Prefixes(0, func(m *lispKeys) *[]netip.Prefix { return &m.EIDs })},
		{Name: "rloc", Read: readRLOCs},
		{Name: "map_resolver", Read: value.Hosts(0, func(m *lispKeys) *[]config.Host { return &m.Resolvers })},
		{Name: "map_server", Read: value.Hosts(0, func(m *lispKeys) *[]config.Host { return &m.Servers })},
		{Name: "key_file", Read: readLISPKey},
		{Name: "algorithm", Read: readAlgorithm},
		{Name: "nonce_file", Read: readNonceFile},
		{Name: "instance", Read: readInstance},
		{Name: "proxy_etr", Read: value.Hosts(0, func(m *lispKeys) *[]config.Host { return &m.ProxyETRs })},
		{Name: "proxy_reply", Read: func(r *problem.Report, e tree.Entry, m *lispKeys) { m.Answers, _ = value.Bool(r, e) }},
		{Name: "check_source", Read: func(r *problem.Report, e tree.Entry, m *lispKeys) { m.Checked, _ = value.Bool(r, e) }},
	}, (*lispKeys).finish)),
	row(modeMapE, mapE{}, keysMapE, (*mapE).finish),
	row(modeLW4o6, lw4o6{}, keysLW4o6, (*lw4o6).finish),
}

// The keys of these modes are also read by their presets.
var (
	keysMapE = []tree.Key[*mapE]{
		{Name: "role", Read: readRoleMapE},
		{Name: "prefix", Read: value.Prefix(6, func(m *mapE) *netip.Prefix { return &m.prefix })},
		{Name: "rules", Read: readRules},
		{Name: "border_relay", Read: value.Hosts(6, func(m *mapE) *[]config.Host { return &m.relays })},
		{Name: "draft03", Read: readDraft03},
		{Name: "option94", Read: readDomain(94, func(m *mapE) **mape.Domain { return &m.option })},
	}
	keysLW4o6 = []tree.Key[*lw4o6]{
		{Name: "role", Read: readRoleLW4o6},
		{Name: "bindings", Read: readBindings},
		{Name: "border_relay", Read: value.Hosts(6, func(m *lw4o6) *[]config.Host { return &m.relays })},
		{Name: "option96", Read: readDomain(96, func(m *lw4o6) **mape.Domain { return &m.option })},
	}
)

// With returns the modes that have a key.
func With(key string) (modes []string) {
	for _, m := range Rows {
		if slices.Contains(m.Keys, key) {
			modes = append(modes, m.Mode)
		}
	}
	return modes
}

// row returns a mechanism whose keys are read into a P.
func row[P any](mode string, preset P, keys []tree.Key[*P], finish func(*P, *problem.Report, *Tunnel) resolve.Mechanism) Row {
	m := Row{Mode: mode}
	for _, k := range keys {
		m.Keys = append(m.Keys, k.Name)
	}
	m.Begin = func() Reading {
		p := preset
		return Reading{
			Read: func(name string, r *problem.Report, e tree.Entry) {
				keys[slices.Index(m.Keys, name)].Read(r, e, &p)
			},
			Finish: func(r *problem.Report, t *Tunnel) resolve.Mechanism { return finish(&p, r, t) },
		}
	}
	return m
}

func outermost(why string, m Row) Row {
	m.Outermost = why
	return m
}

// plain is the finish function of a mechanism whose values need no check against each
// other.
func plain[P resolve.Mechanism](p *P, _ *problem.Report, _ *Tunnel) resolve.Mechanism { return *p }

// ByMode returns the row of an automatic mode.
func ByMode(mode string) *Row {
	return &Rows[slices.IndexFunc(Rows, func(m Row) bool { return m.Mode == mode })]
}
