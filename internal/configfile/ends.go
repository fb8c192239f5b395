package configfile

import (
	"fmt"
	"slices"
	"strings"

	"sixfour/encap"
	"sixfour/internal/config"
	"sixfour/internal/config/keys"
	"sixfour/internal/config/problem"
	"sixfour/internal/config/tree"
)

// pairOf returns the ends that the keys local and remote, or local6 and remote6, are
// for. Each pair of keys is for the layers over one IP version. If no layer is over
// IPv4, both pairs are for the layers over IPv6.
func (d *draft) pairOf(six bool) (pair *ends, version int) {
	switch {
	case !d.known() && six:
		return &d.over6, 6
	case !d.known():
		return &d.over4, 0
	case six || !d.over(4):
		return &d.over6, 6
	}
	return &d.over4, 4
}

// lacks reports whether a layer is over an IP version and its item has no such end.
type lacks func(l layerDraft, version int) bool

func lacksLocal(l layerDraft, version int) bool {
	return l.kind.Over() == version && l.own.local.key == ""
}

func lacksRemote(l layerDraft, version int) bool {
	return l.kind.Over() == version && l.own.remote.key == "" && l.mechanism == nil
}

// needs reports whether there is a layer that lacks an end.
func (d *draft) needs(what lacks, version int) bool {
	return d.has(func(l layerDraft) bool { return what(l, version) })
}

// placeOf says what the shared end is for: all layers whose items have no such end.
func (d *draft) placeOf(what lacks, version int) place {
	if !d.known() {
		return place{version, version == 0}
	}
	last := len(d.layers) - 1
	inner := slices.ContainsFunc(d.layers[:last], func(l layerDraft) bool { return what(l, version) })
	return place{version, what(d.layers[last], version) && !inner}
}

// pair returns the ends that all layers over an IP version share.
func (d *draft) pair(version int) *ends {
	if version == 6 {
		return &d.over6
	}
	return &d.over4
}

// localOf returns the local end of a layer.
func (d *draft) localOf(l layerDraft) end {
	if l.own.local.key != "" {
		return l.own.local
	}
	return d.pair(l.kind.Over()).local
}

// remoteOf returns the remote end of a layer in the short form.
func (d *draft) remoteOf(l layerDraft) end {
	if l.own.remote.key != "" {
		return l.own.remote
	}
	return d.pair(l.kind.Over()).remote
}

// readLocal reads local or, if six is true, local6.
func readLocal(six bool) func(*problem.Report, tree.Entry, *draft) {
	return func(r *problem.Report, e tree.Entry, d *draft) {
		if d.Mode.Over6 != nil && isIPv6(e.Text) {
			d.Mode = d.Mode.To6()
			d.layers[0].kind = d.Mode.Layers[0]
		}
		pair, version := d.pairOf(six)
		switch {
		case d.twice(r, e, pair.local):
		case d.known() && !d.needs(lacksLocal, version):
			r.Add(e.KeyAt, "%s is not used, because each item of stack has its own local: leave it out", e.Name)
		default:
			pair.local = d.placeOf(lacksLocal, version).readLocal(r, e)
		}
	}
}

// readRemote reads remote or, if six is true, remote6.
func readRemote(six bool) func(*problem.Report, tree.Entry, *draft) {
	return func(r *problem.Report, e tree.Entry, d *draft) {
		pair, version := d.pairOf(six)
		automatic := d.automatic()
		switch {
		case d.twice(r, e, pair.remote):
		case d.Mode.Session: // finishClient reports it
		case d.Hub:
			d.refuseOwnRemote(r, e)
		case d.known() && !d.needs(lacksRemote, version) && automatic != nil && automatic.kind.Over() == version:
			d.refuseRemote(r, e, automatic.mode)
		case d.known() && !d.needs(lacksRemote, version):
			r.Add(e.KeyAt, "%s is not used, because each item of stack has its own remote: leave it out", e.Name)
		default:
			pair.remote = d.placeOf(lacksRemote, version).readRemote(r, e)
		}
	}
}

