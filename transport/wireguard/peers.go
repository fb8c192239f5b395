package wireguard

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gaissmai/bart"

	"sixfour/transport"
)

// Settings are the settings of a peer: the type of SessionPeer.Settings is *Settings. They
// must not change.
type Settings struct {
	PublicKey    PublicKey
	PresharedKey Secret // the zero value: none

	// Allowed are the prefixes of the inner addresses behind the peer: the only sources of
	// packets from it and destinations of packets to it. Those of several peers must not
	// overlap. If it is empty, the peer has all addresses, and must be alone.
	Allowed []netip.Prefix

	// Keepalive is how often an empty packet is sent while there is nothing else to send, so
	// that a NAT on the way does not forget us. It is rounded up to seconds; 0: never.
	Keepalive time.Duration
}

// equal reports whether two peers with these settings are the same for the device.
func (s *Settings) equal(o *Settings) bool {
	return s == o || s.PublicKey == o.PublicKey && s.PresharedKey == o.PresharedKey &&
		s.Keepalive == o.Keepalive && slices.Equal(s.Allowed, o.Allowed)
}

// peer is a peer of a port.
type peer struct {
	remote   netip.AddrPort
	settings *Settings
	report   transport.Connected // nil: nobody is told

	mu      sync.Mutex // guards id, removed, and writing of at
	id      any
	removed bool
	at      atomic.Pointer[address] // nil: there is no session

	watched // used by the goroutine that watches sessions
}

// address is where a peer is, and was until then.
type address struct {
	now, before netip.AddrPort
	since       time.Time
}

// settling is how long packets of a peer that has moved are from its former address: whoever
// called Receive has to learn of the present one first, and takes packets from the former
// address for much longer.
const settling = 2 * time.Second

// from returns the address from which packets of the peer are.
func (a *address) from() netip.AddrPort {
	if a.before != a.now && time.Since(a.since) < settling {
		return a.before
	}
	return a.now
}

// moved notes that an authenticated packet has come from an address, and returns the one that
// the packet is to have.
func (p *peer) moved(to netip.AddrPort) netip.AddrPort {
	a := p.at.Load()
	if a == nil || a.now != to {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.move(to, nil)
		if a = p.at.Load(); a == nil { // removed
			return to
		}
	}
	return a.from()
}

// seenAt does the same for an address that the device had some time after the peer was at
// an address. It does nothing if the peer has moved since.
func (p *peer) seenAt(to netip.AddrPort, after *address) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.at.Load() == after {
		p.move(to, nil)
	}
}

// ended notes that there is no session any more.
func (p *peer) ended(why error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.move(netip.AddrPort{}, why)
}

// move changes the address, and reports it. The caller holds mu.
func (p *peer) move(to netip.AddrPort, why error) {
	old := p.at.Load()
	if p.removed || old == nil && !to.IsValid() || old != nil && old.now == to {
		return
	}
	switch {
	case !to.IsValid():
		p.at.Store(nil)
	case old == nil:
		p.at.Store(&address{now: to, before: to})
	default:
		p.at.Store(&address{now: to, before: old.now, since: time.Now()})
	}
	if p.report != nil {
		p.report(p.id, to, why)
	}
}

// rename gives a peer another ID. By that, its present session has not been reported yet.
func (p *peer) rename(id any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if id == p.id {
		return
	}
	p.id = id
	if a := p.at.Load(); a != nil && p.report != nil {
		p.report(id, a.now, nil)
	}
}

// remove makes sure that nothing is reported any more.
func (p *peer) remove() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.removed = true
	p.at.Store(nil)
}

// table is the peers of a port. It is immutable.
type table struct {
	peers []*peer
	sole  *peer // the peer that has all addresses
	inner bart.Table[*peer]
}

// find returns the peer with an inner address, or nil.
func (t *table) find(inner netip.Addr) *peer {
	if t.sole != nil || !inner.IsValid() {
		return t.sole
	}
	p, _ := t.inner.Lookup(inner)
	return p
}

// everything are the prefixes of a peer that has all addresses.
var everything = []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}

// newTable makes the table for a list that check accepts. Peers of the old table that are in
// the list unchanged are in the new one, too.
func newTable(list []transport.SessionPeer, old *table, report transport.Connected) *table {
	had := make(map[PublicKey]*peer, len(old.peers))
	for _, p := range old.peers {
		had[p.settings.PublicKey] = p
	}
	t := &table{}
	for _, l := range list {
		s := l.Settings.(*Settings)
		p := had[s.PublicKey]
		if p == nil || p.remote != l.Remote || !p.settings.equal(s) {
			p = &peer{remote: l.Remote, settings: s, report: report, id: l.ID}
		}
		t.peers = append(t.peers, p)
		if len(s.Allowed) == 0 {
			t.sole = p
		}
		for _, a := range s.Allowed {
			t.inner.Insert(a, p)
		}
	}
	return t
}

