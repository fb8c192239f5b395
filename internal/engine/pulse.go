package engine

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"sixfour/encap"
	"sixfour/encap/drop"
	"sixfour/encap/header"
	"sixfour/encap/icmp"
	"sixfour/internal/config"
	"sixfour/internal/liveness"
	"sixfour/internal/probe"
)

// pulse is something of which is watched whether it lives: a peer, or one of the
// relays or routers of an automatic tunnel. It is the keeper's.
type pulse struct {
	p      *peer
	index  uint16 // among the peer's
	target target
	life   *liveness.Peer
	seen   uint64        // packets from the peer
	proven proof         // the best way in which probes were answered
	tries  int           // probes since the target is this one
	inside time.Duration // when something came through the tunnel last, as the keeper counts
	place  int           // in the schedule; -1: nothing is due
}

// target is what is probed, and by which path.
type target struct {
	layers        []encap.Layer // of the path; nil: of a relay
	local, remote netip.Addr    // outer addresses
	self          netip.Addr    // to which a relay sends packets back; invalid: it does not
	between       []config.Pair // inner addresses
	set           liveness.Settings
}

// sameEnds reports whether two targets are the same place, by the same way.
func (t target) sameEnds(o target) bool {
	return t.local == o.local && t.remote == o.remote && t.self == o.self && slices.Equal(t.layers, o.layers)
}

// targets are what is to be watched of a peer: nothing of one without a path, or
// whose answers would not find us.
func (p *peer) targets() []target {
	path := p.path.Load()
	if path == nil || path.life.Every == 0 || !p.listening.Load() || p.t.retired.Load() {
		return nil
	}
	l := path.outer()
	t := target{layers: path.layers, local: l.Local, remote: l.Remote, between: path.between, set: path.life}
	if !p.t.automatic() {
		return []target{t}
	}
	var list []target
	relays := p.t.mech.relays()
	for _, a := range relays.addrs {
		list = append(list, target{local: l.Local, remote: a, self: relays.self, set: path.life})
	}
	return list
}

// isWatched reports whether it is watched if a peer lives: not that of an automatic
// tunnel without relays or routers, which stands for everybody.
func (p *peer) isWatched(path *path) bool {
	return path.life.Every > 0 && (!p.t.automatic() || len(p.t.mech.relays().addrs) > 0)
}

// isAbout reports whether a path is still the one that is probed.
func (pl *pulse) isAbout(path *path) bool {
	l := path.outer()
	if pl.target.layers == nil {
		return l.Local == pl.target.local
	}
	return l.Remote == pl.target.remote && slices.Equal(path.layers, pl.target.layers)
}

// first is the number of the first probe: they are spread by it.
func (pl *pulse) first() uint16 { return uint16(rand.Uint32()) }

// hasTraffic reports whether packets from the peer are those of the pulse: of an
// automatic tunnel nobody counts whose they are.
func (pl *pulse) hasTraffic() bool { return pl.target.layers != nil }

// look reports whether packets have come since it was called last.
func (pl *pulse) look(now time.Duration) bool {
	n := pl.p.in.packets.Load()
	was := pl.seen
	pl.seen = n
	if n != was && pl.hasTraffic() {
		pl.inside = now
	}
	return n != was
}

// never is before anything.
const never time.Duration = math.MinInt64 / 2

// onlyHost reports whether all that was heard of late are answers of the peer's host,
// which show nothing of the tunnel.
func (pl *pulse) onlyHost(now time.Duration) bool {
	return pl.target.layers != nil && pl.proven.way == wayOutside && now-pl.inside > 2*pl.target.set.Every
}

// ways are those that there are, the best first.
func (pl *pulse) ways(path *path) []way {
	l := path.outer()
	if pl.target.layers == nil {
		if pl.target.self.IsValid() {
			return []way{waySelf, wayOutside}
		}
		return []way{wayOutside}
	}
	var ways []way
	if l.Kind.IsGRE() && len(path.layers) == 1 {
		ways = append(ways, wayKeepalive)
	}
	if len(pl.target.between) > 0 {
		ways = append(ways, wayBetween)
	}
	_, remote, inside := probe.Ends(path.layers)
	switch {
	case !inside:
		return append(ways, wayOutside)
	case pl.tries == 0 && pl.proven.way == noWay: // nearly every peer answers this one
		return []way{wayInside}
	case remote.IsLinkLocalUnicast():
		ways = append(ways, wayAllNodes)
	}
	return append([]way{wayInside}, ways...)
}

