package config

import (
	"fmt"

	"sixfour/encap"
)

// pairOf is what a pair of keys, local and remote or local6 and remote6, is for:
// each is for the layers over one IP version. Where no layer is over IPv4, both
// are for those over IPv6.
func (d *draft) pairOf(six bool) (*ends, place) {
	switch {
	case !d.known() && six:
		return &d.over6, place{family: 6}
	case !d.known():
		return &d.over4, place{outermost: true}
	case six || !d.over(4):
		return &d.over6, place{6, d.outer() == 6}
	}
	return &d.over4, place{4, d.outer() == 4}
}

// pair are the ends that all layers over an IP version share.
func (d *draft) pair(version int) *ends {
	if version == 6 {
		return &d.over6
	}
	return &d.over4
}

// localOf is this end of a layer.
func (d *draft) localOf(l layerDraft) end {
	if l.own.local.key != "" {
		return l.own.local
	}
	return d.pair(l.kind.Over()).local
}

// remoteOf is the other end of a layer in the short form.
func (d *draft) remoteOf(l layerDraft) end {
	if l.own.remote.key != "" {
		return l.own.remote
	}
	return d.pair(l.kind.Over()).remote
}

// readLocal is of local and, if six is true, of local6.
func readLocal(six bool) func(*report, entry, *draft) {
	return func(r *report, e entry, d *draft) {
		pair, p := d.pairOf(six)
		switch {
		case d.twice(r, e, pair.local):
		case d.known() && !d.needsLocal(p.family):
			r.add(e.keyAt, "%s is of no layer, because each item of stack has its own local: leave it out", e.name)
		default:
			pair.local = p.readLocal(r, e)
		}
	}
}

// readRemote is of remote and, if six is true, of remote6.
func readRemote(six bool) func(*report, entry, *draft) {
	return func(r *report, e entry, d *draft) {
		pair, p := d.pairOf(six)
		automatic := d.automatic()
		switch {
		case d.twice(r, e, pair.remote):
		case d.Hub:
			d.refuseOwnRemote(r, e)
		case d.known() && !d.needsRemote(p.family) && automatic != nil && automatic.kind.Over() == p.family:
			d.refuseRemote(r, e, automatic.mode)
		case d.known() && !d.needsRemote(p.family):
			r.add(e.keyAt, "%s is of no layer, because each item of stack has its own remote: leave it out", e.name)
		default:
			pair.remote = p.readRemote(r, e)
		}
	}
}

// needsLocal reports whether a layer over an IP version has no end of its own here.
func (d *draft) needsLocal(version int) bool {
	return d.has(func(l layerDraft) bool { return l.kind.Over() == version && l.own.local.key == "" })
}

// needsRemote reports whether a layer over an IP version has no other end yet.
func (d *draft) needsRemote(version int) bool {
	return d.has(func(l layerDraft) bool {
		return l.kind.Over() == version && l.mechanism == nil && l.own.remote.key == ""
	})
}

// twice reports the second name of an end that was given already.
func (d *draft) twice(r *report, e entry, first end) bool {
	if first.key == "" {
		return false
	}
	r.add(e.keyAt, "%s is the same end as %s in %s, which has no layer over IPv4: leave one out", e.name, first.key, d.what())
	return true
}

// checkMissing reports the keys that the tunnel needs and does not have.
func (d *draft) checkMissing(r *report) {
	d.need(r, "name", "the interface's name")
	if d.Mode.Name == stackMode {
		d.need(r, "stack", `the layers' modes, innermost first, such as ["gre6", "6in4"]`)
	} else if !d.state.set["stack"] {
		d.need(r, "mode", list(quoteAll(append(modeNames(anyMode), stackMode))))
	}
	if d.state.set["stack"] && !d.known() {
		return // whatever is wrong with it, it may need other keys
	}
	if !d.known() {
		d.needEnd(r, "local", true, false)
		if !d.Hub {
			d.needEnd(r, "remote", false, false)
		}
		return
	}
	for _, version := range versions {
		pair, inner, suffix := d.pair(version), version != d.outer(), d.suffix(version)
		if d.needsLocal(version) && pair.local.key == "" {
			d.needEnd(r, "local"+suffix, true, inner)
		}
		if !d.Hub && d.needsRemote(version) && pair.remote.key == "" {
			d.needEnd(r, "remote"+suffix, false, inner)
		}
	}
}

// versions are those of IP, in the order of the keys for them.
var versions = [...]int{4, 6}

// suffix is what the keys for the layers over an IP version end in.
func (d *draft) suffix(version int) string {
	if version == 6 && d.over(4) {
		return "6"
	}
	return ""
}

func (d *draft) needEnd(r *report, name string, local, inner bool) {
	whose := "the other end's"
	if local {
		whose = "this end's"
	}
	switch {
	case inner:
		layer := 10 - d.outer()
		d.need(r, name, fmt.Sprintf("%s address in the IPv%d layer that %s has", whose, layer, d.what()))
	case local:
		d.need(r, name, `this end's outer address, or to "auto" for the one that the kernel's routing would choose`)
	default:
		d.need(r, name, "the other end's outer address or its DNS name")
	}
}

func (d *draft) need(r *report, name, set string) {
	if !d.state.set[name] {
		r.add(d.header, "%s is missing: set it to %s", name, set)
	}
}

// checkEnds reports a tunnel to itself.
func (d *draft) checkEnds(r *report) {
	for i, l := range d.layers {
		d.checkEnd(r, l, d.remoteOf(l), i == len(d.layers)-1)
	}
}

// checkEnd reports a remote end that is this one.
func (d *draft) checkEnd(r *report, l layerDraft, remote end, outermost bool) {
	local := d.localOf(l)
	if !local.Addr.IsValid() || local.Addr != remote.Addr {
		return
	}
	where := "outer address"
	if !outermost {
		where = fmt.Sprintf("address in the IPv%d layer", l.kind.Over())
	}
	r.add(remote.at, "%s is the same as %s: it must be the other end's %s", remote.key, local.key, where)
}

// bare are the layers without addresses, of which the overhead follows.
func (d *draft) bare() []encap.Layer {
	layers := make([]encap.Layer, len(d.layers))
	for i, l := range d.layers {
		layers[i] = encap.Layer{Kind: l.kind, GRE: l.gre}
		if l.kind.IsGRE() && !l.ownGRE {
			layers[i].GRE = d.gre
		}
	}
	return layers
}
