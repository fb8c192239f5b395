package configfile

import (
	"fmt"
	"net/netip"
	"strings"
	"unicode"

	"sixfour/internal/config"
	"sixfour/internal/config/keys"
	"sixfour/internal/config/problem"
	"sixfour/internal/config/tree"
	"sixfour/internal/config/value"
)

// peerDraft is a peer that is being read.
type peerDraft struct {
	config.Peer
	hub       *hub
	header    problem.Pos
	nameAt    problem.Pos
	allowedAt []problem.Pos
	probeAt   problem.Pos
	over4     end
	over6     end
	paths     []*pathDraft
}

// hub holds the peers of a tunnel that were read so far, and what is already in use.
type hub struct {
	*draft
	names   map[string]int               // line
	allowed map[netip.Prefix]problem.Pos // of the element
}

var peerKeys = []tree.Key[*peerDraft]{
	{Name: "name", Read: readPeerName},
	{Name: "path", Read: readPeerPaths},
	{Name: "remote", Read: readPeerRemote(false)},
	{Name: "remote6", Read: readPeerRemote(true)},
	{Name: "allowed", Read: readAllowed},
	{Name: "probe", Read: readPeerProbe},
}

// readPeers reads all [[tunnel.peer]] of a tunnel.
func readPeers(r *problem.Report, e tree.Entry, d *draft) {
	const want = "an array of tables, each of which begins with [[tunnel.peer]]"
	if e.Kind != tree.Array {
		value.RefuseType(r, e, want)
		return
	}
	if a := d.automatic(); a != nil {
		r.Add(e.KeyAt, "peer contradicts mode %s, which finds the other ends' outer addresses itself: leave the peers out, or choose a configured mode", problem.Quote(a.mode))
		return
	}
	if len(e.Items) == 0 {
		r.Add(e.At, "there is no peer: add one, which begins with [[tunnel.peer]], or set remote")
	}
	h := &hub{d, make(map[string]int, len(e.Items)), make(map[netip.Prefix]problem.Pos, len(e.Items))}
	d.Peers = make([]config.Peer, 0, len(e.Items))
	for _, item := range e.Items {
		if r.Full(item.At) {
			return
		}
		if item.Kind != tree.Table {
			r.Add(item.At, "peer has %s in it: it must be %s", tree.KindNames[item.Kind], want)
			continue
		}
		p := &peerDraft{hub: h, header: item.At}
		s := keys.Read(r, "[[tunnel.peer]]", item, peerKeys, p)
		p.checkMissing(r, s)
		p.finish(r)
		d.peers = append(d.peers, p)
		d.Peers = append(d.Peers, p.Peer)
	}
}

// maxPeerName is the maximum length of a DNS label; many peer names are DNS labels.
const maxPeerName = 63

func readPeerName(r *problem.Report, e tree.Entry, p *peerDraft) {
	name, ok := value.String(r, e, "the peer's name")
	if !ok {
		return
	}
	odd := func(c rune) bool { return !unicode.IsPrint(c) || unicode.IsSpace(c) || c == unicode.ReplacementChar }
	if name == "" || len(name) > maxPeerName || strings.ContainsFunc(name, odd) {
		value.Refuse(r, e, fmt.Sprintf("the peer's name, of 1 to %d bytes, all printable and without white space", maxPeerName))
		return
	}
	if line, taken := p.hub.names[name]; taken {
		r.Add(e.At, "name is %s, which the peer of line %d has: give each peer its own", problem.Quote(name), line)
		return
	}
	p.hub.names[name] = p.header.Line
	p.Name, p.nameAt = name, e.At
}

func readPeerRemote(six bool) func(*problem.Report, tree.Entry, *peerDraft) {
	return func(r *problem.Report, e tree.Entry, p *peerDraft) {
		d := p.hub.draft
		_, version := d.pairOf(six)
		to := &p.over4
		if version == 6 {
			to = &p.over6
		}
		switch {
		case six && d.known() && !d.over(6):
			over6(nil)(r, e, d)
		case d.known() && !d.needs(lacksRemote, version):
			r.Add(e.KeyAt, "%s is not used, because each item of stack has its own remote: leave it out", e.Name)
		case d.twice(r, e, *to):
		default:
			*to = d.placeOf(lacksRemote, version).readRemote(r, e)
		}
	}
}

func readAllowed(r *problem.Report, e tree.Entry, p *peerDraft) {
	if e.Kind == tree.Array && len(e.Items) == 0 {
		r.Add(e.At, "allowed is empty: it must have the prefixes behind the peer")
	}
	readPrefixes(r, e, p.hub.draft, func(prefix netip.Prefix, at problem.Pos) error {
		if prefix != prefix.Masked() {
			return fmt.Errorf("it has bits set beyond its prefix length: write %v", prefix.Masked())
		}
		if first, ok := p.hub.allowed[prefix]; ok {
			return fmt.Errorf("the prefix is already allowed in line %d: leave one out, because it can be behind one peer only", first.Line)
		}
		p.hub.allowed[prefix] = at
		p.Allowed, p.allowedAt = append(p.Allowed, prefix), append(p.allowedAt, at)
		return nil
	})
}

// checkMissing reports required keys that the peer does not have.
func (p *peerDraft) checkMissing(r *problem.Report, s tree.State) {
	d := p.hub.draft
	need := func(name, set string) {
		if !s.Set[name] {
			r.Add(p.header, "%s is missing in [[tunnel.peer]]: set it to %s", name, set)
		}
	}
	need("name", "a name of its own for the peer")
	need("allowed", `the prefixes behind the peer, such as ["10.0.0.2/32"]`)
	if !d.known() {
		need("remote", "the peer's outer address or its DNS name")
		return
	}
	for _, version := range versions {
		if !d.needs(lacksRemote, version) || p.remoteOver(version).key != "" {
			continue
		}
		if d.placeOf(lacksRemote, version).outermost && allHave(p.paths, remoteOfPath) {
			continue
		}
		set := "the peer's outer address or its DNS name"
		if !d.placeOf(lacksRemote, version).outermost {
			set = fmt.Sprintf("the peer's address in the IPv%d layer that %s has", version, d.what())
		}
		need("remote"+d.suffix(version), set)
	}
}

// remoteOver returns the peer's remote end for all layers over an IP version.
func (p *peerDraft) remoteOver(version int) end {
	if version == 6 {
		return p.over6
	}
	return p.over4
}

// finish gives the peer its paths, and a remote end for each layer inside the outermost one.
func (p *peerDraft) finish(r *problem.Report) {
	d := p.hub.draft
	var local end // of a path without its own, as remote
	remote := end{at: p.header}
	if !d.known() && p.over4.key != "" { // to check routes
		remote = p.over4
	}
	if last := len(d.layers) - 1; last > 0 {
		p.InnerRemotes = make([]netip.Addr, last)
	}
	for i, l := range d.layers {
		e := l.own.remote
		if e.key == "" {
			e = p.remoteOver(l.kind.Over())
		}
		local = d.localOf(l)
		if i == len(d.layers)-1 {
			if e.key == "" {
				e.at = p.header
			}
			remote = e
			break
		}
		p.InnerRemotes[i] = e.Addr
		d.checkEnd(r, l, local, e, false)
	}
	paths := p.paths
	if len(paths) == 0 {
		paths = d.paths
	}
	p.Paths = d.pathsTo(r, paths, local, remote)
}
