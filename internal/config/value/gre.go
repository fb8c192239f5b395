package value

import (
	"sixfour/encap/framing"
	"sixfour/internal/config/problem"
	"sixfour/internal/config/tree"
)

// GREKey reads the key both of sent packets and of received packets (RFC 2890).
func GREKey(r *problem.Report, e tree.Entry, g *framing.GRE) { g.Keyed, g.Key = Word32(r, e) }

// GREInKey reads the key of received packets, for tunnels where it differs from the key
// of sent packets.
func GREInKey(r *problem.Report, e tree.Entry, g *framing.GRE) {
	if g.Keyed {
		contradictsKey(r, e)
		return
	}
	g.Apart = true
	g.InKeyed, g.InKey = Word32(r, e)
}

// GREOutKey reads the key of sent packets.
func GREOutKey(r *problem.Report, e tree.Entry, g *framing.GRE) {
	if g.Keyed {
		contradictsKey(r, e)
		return
	}
	g.Apart = true
	g.Keyed, g.Key = Word32(r, e)
	if g.InKeyed && g.InKey == g.Key { // the same as key alone
		g.Apart, g.InKeyed, g.InKey = false, false, 0
	}
}

func contradictsKey(r *problem.Report, e tree.Entry) {
	r.Add(e.KeyAt, "%s contradicts key, which sets the key both of received packets (ikey) and of sent packets (okey): leave one of them out", e.Name)
}
