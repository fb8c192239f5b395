package configfile

import (
	"encoding/binary"
	"math"
	"net/netip"

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

// framing returns the framing with the options of the layer; nil: it has none.
func (l *layerDraft) framing() framing.Framing {
	if l.gre == (framing.GRE{}) {
		return nil
	}
	return l.gre
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
		option("key", func(r *problem.Report, e tree.Entry, g *framing.GRE) { g.Keyed, g.Key = readGREKey(r, e) }),
		option("ikey", readInKey), // after key, and okey after both
		option("okey", readOutKey),
		option("checksum", func(r *problem.Report, e tree.Entry, g *framing.GRE) { g.Checksum, _ = value.Bool(r, e) }),
		option("sequence", func(r *problem.Report, e tree.Entry, g *framing.GRE) { g.Sequence, _ = value.Bool(r, e) }),
	}
}

// readGREKey reads a number of 32 bits. It may be in dotted notation, as on routers.
func readGREKey(r *problem.Report, e tree.Entry) (given bool, key uint32) {
	switch e.Kind {
	case tree.Integer:
		n, err := value.ParseInt(e.Text)
		if err == nil && 0 <= n && n <= math.MaxUint32 {
			return true, uint32(n)
		}
	case tree.String:
		a, err := netip.ParseAddr(e.Text)
		if err == nil && a.Is4() {
			b := a.As4()
			return true, binary.BigEndian.Uint32(b[:])
		}
	}
	value.Refuse(r, e, `a number of 32 bits, from 0 to 4294967295, or a dotted quad, such as "192.0.2.1"`)
	return false, 0
}

// readInKey reads the key of received packets, for tunnels where it differs from the key
// of sent packets.
func readInKey(r *problem.Report, e tree.Entry, g *framing.GRE) {
	if g.Keyed {
		contradictsKey(r, e)
		return
	}
	g.Apart = true
	g.InKeyed, g.InKey = readGREKey(r, e)
}

// readOutKey reads the key of sent packets.
func readOutKey(r *problem.Report, e tree.Entry, g *framing.GRE) {
	if g.Keyed {
		contradictsKey(r, e)
		return
	}
	g.Apart = true
	g.Keyed, g.Key = readGREKey(r, e)
	if g.InKeyed && g.InKey == g.Key { // the same as key alone
		g.Apart, g.InKeyed, g.InKey = false, false, 0
	}
}

func contradictsKey(r *problem.Report, e tree.Entry) {
	r.Add(e.KeyAt, "%s contradicts key, which sets the key both of received packets (ikey) and of sent packets (okey): leave one of them out", e.Name)
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
