// Package meeting makes the two ends of a path find each other when the peer proves who it
// is: it arrives at a port of ours from any address, packets travel inside connections, or we
// tell the other end with a secret where we are.
package meeting

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"sixfour/encap/rendezvous"
	"sixfour/internal/config"
	"sixfour/internal/datapath"
	"sixfour/internal/ports"
	"sixfour/internal/sessions"
	"sixfour/internal/wiring"
	"sixfour/transport"
)

// Owner is the path in the engine. Any goroutine may call its methods.
type Owner interface {
	// WireNow returns the wire by which the path's packets are exchanged; nil: none.
	WireNow() *datapath.Wire
	// Note records an error.
	Note(text string)
	// Label returns what tells the path from the others of its peer now; "": it is the only one.
	Label() string
}

// Path is how the ends of one path find each other. The control loop owns it; another
// configuration of the path needs another Path.
type Path struct {
	owner  Owner
	name   string // of the peer
	config config.Path
	of     config.Path // the same, with our port
	tunnel *config.Tunnel
	set    *Set

	peer      config.Peer   // as it was when the settings were made
	keepalive time.Duration // the same

	at       netip.AddrPort // of the peer, if it learns that; zero: it is not there
	why      string         // why it is not; "": not known
	key      ports.Key      // of the port that must be open
	need     ports.Need
	awaits   bool  // it must
	settings any   // of the peer in the port; nil: there are no connections
	wrong    error // why there can be no settings
}

// String returns a name that no other path has now. The configuration, which has secrets, must
// not be in messages.
func (p *Path) String() string {
	if l := p.owner.Label(); l != "" {
		return p.name + ", " + l
	}
	return p.name
}

// Session returns the settings of the path's connections, as config.Path has them.
func (p *Path) Session() any { return p.of.Session }

// Needs reports whether a path with a configuration needs a Path.
func Needs(p *config.Path) bool {
	return p.Listen || p.Session != nil || p.Secret.File != "" || p.Waits != ""
}

// anyPort returns one of the dynamic ports (RFC 6335 section 6).
func anyPort() uint16 { return 49152 + uint16(rand.N(1<<14)) }

// New returns a Path for a path with a configuration, of a tunnel and a peer with
// configurations. The name is that of the peer.
func (s *Set) New(owner Owner, name string, t *config.Tunnel, peer *config.Peer, of *config.Path) *Path {
	p := &Path{owner: owner, name: name, config: *of, of: *of, tunnel: t, set: s, peer: *peer, keepalive: t.Keepalive}
	if of.LocalPort == 0 {
		p.of.LocalPort = anyPort()
	}
	if of.Session != nil {
		settings, err := sessions.Settings(t, peer, of)
		if p.wrong = err; err == nil {
			p.settings = settings
		}
	}
	return p
}

// Is reports whether the Path, which may be nil, is for a configuration of the path and, if
// the settings of its connections depend on them, of the tunnel and the peer.
func (p *Path) Is(t *config.Tunnel, peer *config.Peer, of *config.Path) bool {
	return p != nil && p.config.Equal(of) && (of.Session == nil ||
		p.keepalive == t.Keepalive && slices.Equal(p.peer.Allowed, peer.Allowed) && slices.Equal(p.peer.InnerRemotes, peer.InnerRemotes))
}

// learns reports whether the peer's address and port are known only when it is there.
func (p *Path) learns() bool { return p.of.Listen || p.of.Session != nil }

// At returns the address and port of a peer that arrives by itself; the zero value: it is not
// there.
func (p *Path) At() netip.AddrPort { return p.at }

