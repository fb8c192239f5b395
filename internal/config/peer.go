package config

import (
	"fmt"
	"net/netip"
	"strings"
	"unicode"

	"github.com/pelletier/go-toml/v2/unstable"
)

// peerDraft is a peer that is being read.
type peerDraft struct {
	Peer
	hub       *hub
	header    pos
	nameAt    pos
	allowedAt []pos
	probeAt   pos
	over4     end
	over6     end
}

// hub holds the peers of a tunnel that were read so far, and what is already in use.
type hub struct {
	*draft
	names   map[string]int       // line
	allowed map[netip.Prefix]pos // of the element
}

var peerKeys = []key[*peerDraft]{
	{"name", readPeerName},
	{"remote", readPeerRemote(false)},
	{"remote6", readPeerRemote(true)},
	{"allowed", readAllowed},
	{"probe", readPeerProbe},
}

// readPeers reads all [[tunnel.peer]] of a tunnel.
func readPeers(r *report, e entry, d *draft) {
	const want = "an array of tables, each of which begins with [[tunnel.peer]]"
	if e.kind != unstable.Array {
		refuseType(r, e, want)
		return
	}
	if a := d.automatic(); a != nil {
		r.add(e.keyAt, "peer contradicts mode %s, which finds the other ends' outer addresses itself: leave the peers out, or choose a configured mode", quote(a.mode))
		return
	}
	if len(e.items) == 0 {
		r.add(e.at, "there is no peer: add one, which begins with [[tunnel.peer]], or set remote")
	}
	h := &hub{d, make(map[string]int, len(e.items)), make(map[netip.Prefix]pos, len(e.items))}
	d.Peers = make([]Peer, 0, len(e.items))
	for _, item := range e.items {
		if r.full(item.at) {
			return
		}
		if item.kind != unstable.InlineTable {
			r.add(item.at, "peer has %s in it: it must be %s", kindNames[item.kind], want)
			continue
		}
		p := &peerDraft{hub: h, header: item.at}
		p.at = item.at
		s := readTable(r, "[[tunnel.peer]]", item, peerKeys, p)
		p.checkMissing(r, s)
		p.finish(r)
		d.peers = append(d.peers, p)
		d.Peers = append(d.Peers, p.Peer)
	}
}

// maxPeerName is the maximum length of a DNS label; many peer names are DNS labels.
const maxPeerName = 63

func readPeerName(r *report, e entry, p *peerDraft) {
	name, ok := stringOf(r, e, "the peer's name")
	if !ok {
		return
	}
	odd := func(c rune) bool { return !unicode.IsPrint(c) || unicode.IsSpace(c) || c == unicode.ReplacementChar }
	if name == "" || len(name) > maxPeerName || strings.ContainsFunc(name, odd) {
		refuse(r, e, fmt.Sprintf("the peer's name, of 1 to %d bytes, all printable and without white space", maxPeerName))
		return
	}
	if line, taken := p.hub.names[name]; taken {
		r.add(e.at, "name is %s, which the peer of line %d has: give each peer its own", quote(name), line)
		return
	}
	p.hub.names[name] = p.header.line
	p.Name, p.nameAt = name, e.at
}

func readPeerRemote(six bool) func(*report, entry, *peerDraft) {
	return func(r *report, e entry, p *peerDraft) {
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
			r.add(e.keyAt, "%s is of no layer, because each item of stack has its own remote: leave it out", e.name)
		case d.twice(r, e, *to):
		default:
			*to = d.placeOf(lacksRemote, version).readRemote(r, e)
		}
	}
}

func readAllowed(r *report, e entry, p *peerDraft) {
	if e.kind == unstable.Array && len(e.items) == 0 {
		r.add(e.at, "allowed is empty: it must have the prefixes behind the peer")
	}
	readPrefixes(r, e, p.hub.draft, func(prefix netip.Prefix, at pos) error {
		if prefix != prefix.Masked() {
			return fmt.Errorf("it has bits set beyond its prefix length: write %v", prefix.Masked())
		}
		if first, ok := p.hub.allowed[prefix]; ok {
			return fmt.Errorf("the prefix is already allowed in line %d: leave one out, because it can be behind one peer only", first.line)
		}
		p.hub.allowed[prefix] = at
		p.Allowed, p.allowedAt = append(p.Allowed, prefix), append(p.allowedAt, at)
		return nil
	})
}

// checkMissing reports required keys that the peer does not have.
func (p *peerDraft) checkMissing(r *report, s tableState) {
	d := p.hub.draft
	need := func(name, set string) {
		if !s.set[name] {
			r.add(p.header, "%s is missing in [[tunnel.peer]]: set it to %s", name, set)
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

// finish gives the peer a remote end for each layer.
func (p *peerDraft) finish(r *report) {
	d := p.hub.draft
	if !d.known() && p.over4.key != "" { // to check routes
		p.Remotes, p.at = []Host{p.over4.Host}, p.over4.at
		return
	}
	p.Remotes = make([]Host, len(d.layers))
	for i, l := range d.layers {
		e := l.own.remote
		if e.key == "" {
			e = p.remoteOver(l.kind.Over())
		}
		outermost := i == len(d.layers)-1
		if outermost && e.key != "" {
			p.at = e.at
		}
		p.Remotes[i] = e.Host
		d.checkEnd(r, l, e, outermost)
	}
}