// check returns an error if a port cannot have these peers.
func (p *Port) check(list []transport.SessionPeer) error {
	type claim struct {
		netip.Prefix
		by *Settings
	}
	var claims []claim
	keys, remotes := map[PublicKey]bool{}, map[netip.AddrPort]*Settings{}
	for i, l := range list {
		s, ok := l.Settings.(*Settings)
		if !ok || s == nil {
			return fmt.Errorf("peer %d: its settings are of type %T, not *wireguard.Settings", i, l.Settings)
		}
		if err := p.checkOne(l.Remote, s); err != nil {
			return fmt.Errorf("peer %v: %w", s.PublicKey, err)
		}
		if keys[s.PublicKey] {
			return fmt.Errorf("peer %v: two peers have this public key", s.PublicKey)
		}
		keys[s.PublicKey] = true
		if l.Remote.IsValid() {
			if o := remotes[l.Remote]; o != nil {
				return fmt.Errorf("peers %v and %v are both at %v", o.PublicKey, s.PublicKey, l.Remote)
			}
			remotes[l.Remote] = s
		}
		if len(s.Allowed) == 0 && len(list) > 1 {
			return fmt.Errorf("peer %v: it is not alone at this port, so it needs the prefixes of the addresses behind it", s.PublicKey)
		}
		for _, a := range s.Allowed {
			claims = append(claims, claim{a.Masked(), s})
		}
	}
	slices.SortFunc(claims, func(a, b claim) int { return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits())) })
	var open claim // the last one that is inside no other
	for _, c := range claims {
		switch {
		case open.by == nil || !open.Overlaps(c.Prefix):
			open = c
		case open.by != c.by:
			return fmt.Errorf("peers %v and %v: the allowed prefixes %v and %v overlap: each address is behind one peer", open.by.PublicKey, c.by.PublicKey, open.Prefix, c.Prefix)
		}
	}
	return nil
}

func (p *Port) checkOne(remote netip.AddrPort, s *Settings) error {
	switch a := remote.Addr(); {
	case s.PublicKey == PublicKey{}:
		return errors.New("it has no public key")
	case s.PublicKey == p.public:
		return errors.New("its public key is our own: each end needs a key of its own")
	case remote == netip.AddrPort{}:
	case !a.IsValid() || a.Is4In6() || a.IsUnspecified() || a.IsMulticast() || remote.Port() == 0:
		return fmt.Errorf("%v is not an address and port to send to", remote)
	case a.Is4() != p.Local().Addr().Is4():
		return fmt.Errorf("its address %v and ours, %v, are not of the same IP version", a, p.Local().Addr())
	}
	if s.Keepalive < 0 || seconds(s.Keepalive) > math.MaxUint16 {
		return fmt.Errorf("keepalive %v: it is between 0 and %d seconds", s.Keepalive, math.MaxUint16)
	}
	for _, a := range s.Allowed {
		if !a.IsValid() || a.Addr().Is4In6() {
			return fmt.Errorf("%v is not an IPv4 or IPv6 prefix", a)
		}
	}
	return nil
}

func seconds(d time.Duration) int64 { return int64((d + time.Second - 1) / time.Second) }

// SetPeers implements transport.SessionPort. Sessions of peers that stay the same, except for
// the ID, go on, and are reported with the new ID. Connected is not called for a peer that is
// removed here, nor afterwards.
func (p *Port) SetPeers(list []transport.SessionPeer) error {
	if err := p.check(list); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.tunnel.out.closed() {
		return net.ErrClosed
	}
	old := p.peers.Load()
	t := newTable(list, old, p.connected)
	stays := make(map[*peer]bool, len(t.peers))
	for i, n := range t.peers {
		stays[n] = true
		n.rename(list[i].ID)
	}
	var removed, added strings.Builder
	for _, o := range old.peers {
		if !stays[o] {
			o.remove()
			fmt.Fprintf(&removed, "public_key=%x\nremove=true\n", o.settings.PublicKey[:])
		}
		delete(stays, o)
	}
	for _, n := range t.peers {
		if stays[n] {
			n.configure(&added)
		}
	}
	// Packets of a removed peer are in nobody's way after this.
	if err := p.configure(removed.String()); err != nil {
		return err
	}
	p.peers.Store(t)
	err := p.configure(added.String())
	signal(p.kick)
	return err
}

// configure writes the settings of a new peer in the language of wg(8):
// https://www.wireguard.com/xplatform/#configuration-protocol
func (p *peer) configure(b *strings.Builder) {
	s := p.settings
	fmt.Fprintf(b, "public_key=%x\npreshared_key=%x\n", s.PublicKey[:], [32]byte(s.PresharedKey))
	if p.remote.IsValid() {
		fmt.Fprintf(b, "endpoint=%v\n", p.remote)
	}
	fmt.Fprintf(b, "persistent_keepalive_interval=%d\n", seconds(s.Keepalive))
	allowed := s.Allowed
	if len(allowed) == 0 {
		allowed = everything
	}
	for _, a := range allowed {
		fmt.Fprintf(b, "allowed_ip=%v\n", a.Masked())
	}
}

// configure gives the device lines of its language.
func (p *Port) configure(lines string) error {
	if lines == "" {
		return nil
	}
	if err := p.device.IpcSet(lines); err != nil {
		return errors.New("the WireGuard device refuses its settings") // its error might quote them
	}
	return nil
}