// Await determines which port must be open before the path has a wire. Remote is where to
// connect to, if the peer does not arrive by itself. Both addresses may be unknown. It
// reports whether another port or another peer of it is needed now. If our port may be any,
// and cannot be opened, Await chooses another one.
func (p *Path) Await(local, remote netip.Addr) (changed bool) {
	if p.config.LocalPort == 0 && local.IsValid() {
		if k, _ := wiring.Awaited(p.tunnel, &p.of, local); p.set.sockets.Err(k) != nil {
			p.of.LocalPort = anyPort()
		}
	}
	if !p.learns() {
		return false
	}
	var key ports.Key
	var need ports.Need
	awaits := p.wrong == nil && local.IsValid() && (p.of.Listen || remote.IsValid())
	if awaits {
		key, need = wiring.Awaited(p.tunnel, &p.of, local)
	}
	if awaits && p.settings != nil {
		peer := transport.SessionPeer{ID: p, Settings: p.settings}
		if !p.of.Listen {
			peer.Remote = netip.AddrPortFrom(remote, p.of.Port)
		}
		need.Peers = []transport.SessionPeer{peer}
	}
	changed = awaits != p.awaits || key != p.key || len(need.Peers) > 0 && (len(p.need.Peers) == 0 || need.Peers[0] != p.need.Peers[0])
	p.awaits, p.key, p.need = awaits, key, need
	return changed
}

// Port returns the port that must be open, with a number of shards if it may have several; not
// ok: there is none.
func (p *Path) Port(shards int) (k ports.Key, n ports.Need, ok bool) {
	n = p.need
	if n.Shards != 1 {
		n.Shards = shards
	}
	return p.key, n, p.awaits
}

// Config returns the configuration of the path, with the port at which the peer is, or what
// the path waits for.
func (p *Path) Config() (of *config.Path, waiting string) {
	switch {
	case p.of.Waits != "":
		return nil, p.of.Waits
	case !p.learns():
		return &p.of, ""
	case p.wrong != nil:
		return nil, "usable settings of its connections: " + p.wrong.Error()
	case p.at.IsValid():
		with := p.of
		with.Port = p.at.Port()
		return &with, ""
	case p.awaits && p.set.sockets.Err(p.key) != nil:
		return nil, "its local port: " + p.set.sockets.Err(p.key).Error()
	case p.why != "":
		return nil, "the peer: " + p.why
	case p.of.Listen:
		return nil, "the peer to connect: it has not done so yet"
	}
	return nil, "a connection to the peer"
}

// Moved implements roaming.Listener.
func (p *Path) Moved(at netip.AddrPort) {
	m := Move{path: p, at: at}
	if !at.IsValid() {
		m.why = "no message about its address has come from it for a while"
	}
	p.set.moves.add(m)
}

// Refused implements roaming.Listener.
func (p *Path) Refused(why string) { p.owner.Note(why) }

// Ends implements roaming.Caller.
func (p *Path) Ends() (local, remote netip.AddrPort, tx transport.Sender, ok bool) {
	w := p.owner.WireNow()
	if w == nil {
		return local, remote, nil, false
	}
	l := w.Outer()
	n := l.Kind.Properties().Ports
	return netip.AddrPortFrom(l.Local, n.Local), netip.AddrPortFrom(l.Remote, n.Remote), w.Senders[0], true
}

// Answered implements roaming.Caller.
func (p *Path) Answered(_ rendezvous.Answer, refused string) {
	if refused != "" {
		p.owner.Note("the other end refuses our address: " + refused)
	}
}

// Unanswered implements roaming.Caller.
func (p *Path) Unanswered() {
	p.owner.Note(fmt.Sprintf("the other end does not answer messages about our address: does it have listen = true, local_port = %d, and the same secret in its secret_file? Otherwise UDP does not pass", p.of.Port))
}

// Wake tells the other end soon where we are, because our address may have changed, or
// because it does not answer. Any goroutine may call it.
func (p *Path) Wake() { p.set.exchange.Wake(p) }

// secret returns the secret of a path that listens without connections, or of one that
// connects; not ok: it exchanges no messages.
func (p *Path) secret() (s string, ok bool) {
	if p.of.Secret.File == "" || p.of.Session != nil {
		return "", false
	}
	if s = p.of.Secret.Value(); s == "" {
		p.why = fmt.Sprintf("the secret in %s could not be read", p.of.Secret.File)
	}
	return s, s != ""
}
