package config

import (
	"encoding/binary"
	"math"
	"net/netip"

	"github.com/pelletier/go-toml/v2/unstable"

	"sixfour/encap"
)

// greKeys are the keys of a GRE header (RFC 2784, RFC 2890). Their values are
// handed to set, with where it is right to have them; what names the mode.
func greKeys[T any](allowed func(T) bool, what func(T) string, gre func(T) *encap.GRE) []key[T] {
	option := func(name string, read func(*report, entry, *encap.GRE)) key[T] {
		return key[T]{name, func(r *report, e entry, into T) {
			if !allowed(into) {
				r.add(e.keyAt, "%s contradicts %s, which has no GRE header: leave it out, or choose mode %s", e.name, what(into),
					list(quoteAll(modeNames(func(m encap.Mode) bool { return m.Layers[0].IsGRE() }))))
				return
			}
			read(r, e, gre(into))
		}}
	}
	return []key[T]{
		option("key", readGREKey),
		option("checksum", func(r *report, e entry, g *encap.GRE) { g.Checksum, _ = boolOf(r, e) }),
		option("sequence", func(r *report, e entry, g *encap.GRE) { g.Sequence, _ = boolOf(r, e) }),
	}
}

// readGREKey reads a number of 32 bits, also as routers write it.
func readGREKey(r *report, e entry, g *encap.GRE) {
	switch e.kind {
	case unstable.Integer:
		n, err := parseInt(e.text)
		if err == nil && 0 <= n && n <= math.MaxUint32 {
			g.Keyed, g.Key = true, uint32(n)
			return
		}
	case unstable.String:
		a, err := netip.ParseAddr(e.text)
		if err == nil && a.Is4() {
			b := a.As4()
			g.Keyed, g.Key = true, binary.BigEndian.Uint32(b[:])
			return
		}
	}
	refuse(r, e, `a number of 32 bits, from 0 to 4294967295, or a dotted quad, such as "192.0.2.1"`)
}

// checkGRE reports a sequence of packets that would not be kept.
func (d *draft) checkGRE(r *report) {
	if !d.has(func(l layerDraft) bool { return l.gre.Sequence }) {
		return
	}
	if d.Queues > 1 {
		r.add(d.values["queues"], "queues is %d, but the packets of different queues overtake each other, and sequence numbers are for packets in order: set it to 1, or leave sequence out", d.Queues)
	}
	d.Queues = 1
}
