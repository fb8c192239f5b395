package config

import (
	"net/netip"
	"slices"

	"sixfour/encap/resolve"
)

// mechanism is an automatic mode: its keys, and how they are read.
type mechanism struct {
	mode      string
	keys      []string
	outermost string // why it must be the outermost layer of a stack; "": it need not be
	begin     func() reading
}

// reading holds the keys of one tunnel's mechanism while they are read.
type reading struct {
	read func(name string, r *report, e entry)
	// finish checks the values against each other and the rest of the tunnel.
	finish func(r *report, d *draft) resolve.Mechanism
}

// mechanisms are the automatic modes. A new mode needs a row here and one in
// encap.Modes. The row has preset values, the keys that set fields in them, and the
// function that builds the mechanism from them.
var mechanisms = []mechanism{
	row("6to4", sixToFour{resolve.SixToFour{Relay: anycastRelay}, resolve.PMT{Mode: resolve.PMTRewrite}}, []key[*sixToFour]{
		{"role", readRole6to4},
		{"relay", readRelay},
		{"relays", prefixesOf(4, func(m *sixToFour) *[]netip.Prefix { return &m.Relays })},
		{"clients", prefixesOf(4, func(m *sixToFour) *[]netip.Prefix { return &m.Clients })},
		{"sources", prefixesOf(6, func(m *sixToFour) *[]netip.Prefix { return &m.Sources })},
		{"provider_prefix", prefixOf(6, func(m *sixToFour) *netip.Prefix { return &m.pmt.ProviderPrefix })},
		{"v4_common", prefixOf(4, func(m *sixToFour) *netip.Prefix { return &m.pmt.Common })},
		{"customers", prefixesOf(4, func(m *sixToFour) *[]netip.Prefix { return &m.pmt.Customers })},
		{"subnet", readSubnet},
		{"mapping", readMapping},
	}, (*sixToFour).finish),
	row("6rd", sixRD{}, []key[*sixRD]{
		{"prefix", prefixOf(6, func(m *sixRD) *netip.Prefix { return &m.Prefix })},
		{"mask_len", readMaskLen},
		{"border_relay", hostsOf(func(m *sixRD) *[]Host { return &m.Relays })},
		{"option212", readOption212},
		{"v4_common", prefixOf(4, func(m *sixRD) *netip.Prefix { return &m.common })},
		{"role", readRole6rd},
	}, (*sixRD).finish),
	outermost("it knows its routers and neighbours by the outer addresses of their packets", row("isatap", isatap{}, []key[*isatap]{
		{"routers", hostsOf(func(m *isatap) *[]Host { return &m.Routers })},
		{"router", func(r *report, e entry, m *isatap) { m.Router, _ = boolOf(r, e) }},
		{"prefix", prefixesOf(6, func(m *isatap) *[]netip.Prefix { return &m.Prefixes })},
	}, (*isatap).finish)),
	row("v4compat", resolve.V4Compat{}, nil, plain[resolve.V4Compat]),
	outermost("it sends to IPv4 multicast groups", row("6over4", resolve.SixOverFour{Scope: 192}, []key[*resolve.SixOverFour]{
		{"scope", readScope},
	}, plain[resolve.SixOverFour])),
}

// row returns a mechanism whose keys are read into a P.
func row[P any](mode string, preset P, keys []key[*P], finish func(*P, *report, *draft) resolve.Mechanism) mechanism {
	m := mechanism{mode: mode}
	for _, k := range keys {
		m.keys = append(m.keys, k.name)
	}
	m.begin = func() reading {
		p := preset
		return reading{
			read: func(name string, r *report, e entry) {
				keys[slices.Index(m.keys, name)].read(r, e, &p)
			},
			finish: func(r *report, d *draft) resolve.Mechanism { return finish(&p, r, d) },
		}
	}
	return m
}

func outermost(why string, m mechanism) mechanism {
	m.outermost = why
	return m
}

// plain is the finish function of a mechanism whose values need no check against each
// other.
func plain[P resolve.Mechanism](p *P, _ *report, _ *draft) resolve.Mechanism { return *p }

// mechanismOf returns the row of an automatic mode.
func mechanismOf(mode string) *mechanism {
	return &mechanisms[slices.IndexFunc(mechanisms, func(m mechanism) bool { return m.mode == mode })]
}

// mechanismKeys returns the keys of all mechanisms.
func mechanismKeys() (rows []key[*draft]) {
	var names []string
	for _, m := range mechanisms {
		names = append(names, m.keys...)
	}
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		rows = append(rows, key[*draft]{name, readMechanismKey})
	}
	return rows
}

// readMechanismKey reads a key that only some of the automatic modes have.
func readMechanismKey(r *report, e entry, d *draft) {
	a := d.automatic()
	switch {
	case a != nil && slices.Contains(a.mechanism.keys, e.name):
		if d.mechanism.read == nil {
			d.mechanism = a.mechanism.begin()
		}
		d.mechanism.read(e.name, r, e)
	case d.known():
		var with []string
		for _, m := range mechanisms {
			if slices.Contains(m.keys, e.name) {
				with = append(with, m.mode)
			}
		}
		r.add(e.keyAt, "%s contradicts %s, which has no such key: leave it out, or choose mode %s", e.name, d.what(), list(quoteAll(with)))
	}
}

// finishMechanism builds the mechanism of the tunnel's automatic layer.
func (d *draft) finishMechanism(r *report) {
	a := d.automatic()
	if a == nil {
		return
	}
	if d.mechanism.finish == nil {
		d.mechanism = a.mechanism.begin()
	}
	m := d.mechanism.finish(r, d)
	i := slices.IndexFunc(d.layers, func(l layerDraft) bool { return l.mechanism != nil })
	d.Layers[i].Mechanism = m
	if local := d.localOf(*a); local.Addr.IsLoopback() {
		r.add(local.at, "%s is %v, which no other host can reach, and mode %s works with any of them: set it to an address that they can reach", local.key, local.Addr, quote(a.mode))
	}
	unsure := slices.ContainsFunc(a.mechanism.keys, func(name string) bool { return d.state.bad[name] })
	if local := d.localOf(*a); local.auto() && len(m.Hosts()) == 0 && !unsure {
		r.add(local.at, `local is "auto", but mode %s has no outer host here, to which routing would choose an address: set it to this end's IPv4 address`, quote(a.mode))
	}
}

// checkSite reports why the mechanism cannot work on this host, as far as the file
// describes the host.
func (d *draft) checkSite(r *report) {
	a := d.automatic()
	if a == nil {
		return
	}
	local := d.localOf(*a)
	i := slices.IndexFunc(d.layers, func(l layerDraft) bool { return l.mechanism != nil })
	m := d.Layers[i].Mechanism
	if local.Addr.IsValid() {
		if _, err := m.Resolver(resolve.Site{Local: local.Addr, Own: d.Address, Strict: d.Strict}); err != nil {
			r.add(local.at, "%v", err)
		} else {
			d.checkFollow(r, m, local)
		}
	}
	hosts := m.Hosts()
	isOurs := func(h Host) bool { return h.Addr.IsValid() && h.Addr == local.Addr }
	if !resolve.NeedsHosts(m) {
		return
	}
	if len(hosts) > 0 && !slices.ContainsFunc(hosts, func(h Host) bool { return !isOurs(h) }) {
		r.add(local.at, "%s is %v, and so is the only relay or router that mode %s has here: one of them must be another host's", local.key, local.Addr, quote(a.mode))
	}
}
