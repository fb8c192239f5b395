package configfile

import (
	"slices"

	"sixfour/encap"
	"sixfour/internal/config"
	"sixfour/internal/config/keys"
	"sixfour/internal/config/problem"
	"sixfour/internal/config/tree"
	"sixfour/internal/config/value"
	"sixfour/internal/selection"
)

// pathDraft is a path that is being read: of [[tunnel.path]] or [[tunnel.peer.path]].
type pathDraft struct {
	config.Path   // without the ends
	header        problem.Pos
	table         map[string]tree.Entry
	local, remote end // not given: those of the tunnel or of the peer
	encapsulation *config.Encapsulation
	weightAt      problem.Pos // not given: zero
	in            *draft
	hub           bool // it is for all peers of the tunnel
}

// pathKeys are the keys of a path.
var pathKeys = newPathKeys()

// newPathKeys returns the keys that a path can have, with those that only some
// encapsulations have.
func newPathKeys() []tree.Key[*pathDraft] {
	return slices.Concat([]tree.Key[*pathDraft]{
		{Name: "encap", Read: readEncap},
		{Name: "local", Read: func(r *problem.Report, e tree.Entry, p *pathDraft) { p.local = p.in.outermostPlace().readLocal(r, e) }},
		{Name: "remote", Read: readPathRemote},
	}, encapKeys(keys.HasPorts, []tree.Key[*pathDraft]{
		{Name: "port", Read: func(r *problem.Report, e tree.Entry, p *pathDraft) { readPort(r, e, 1, &p.Port) }},
		{Name: "local_port", Read: func(r *problem.Report, e tree.Entry, p *pathDraft) { readPort(r, e, 0, &p.LocalPort) }},
	}), encapKeys(keys.HasChecksum, []tree.Key[*pathDraft]{
		{Name: "checksum", Read: func(r *problem.Report, e tree.Entry, p *pathDraft) {
			if on, ok := value.Bool(r, e); ok {
				p.Checksum = on
			}
		}},
	}), encapKeys(keys.HasSourcePort, []tree.Key[*pathDraft]{
		{Name: "source_port", Read: func(r *problem.Report, e tree.Entry, p *pathDraft) {
			if w, ok := value.Word(r, e, config.LocalPort, config.FlowPort); ok {
				p.FlowPort = w == config.FlowPort
			}
		}},
	}), encapKeys(keys.Listens, []tree.Key[*pathDraft]{
		{Name: "listen", Read: readListen},
	}), encapKeys(keys.HasSecret, []tree.Key[*pathDraft]{
		{Name: "secret_file", Read: func(r *problem.Report, e tree.Entry, p *pathDraft) { p.Secret, _ = value.Secret(r, e, leastSecret) }},
	}), sessionKeys(httpsKeys), sessionKeys(wireGuardKeys), weightKeys())
}

// encapKeys returns the keys that only the encapsulations have for which holds returns
// true. If there is none, there are no such keys.
func encapKeys(holds func(config.Encapsulation) bool, rows []tree.Key[*pathDraft]) []tree.Key[*pathDraft] {
	with := keys.Encapsulations(holds)
	if len(with) == 0 {
		return nil
	}
	for i, k := range rows {
		rows[i].Read = func(r *problem.Report, e tree.Entry, p *pathDraft) {
			if !holds(*p.encapsulation) {
				r.Add(e.KeyAt, "%s contradicts encap %s, which has no such key: leave it out, or set encap to %s",
					e.Name, problem.Quote(p.Encap), problem.Alternatives(problem.QuoteAll(with)))
				return
			}
			k.Read(r, e, p)
		}
	}
	return rows
}

func readEncap(r *problem.Report, e tree.Entry, p *pathDraft) {
	if w, ok := value.Word(r, e, keys.Encapsulations(keys.AnyEncapsulation)...); ok {
		p.setEncap(w)
	}
}

// setEncap sets the encapsulation, and presets the keys that it has.
func (p *pathDraft) setEncap(name string) {
	i := slices.IndexFunc(config.Encapsulations, func(e config.Encapsulation) bool { return e.Name == name })
	e := &config.Encapsulations[i]
	p.Encap, p.encapsulation = name, e
	p.Port, p.Checksum, p.FlowPort, p.Session = e.Port, e.Checksum, e.SourcePort == config.FlowPort, e.Session
}

func readPathRemote(r *problem.Report, e tree.Entry, p *pathDraft) {
	if p.hub {
		p.in.refuseOwnRemote(r, e)
		return
	}
	p.remote = p.in.outermostPlace().readRemote(r, e)
}