// twice reports an end that was already set by another key.
func (d *draft) twice(r *problem.Report, e tree.Entry, first end) bool {
	if first.key == "" {
		return false
	}
	r.Add(e.KeyAt, "%s is the same end as %s in %s, which has no layer over IPv4: leave one out", e.Name, first.key, d.what())
	return true
}

// checkMissing reports required keys that the tunnel does not have.
func (d *draft) checkMissing(r *problem.Report) {
	d.need(r, "name", "the interface's name")
	if d.Mode.Name == stackMode {
		d.need(r, "stack", `the layers' modes, innermost first, such as ["gre6", "6in4"]`)
	} else if !d.state.Set["stack"] {
		d.need(r, "mode", problem.Alternatives(problem.QuoteAll(append(keys.Modes(keys.AnyMode), stackMode))))
	}
	if d.state.Set["stack"] && !d.known() {
		return // the mode is wrong: other keys may be required
	}
	if !d.known() {
		d.needEnd(r, "local", "this end's", place{0, true})
		if !d.Hub {
			d.needEnd(r, "remote", "the other end's", place{0, true})
		}
		return
	}
	for _, version := range versions {
		pair, suffix := d.pair(version), d.suffix(version)
		if d.needs(lacksLocal, version) && pair.local.key == "" && !d.pathsHave(localOfPath, d.placeOf(lacksLocal, version)) {
			d.needEnd(r, "local"+suffix, "this end's", d.placeOf(lacksLocal, version))
		}
		if !d.Hub && d.needs(lacksRemote, version) && pair.remote.key == "" && !d.pathsHave(remoteOfPath, d.placeOf(lacksRemote, version)) {
			d.needEnd(r, "remote"+suffix, "the other end's", d.placeOf(lacksRemote, version))
		}
	}
}

// versions are the IP versions, in the order of their keys.
var versions = [...]int{4, 6}

// suffix returns the suffix of the keys for the layers over an IP version.
func (d *draft) suffix(version int) string {
	if version == 6 && d.over(4) {
		return "6"
	}
	return ""
}

func (d *draft) needEnd(r *problem.Report, name, of string, p place) {
	switch {
	case !p.outermost:
		d.need(r, name, fmt.Sprintf("%s address in the IPv%d layer that %s has", of, p.family, d.what()))
	case strings.HasPrefix(name, "local"):
		d.need(r, name, of+` outer address, or to "auto" for the one that the kernel's routing would choose`)
	default:
		d.need(r, name, of+" outer address or its DNS name")
	}
}

func (d *draft) need(r *problem.Report, name, set string) {
	d.state.Need(r, d.Source.Header, name, set)
}

// checkEnd reports a remote end that is the local one.
func (d *draft) checkEnd(r *problem.Report, l layerDraft, local, remote end, outermost bool) {
	if outermost {
		d.checkZones(r, local, remote)
	}
	if !local.Addr.IsValid() || local.Addr != remote.Addr {
		return
	}
	where := "outer address"
	if !outermost {
		where = fmt.Sprintf("address in the IPv%d layer", l.kind.Over())
	}
	r.Add(remote.at, "%s is the same as %s: it must be the other end's %s", remote.key, local.key, where)
}

// checkZones reports link-local ends on two different interfaces, and options that
// exclude link-local ends.
func (d *draft) checkZones(r *problem.Report, local, remote end) {
	a, b := local.Addr.Zone(), remote.Addr.Zone()
	switch {
	case a != "" && b != "" && a != b:
		r.Add(remote.at, "%s is on %s, but %s is on %s: both must be on the same interface", remote.key, problem.Quote(b), local.key, problem.Quote(a))
	case a+b != "" && d.IO == config.IOXDP:
		r.Add(d.Source.Keys["io"], `io is "xdp", which has no link-local ends, as %s has: leave io out`, d.what())
	}
}

// bare returns the layers without addresses, to compute the overhead.
func (d *draft) bare() []encap.Layer {
	layers := make([]encap.Layer, len(d.layers))
	for i, l := range d.layers {
		layers[i] = encap.Layer{Kind: l.kind.With(d.framing(&l))}
	}
	return layers
}