// probe sends a probe in all ways that may be answered: none that is worse than one
// that was. What does not leave is a probe that is not answered.
func (pl *pulse) probe(seq uint16) {
	path := pl.p.path.Load()
	if path == nil {
		return
	}
	for _, w := range pl.ways(path) {
		if w > pl.proven.way {
			break
		}
		q := question{way: w, kind: kindLife + kind(w), seq: seq, index: pl.index, local: pl.target.local, remote: pl.target.remote, self: pl.target.self, stack: path.stack}
		if w != wayBetween {
			pl.ask(path, q)
			continue
		}
		for i, pair := range pl.target.between {
			if pl.proven.way == wayBetween && i != pl.proven.pair {
				continue
			}
			q.between, q.pair = pair, uint8(i)
			pl.ask(path, q)
		}
	}
	pl.tries++
}

// ask sends one of a probe's packets.
func (pl *pulse) ask(path *path, q question) {
	if err := pl.p.put(path, q); err != nil {
		pl.p.noteSend(err)
	}
}

// returned reports whether a packet that no tunnel may carry is a probe of ours that
// the far end has sent back, and tells the keeper.
func (p *peer) returned(pkt []byte) bool {
	if path := p.path.Load(); path == nil || !p.isWatched(path) {
		return false
	}
	outer, r := header.ParseReceived(pkt, header.Version(pkt))
	if r != drop.None {
		return false
	}
	var protocol byte
	var payload []byte
	if header.Version(outer) == 6 {
		ip := header.IPv6(outer)
		protocol, payload = ip.NextHeader(), ip.Payload()
	} else {
		ip := header.IPv4(outer)
		protocol, payload = ip.Protocol(), ip.Payload()
	}
	switch {
	case protocol == header.GRE:
		h, r := header.ParseGRE(payload)
		if r != drop.None || h.Protocol != header.GREKeepalive || !p.echo.IsReply(payload[h.Len:], 0) {
			return false
		}
		p.heardAnswer(payload[h.Len:])
		return true
	case protocol == header.ProtoIPv6 && p.t.automatic():
		inner, r := header.ParseIPv6(payload)
		if r != drop.None || inner.NextHeader() != header.ICMPv6 || !p.echo.IsReply(inner.Payload(), icmp.EchoRequest6) {
			return false
		}
		p.heardAnswer(inner.Payload())
		return true
	}
	return false
}

// answer tells of an answer to a probe. Any goroutine may call it.
func (k *keeper) answer(p *peer, w kind, seq uint16, m []byte) {
	if k == nil || len(m) < askLen || w >= kind(noWay) {
		return
	}
	select {
	case k.answers <- lifeSign{p, way(w), seq, binary.BigEndian.Uint16(m[indexAt:]), int(m[pairAt]), time.Now()}:
	default: // so many at once nobody asked for
	}
}

// Those who want to hear of a packet from a peer.
const (
	wantedByProber = 1 << iota
	wantedByKeeper
)

// wants notes whether somebody wants to hear of the next packet.
func (p *peer) wants(who uint32, want bool) {
	if want {
		p.wanted.Or(who)
	} else {
		p.wanted.And(math.MaxUint32 &^ who)
	}
}

// took counts packets from the peer, and tells those that wait for a packet from it.
// Those that the daemon itself takes show that the peer lives like those that go to the
// interface: a peer that has just started asks before it sends.
func (p *peer) took(packets, bytes int) {
	p.in.carried(packets, bytes)
	if p.wanted.Load() != 0 {
		p.isHeard()
	}
}

// isHeard tells those who want to know that packets have come.
func (p *peer) isHeard() {
	who := p.wanted.Swap(0)
	if who&wantedByProber != 0 {
		p.arrived.Store(true)
		p.t.prober.watch(p)
	}
	if who&wantedByKeeper != 0 {
		p.lifeSign.Store(true)
		p.t.keeper.mark(p)
	}
}