func readPort(r *problem.Report, e tree.Entry, least int64, port *uint16) {
	if n, _, ok := value.Number(r, e, least, 1<<16-1); ok {
		*port = uint16(n)
	}
}

// outermostPlace says what the ends of a path are for.
func (d *draft) outermostPlace() place {
	if !d.known() {
		return place{0, true}
	}
	return place{d.layers[len(d.layers)-1].kind.Over(), true}
}

// readTunnelPaths reads all [[tunnel.path]] of a tunnel.
func readTunnelPaths(r *problem.Report, e tree.Entry, d *draft) {
	d.paths = d.readPaths(r, keys.TablePath, e, d.Hub)
}

func readPeerPaths(r *problem.Report, e tree.Entry, p *peerDraft) {
	p.paths = p.hub.readPaths(r, keys.TablePeerPath, e, false)
}

func localOfPath(p *pathDraft) end { return p.local }

// remoteOfPath returns the remote end of a path; that of a path which listens is its peer,
// whatever address that has.
func remoteOfPath(p *pathDraft) end {
	if p.Listen {
		return end{key: "listen"}
	}
	return p.remote
}

// allHave reports whether each path has an end of its own.
func allHave(paths []*pathDraft, which func(*pathDraft) end) bool {
	return len(paths) > 0 && !slices.ContainsFunc(paths, func(p *pathDraft) bool { return which(p).key == "" })
}

// pathsHave reports whether each path of the tunnel has an end of its own, so that the
// tunnel needs none for the outermost layer.
func (d *draft) pathsHave(which func(*pathDraft) end, p place) bool {
	return p.outermost && allHave(d.paths, which)
}

// readPaths reads the tables of an array of paths. hub says that they are for all peers.
func (d *draft) readPaths(r *problem.Report, header string, e tree.Entry, hub bool) (paths []*pathDraft) {
	want := "an array of tables, each of which begins with " + header
	a := d.automatic()
	switch {
	case e.Kind != tree.Array:
		value.RefuseType(r, e, want)
		return nil
	case a != nil:
		r.Add(e.KeyAt, "path contradicts mode %s, which finds the other ends' outer addresses itself: leave the paths out, or choose a configured mode, such as %q",
			problem.Quote(a.mode), encap.SixInFour)
		return nil
	case len(e.Items) == 0:
		r.Add(e.At, "there is no path: add one, which begins with %s, or leave path out", header)
		return nil
	case len(e.Items) > selection.MaxPaths:
		r.Add(e.Items[selection.MaxPaths].At, "there are %d paths: at most %d are possible: leave some out", len(e.Items), selection.MaxPaths)
		return nil
	}
	for _, item := range e.Items {
		if item.Kind != tree.Table {
			r.Add(item.At, "path has %s in it: it must be %s", tree.KindNames[item.Kind], want)
			continue
		}
		p := &pathDraft{header: item.At, table: item.Table, in: d, hub: hub}
		p.setEncap(config.NoEncapsulation)
		s := keys.Read(r, header, item, pathKeys, p)
		if carries := p.encapsulation.Carries; carries != nil && len(d.layers) > 0 && !carries(d.layers[len(d.layers)-1].kind) {
			r.Add(item.Table["encap"].At, "encap %s cannot carry the outermost layer of %s: leave it out, or choose another mode", problem.Quote(p.Encap), d.what())
		}
		p.checkListen(r, s, header)
		p.checkSession(r, s, header)
		if p.encapsulation.Ports {
			if !s.Set["local_port"] {
				p.LocalPort = p.Port
			}
			if p.Listen {
				p.Port = 0
			} else if p.Port == 0 && !s.Bad["port"] {
				r.Add(p.header, "port is missing in %s: set it to the other end's UDP port", header)
			}
		}
		paths = append(paths, p)
	}
	return paths
}

// impliedPaths are the paths of a peer without a list of them.
var impliedPaths = []*pathDraft{{Path: config.Path{Encap: config.NoEncapsulation}}}

