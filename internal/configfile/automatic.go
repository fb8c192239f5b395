package configfile

import (
	"slices"

	"sixfour/encap/resolve"
	"sixfour/internal/config"
	"sixfour/internal/config/client"
	"sixfour/internal/config/mechanism"
	"sixfour/internal/config/problem"
	"sixfour/internal/config/tree"
)

// mechanismKeys returns the keys of all mechanisms.
func mechanismKeys() (rows []tree.Key[*draft]) {
	var names []string
	for _, m := range mechanism.Rows {
		names = append(names, m.Keys...)
	}
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		if len(client.With(name)) == 0 { // readClientKey reads the others
			rows = append(rows, tree.Key[*draft]{Name: name, Read: readMechanismKey})
		}
	}
	return rows
}

// readMechanismKey reads a key that only some of the automatic modes have.
func readMechanismKey(r *problem.Report, e tree.Entry, d *draft) {
	a := d.automatic()
	switch {
	case a != nil && slices.Contains(a.mechanism.Keys, e.Name):
		if d.mechanism.Read == nil {
			d.mechanism = a.mechanism.Begin()
		}
		d.mechanism.Read(e.Name, r, e)
	case d.known():
		with := append(mechanism.With(e.Name), client.With(e.Name)...)
		r.Add(e.KeyAt, "%s contradicts %s, which has no such key: leave it out, or choose mode %s", e.Name, d.what(), problem.Alternatives(problem.QuoteAll(with)))
	}
}

// finishMechanism builds the mechanism of the tunnel's automatic layer.
func (d *draft) finishMechanism(r *problem.Report) {
	a := d.automatic()
	if a == nil {
		return
	}
	if d.mechanism.Finish == nil {
		d.mechanism = a.mechanism.Begin()
	}
	m := d.mechanism.Finish(r, d.mechTunnel(*a))
	i := slices.IndexFunc(d.layers, func(l layerDraft) bool { return l.mechanism != nil })
	d.Layers[i].Mechanism = m
	if local := d.localOf(*a); local.Addr.IsLoopback() {
		r.Add(local.at, "%s is %v, which no other host can reach, and mode %s works with any of them: set it to an address that they can reach", local.key, local.Addr, problem.Quote(a.mode))
	}
	unsure := slices.ContainsFunc(a.mechanism.Keys, func(name string) bool { return d.state.Bad[name] })
	if local := d.localOf(*a); local.auto() && len(m.Hosts()) == 0 && !unsure {
		r.Add(local.at, `local is "auto", but mode %s has no outer host here, to which routing would choose an address: set it to this end's IPv%d address`, problem.Quote(a.mode), a.kind.Over())
	}
}

// checkSite reports why the mechanism cannot work on this host, as far as the file
// describes the host.
func (d *draft) checkSite(r *problem.Report) {
	a := d.automatic()
	if a == nil {
		return
	}
	local := d.localOf(*a)
	i := slices.IndexFunc(d.layers, func(l layerDraft) bool { return l.mechanism != nil })
	m := d.Layers[i].Mechanism
	if local.Addr.IsValid() {
		if _, err := m.Resolver(resolve.Site{Local: local.Addr, Own: d.Address, Strict: d.Strict}); err != nil {
			r.Add(local.at, "%v", err)
		} else {
			d.checkFollow(r, m, local)
		}
	}
	hosts := m.Hosts()
	isOurs := func(h config.Host) bool { return h.Addr.IsValid() && h.Addr == local.Addr }
	if !resolve.NeedsHosts(m) {
		return
	}
	if len(hosts) > 0 && !slices.ContainsFunc(hosts, func(h config.Host) bool { return !isOurs(h) }) {
		r.Add(local.at, "%s is %v, and so is the only relay or router that mode %s has here: one of them must be another host's", local.key, local.Addr, problem.Quote(a.mode))
	}
}

// mechTunnel returns what the tunnel's automatic layer is checked against.
func (d *draft) mechTunnel(automatic layerDraft) *mechanism.Tunnel {
	local := d.localOf(automatic)
	return &mechanism.Tunnel{State: d.state, Header: d.Source.Header, Values: d.Source.Keys, Address: d.Address, Routes: d.Routes, Strict: d.Strict, Local: local.Addr, LocalKey: local.key, LocalAt: local.at}
}
