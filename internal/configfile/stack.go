package configfile

import (
	"slices"

	"sixfour/encap"
	"sixfour/encap/framing"
	"sixfour/internal/config/keys"
	"sixfour/internal/config/mechanism"
	"sixfour/internal/config/problem"
	"sixfour/internal/config/tree"
	"sixfour/internal/config/value"
)

// layerDraft is a layer that is being read.
type layerDraft struct {
	kind      encap.Kind
	mode      string         // its name in the file
	at        problem.Pos    // position of that name
	mechanism *mechanism.Row // for an automatic layer
	own       ends           // the ends in the item of a stack
	gre       framing.GRE
	ownGRE    bool // the item of a stack has GRE options, so the tunnel's do not apply
}

// stackMode is the mode of a tunnel whose layers are in the key stack.
const stackMode = "stack"

func readMode(r *problem.Report, e tree.Entry, d *draft) {
	w, ok := value.WordLike(r, e, keys.ModeSynonyms, append(keys.Modes(keys.AnyMode), stackMode)...)
	if !ok {
		return
	}
	if w == stackMode {
		d.Mode.Name = w
		return
	}
	d.Mode, _ = encap.ModeByName(w)
	d.addLayers(d.Mode, e.At)
	if w == "seal" { // its rules (draft-templin-intarea-seal-68): ttl, mtu and reserve may change them
		d.Options.TTL, d.Reserve, d.MTU = encap.InheritTTL, 1500, 1500
	}
}

func (d *draft) addLayers(m encap.Mode, at problem.Pos) {
	for _, k := range m.Layers {
		d.layers = append(d.layers, layerDraft{kind: k, mode: m.Name, at: at})
		if m.Automatic {
			d.layers[len(d.layers)-1].mechanism = mechanism.ByMode(m.Name)
		}
	}
}

// item is one item of a stack.
type item struct {
	mode          encap.Mode
	local, remote tree.Entry // read when all layers are known
	gre           framing.GRE
}

var itemKeys = append([]tree.Key[*item]{
	{Name: "mode", Read: func(r *problem.Report, e tree.Entry, i *item) {
		if w, ok := value.WordLike(r, e, keys.ModeSynonyms, keys.Modes(keys.CanBeItem)...); ok {
			i.mode, _ = encap.ModeByName(w)
		}
	}},
	{Name: "local", Read: func(_ *problem.Report, e tree.Entry, i *item) { i.local = e }},
	{Name: "remote", Read: func(_ *problem.Report, e tree.Entry, i *item) { i.remote = e }},
}, greKeys(
	func(i *item) bool { return i.mode.Name == "" || isGRE(i.mode.Layers[0]) },
	func(i *item) string { return "mode " + problem.Quote(i.mode.Name) },
	func(i *item) *framing.GRE { return &i.gre },
)...)

// stackOf describes a stack in error messages.
const stackOf = `an array of modes, innermost first, such as ["gre6", "6in4"]`

// readStack reads the layers of a stack.
func readStack(r *problem.Report, e tree.Entry, d *draft) {
	switch {
	case d.Mode.Name != "" && d.Mode.Name != stackMode:
		r.Add(e.KeyAt, "stack contradicts mode %s: leave one of them out, or set mode to %q", problem.Quote(d.Mode.Name), stackMode)
		return
	case e.Kind != tree.Array:
		value.RefuseType(r, e, stackOf)
		return
	case len(e.Items) == 0:
		r.Add(e.At, "stack is empty: it must be %s", stackOf)
		return
	}
	before := r.Found
	var items []item // one for each layer
	for _, v := range e.Items {
		it := readItem(r, v)
		for range it.mode.Layers {
			items = append(items, it)
		}
		d.addLayers(it.mode, v.At)
		if v.Kind == tree.Table && len(it.mode.Layers) == 1 {
			l := &d.layers[len(d.layers)-1]
			l.gre, l.ownGRE = it.gre, it.gre != framing.GRE{}
		}
	}
	if r.Found == before {
		checkStack(r, e, d)
	}
	if r.Found > before {
		d.layers = nil
		return
	}
	d.Mode = encap.Mode{Name: stackMode}
	for i := range d.layers {
		d.Mode.Layers = append(d.Mode.Layers, d.layers[i].kind)
		d.Mode.Automatic = d.Mode.Automatic || d.layers[i].mechanism != nil
		d.readOwn(r, i, items[i])
	}
}

// readItem reads an item of a stack: a mode's name, or a table.
func readItem(r *problem.Report, v *tree.Value) item {
	var it item
	switch v.Kind {
	case tree.String:
		var ok bool
		if it.mode, ok = encap.ModeByName(v.Text); !ok || it.mode.Session {
			it.mode = encap.Mode{}
			guess := ""
			if word := tree.Suggestion(v.Text, keys.Modes(keys.CanBeItem), keys.ModeSynonyms); word != "" {
				guess = ": did you mean " + problem.Quote(word) + "?"
			}
			r.Add(v.At, "stack has %s: it must have %s%s", problem.Quote(v.Text), problem.Alternatives(problem.QuoteAll(keys.Modes(keys.CanBeItem))), guess)
		}
	case tree.Table:
		s := keys.Read(r, "a table of stack", v, itemKeys, &it)
		if !s.Set["mode"] {
			r.Add(v.At, "mode is missing in a table of stack: set it to %s", problem.Alternatives(problem.QuoteAll(keys.Modes(keys.CanBeItem))))
		}
		if len(it.mode.Layers) > 1 {
			r.Add(v.At, "stack has mode %s in a table, which is %d layers: write a table for each of them", problem.Quote(it.mode.Name), len(it.mode.Layers))
		}
	default:
		r.Add(v.At, "stack has %s in it: it must be %s", tree.KindNames[v.Kind], stackOf)
	}
	return it
}