// pathsTo returns the paths to a peer, of the list that applies to it. Local and remote are
// the ends of a path without its own. It reports ends that cannot be those of a path.
func (d *draft) pathsTo(r *problem.Report, list []*pathDraft, local, remote end) []config.Path {
	if len(list) == 0 {
		list = impliedPaths
	}
	paths := make([]config.Path, 0, len(list))
	var lines []int // of each of them
	for i, p := range list {
		path, l, to := p.Path, local, remote
		if p.local.key != "" {
			l = p.local
		}
		if p.remote.key != "" {
			to = p.remote
		}
		if p.Listen {
			to = p.remote
		}
		path.Local, path.Remote, path.At = l.Addr, to.Host, to.at
		if p.Listen {
			path.At = p.header
		}
		if p.Listen && l.auto() {
			r.Add(p.header, "listen needs the address at which the peer arrives: set local of the path, or of the tunnel")
		}
		if len(d.layers) > 0 {
			d.checkEnd(r, d.layers[len(d.layers)-1], l, to, true)
		}
		if j := slices.IndexFunc(paths, func(o config.Path) bool { return o.SameWay(&path) }); j >= 0 {
			r.Add(p.header, "the path is the same as that of line %d: leave one of them out, or give one another local or remote", lines[j])
			continue
		}
		if i > 0 && p.remote.key == "" {
			path.At = p.header
		}
		paths, lines = append(paths, path), append(lines, p.header.Line)
	}
	return paths
}

// selectKeys returns the key that says how a peer uses its paths, if there are policies.
func selectKeys() []tree.Key[*draft] {
	names := selection.Names()
	if len(names) == 0 {
		return nil
	}
	return []tree.Key[*draft]{{Name: "select", Read: func(r *problem.Report, e tree.Entry, d *draft) {
		if w, ok := value.Word(r, e, names...); ok {
			d.Select = w
		}
	}}}
}

// mostWeight is far above any useful value.
const mostWeight = 1000

// weightKeys returns the key for the share of a path, if there are policies that use it.
func weightKeys() []tree.Key[*pathDraft] {
	if len(keys.Weighted()) == 0 {
		return nil
	}
	return []tree.Key[*pathDraft]{{Name: "weight", Read: func(r *problem.Report, e tree.Entry, p *pathDraft) {
		if n, _, ok := value.Number(r, e, 1, mostWeight); ok && n > 1 { // 1 is the same as without the key
			p.Weight, p.weightAt = uint16(n), e.KeyAt
		}
	}}}
}

// checkWeights reports weights that the policy does not use.
func (d *draft) checkWeights(r *problem.Report) {
	if d.state.Bad["select"] || selection.Named(d.Select).Weights {
		return
	}
	for _, list := range d.pathLists() {
		for _, p := range list {
			if p.weightAt != (problem.Pos{}) {
				r.Add(p.weightAt, "weight contradicts select %s, which divides no flows among the paths: leave it out, or set select to %s",
					problem.Quote(selection.Named(d.Select).Name), problem.Alternatives(problem.QuoteAll(keys.Weighted())))
			}
		}
	}
}

// pathLists returns the lists of paths that were read: that of the tunnel, and those of peers.
func (d *draft) pathLists() [][]*pathDraft {
	lists := [][]*pathDraft{d.paths}
	for _, p := range d.peers {
		if p.paths != nil {
			lists = append(lists, p.paths)
		}
	}
	return lists
}

// checkSelect reports a choice among paths where there is only one.
func (d *draft) checkSelect(r *problem.Report) {
	d.checkWeights(r)
	if at, given := d.Source.Keys["select"]; given && !d.state.Bad["select"] && !d.state.Bad["path"] && !d.state.Bad["peer"] &&
		!slices.ContainsFunc(d.Peers, func(p config.Peer) bool { return len(p.Paths) > 1 }) {
		r.Add(at, "select has nothing to choose from, because there is only one path: add another one, which begins with [[tunnel.path]], or leave select out")
	}
}

// outermostKinds returns the kinds of the outermost layer on the paths that were read.
func (d *draft) outermostKinds() (kinds []encap.Kind) {
	layers := d.bare()
	last := layers[len(layers)-1].Kind
	for _, list := range d.pathLists() {
		for _, p := range list {
			if k := p.Frame(last); !slices.Contains(kinds, k) {
				kinds = append(kinds, k)
			}
		}
	}
	if len(kinds) == 0 {
		kinds = []encap.Kind{last}
	}
	return kinds
}

// maxMTU returns the largest tunnel MTU that is possible on all paths.
func (d *draft) maxMTU() encap.TunnelMTU {
	layers := d.bare()
	most := encap.MaxMTU(layers, d.Options)
	for _, k := range d.outermostKinds() {
		layers[len(layers)-1].Kind = k
		most = min(most, encap.MaxMTU(layers, d.Options))
	}
	return most
}
