package configfile

import (
	"sixfour/encap"
	"sixfour/encap/framing"
	"sixfour/internal/config/keys"
	"sixfour/internal/config/problem"
	"sixfour/internal/config/tree"
	"sixfour/internal/config/value"
)

// isGRE reports whether a kind of layer has a GRE header.
func isGRE(k encap.Kind) bool {
	_, ok := k.Framing().(framing.GRE)
	return ok
}

// framing returns the framing of a layer with its options; nil: it has none.
func (d *draft) framing(l *layerDraft) framing.Framing {
	switch l.kind.Framing().(type) {
	case framing.GRE:
		if !l.ownGRE {
			l.gre = d.gre
		}
		if l.gre != (framing.GRE{}) {
			return l.gre
		}
	case framing.SEAL:
		if d.seal != (framing.SEAL{}) {
			return d.seal
		}
	}
	return nil
}

// greKeys returns the keys of a GRE header (RFC 2784, RFC 2890). gre returns where their
// values are stored, allowed reports whether the keys are valid there, and what names
// the mode.
func greKeys[T any](allowed func(T) bool, what func(T) string, gre func(T) *framing.GRE) []tree.Key[T] {
	option := func(name string, read func(*problem.Report, tree.Entry, *framing.GRE)) tree.Key[T] {
		return tree.Key[T]{Name: name, Read: func(r *problem.Report, e tree.Entry, into T) {
			if !allowed(into) {
				r.Add(e.KeyAt, "%s contradicts %s, which has no GRE header: leave it out, or choose mode %s", e.Name, what(into),
					problem.Alternatives(problem.QuoteAll(keys.Modes(func(m encap.Mode) bool { return isGRE(m.Layers[0]) }))))
				return
			}
			read(r, e, gre(into))
		}}
	}
	return []tree.Key[T]{
		option("key", value.GREKey),
		option("ikey", value.GREInKey), // after key, and okey after both
		option("okey", value.GREOutKey),
		option("checksum", func(r *problem.Report, e tree.Entry, g *framing.GRE) { g.Checksum, _ = value.Bool(r, e) }),
		option("sequence", func(r *problem.Report, e tree.Entry, g *framing.GRE) { g.Sequence, _ = value.Bool(r, e) }),
	}
}

// checkGRE reports sequence numbers on a tunnel that may reorder packets.
func (d *draft) checkGRE(r *problem.Report) {
	if !d.has(func(l layerDraft) bool { return l.gre.Sequence }) {
		return
	}
	if d.Queues > 1 {
		r.Add(d.Source.Keys["queues"], "queues is %d, but the packets of different queues overtake each other, and sequence numbers are for packets in order: set it to 1, or leave sequence out", d.Queues)
	}
	d.Queues = 1
}