// readOwn reads the ends in a layer's item.
func (d *draft) readOwn(r *problem.Report, i int, it item) {
	l := &d.layers[i]
	p := place{l.kind.Over(), i == len(d.layers)-1}
	if it.local.Value != nil {
		l.own.local = p.readLocal(r, it.local)
	}
	switch {
	case it.remote.Value == nil:
	case l.mechanism != nil:
		d.refuseRemote(r, it.remote, l.mode)
	case p.outermost && d.Hub:
		d.refuseOwnRemote(r, it.remote)
	default:
		l.own.remote = p.readRemote(r, it.remote)
	}
}

// checkStack reports layers that cannot be inside each other.
func checkStack(r *problem.Report, e tree.Entry, d *draft) {
	if len(d.layers) > encap.MaxDepth {
		r.Add(e.At, "stack has %d layers: it must have at most %d (RFC 2473 section 4.1.1)", len(d.layers), encap.MaxDepth)
	}
	automatic := -1
	for i, l := range d.layers {
		if l.mechanism != nil {
			if automatic >= 0 {
				r.Add(l.at, "stack: %s and %s both find their outer addresses themselves, which one layer at most can: put a configured mode, such as %q, in the place of one",
					problem.Quote(d.layers[automatic].mode), problem.Quote(l.mode), encap.SixInFour)
			}
			automatic = i
		}
		if i+1 == len(d.layers) {
			break
		}
		next := d.layers[i+1]
		if l.mechanism != nil && l.mechanism.Outermost != "" {
			r.Add(l.at, "stack: %s must be the outermost layer, because %s: put it last", problem.Quote(l.mode), l.mechanism.Outermost)
		}
		if makes := l.kind.Over(); !next.kind.Carries(makes) {
			r.Add(next.at, "stack: %s carries IPv%d, but %s makes IPv%d packets: put %s there", problem.Quote(next.mode), 10-makes, problem.Quote(l.mode), makes,
				problem.Alternatives(problem.QuoteAll(keys.Modes(func(m encap.Mode) bool { return !m.Automatic && !m.Session && m.Layers[0].Carries(makes) }))))
		}
	}
}

// checkPairs reports layers that cannot be distinguished, because they are over the same
// IP version and between the same ends.
func (d *draft) checkPairs(r *problem.Report) {
	for i, a := range d.layers {
		for _, b := range d.layers[i+1:] {
			if a.kind.Over() != b.kind.Over() || a.mechanism != nil || b.mechanism != nil {
				continue
			}
			la, ra, lb, rb := d.localOf(a), d.remoteOf(a), d.localOf(b), d.remoteOf(b)
			// In a hub, the remote end of both is that of the peer.
			if la.Host == lb.Host && ra.Host == rb.Host && la.readable == lb.readable && ra.readable == rb.readable {
				r.Add(b.at, "stack: %s and %s would have the same ends: give one of them its own, as in { mode = %q, local = %q, remote = %q }",
					problem.Quote(a.mode), problem.Quote(b.mode), a.mode, exampleEnds[a.kind.Over()][0], exampleEnds[a.kind.Over()][1])
				return
			}
		}
	}
}

var exampleEnds = map[int][2]string{4: {"10.1.1.1", "10.1.1.2"}, 6: {"fc00::1", "fc00::2"}}

// what names the mode in a problem.
func (d *draft) what() string {
	if d.Mode.Name == stackMode {
		return "this stack"
	}
	return "mode " + problem.Quote(d.Mode.Name)
}

// known reports whether the layers are known, so that other values can be checked
// against them.
func (d *draft) known() bool { return len(d.layers) > 0 }

// has reports whether holds returns true for a layer.
func (d *draft) has(holds func(l layerDraft) bool) bool { return slices.ContainsFunc(d.layers, holds) }

// over reports whether a layer is over an IP version.
func (d *draft) over(version int) bool {
	return d.has(func(l layerDraft) bool { return l.kind.Over() == version })
}

// automatic returns the layer that finds its addresses itself, or nil.
func (d *draft) automatic() *layerDraft {
	for i := range d.layers {
		if d.layers[i].mechanism != nil {
			return &d.layers[i]
		}
	}
	return nil
}

func (d *draft) refuseRemote(r *problem.Report, e tree.Entry, mode string) {
	r.Add(e.KeyAt, "%s contradicts mode %s, which finds the other ends' outer addresses itself: leave it out, or choose a configured mode, such as %q",
		e.Name, problem.Quote(mode), encap.SixInFour)
}

func (d *draft) refuseOwnRemote(r *problem.Report, e tree.Entry) {
	r.Add(e.KeyAt, "%s contradicts [[tunnel.peer]], where each peer has its own: leave it out, or leave the peers out", e.Name)
}
