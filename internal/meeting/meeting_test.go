package meeting

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"go.uber.org/zap"

	"sixfour/encap/header"
	"sixfour/internal/config"
	"sixfour/internal/datapath"
	"sixfour/internal/ports"
	"sixfour/internal/roaming"
	"sixfour/transport"
)

// owner is a path without a wire.
type owner struct{ label string }

func (owner) WireNow() *datapath.Wire { return nil }
func (owner) Note(string)             {}
func (o owner) Label() string         { return o.label }

// refusing opens no port.
type refusing struct{ ports.Kernel }

func (refusing) Listen(ports.Key, transport.Shard, transport.Options) (transport.Port, error) {
	return nil, errors.New("it is in use")
}

// A path that learns where its peer is waits for what is missing.
func TestWaits(t *testing.T) {
	at := netip.MustParseAddrPort("198.51.100.2:4000")
	key := ports.Key{Protocol: header.UDP, Local: netip.MustParseAddrPort("192.0.2.1:5555")}
	connects := config.Path{Session: config.WireGuard{}}
	ended := errors.New("no handshake")
	type event struct {
		at  netip.AddrPort
		why error
	}
	for _, c := range []struct {
		name   string
		path   config.Path
		wrong  error   // why there are no settings
		needed bool    // a port is, and cannot be opened
		events []event // of connections
		want   string
	}{
		{"it learns nothing", config.Path{Port: 5555}, nil, false, nil, ""},
		{"before the peer", config.Path{Listen: true}, nil, false, nil, "the peer to connect: it has not done so yet"},
		{"the peer is there", config.Path{Listen: true}, nil, false, []event{{at, nil}}, ""},
		{"no port", config.Path{Listen: true}, nil, true, nil, "its local port: it is in use"},
		{"before a connection", connects, nil, false, nil, "a connection to the peer"},
		{"a connection", connects, nil, false, []event{{at, nil}}, ""},
		{"it has ended", connects, nil, false, []event{{at, nil}, {why: ended}}, "the peer: no handshake"},
		{"it is there again", connects, nil, false, []event{{at, nil}, {why: ended}, {at, nil}}, ""},
		{"no settings", connects, errors.New("no key"), false, nil, "usable settings of its connections: no key"},
	} {
		s := NewSet(zap.NewNop())
		set := ports.New(ports.Config{Log: zap.NewNop(), Sockets: refusing{}})
		s.Use(set)
		p := &Path{owner: owner{}, name: c.name, config: c.path, of: c.path, tunnel: new(config.Tunnel), set: s, wrong: c.wrong, awaits: true, key: key}
		if c.needed {
			set.Need(map[ports.Key]ports.Need{key: {}})
		}
		for _, e := range c.events {
			s.Connected(p, e.at, e.why)
		}
		for _, m := range s.Moves() {
			m.Apply()
		}
		of, waiting := p.Config()
		if waiting != c.want || (of == nil) != (c.want != "") {
			t.Errorf("%s: waiting for %q, want %q", c.name, waiting, c.want)
		}
		if of != nil && p.learns() && of.Port != at.Port() {
			t.Errorf("%s: the peer is at port %d", c.name, of.Port)
		}
	}
}

// Of a peer that has not said for a while where it is, the path says so.
func TestExpired(t *testing.T) {
	s := NewSet(zap.NewNop())
	s.Use(ports.New(ports.Config{Log: zap.NewNop()}))
	p := &Path{owner: owner{}, of: config.Path{Listen: true}, set: s}
	p.Moved(netip.MustParseAddrPort("198.51.100.2:4000"))
	p.Moved(netip.AddrPort{})
	<-s.Ready()
	for _, m := range s.Moves() {
		m.Apply()
	}
	if _, waiting := p.Config(); waiting != "the peer: no message about its address has come from it for a while" {
		t.Errorf("waiting for %q", waiting)
	}
}

// Another Path is needed for what the settings of connections depend on, and for nothing else.
func TestIs(t *testing.T) {
	peer := config.Peer{Allowed: []netip.Prefix{netip.MustParsePrefix("10.0.0.2/32")}}
	more := config.Peer{Allowed: append(peer.Allowed, netip.MustParsePrefix("10.0.0.7/32"))}
	probed := peer
	probed.Probe = netip.MustParseAddr("10.0.0.2")
	often, seldom := new(config.Tunnel), new(config.Tunnel)
	often.Keepalive, seldom.Keepalive = time.Second, time.Minute
	listens, connects := config.Path{Listen: true, LocalPort: 5555}, config.Path{LocalPort: 5555, Session: config.WireGuard{Public: config.WireGuardKey{1}}}
	for _, c := range []struct {
		name   string
		before config.Path
		tunnel *config.Tunnel
		peer   *config.Peer
		path   config.Path
		want   bool
	}{
		{"the same", connects, often, &peer, connects, true},
		{"another path", connects, often, &peer, listens, false},
		{"more behind the peer", connects, often, &more, connects, false},
		{"another inner address to probe", connects, often, &probed, connects, true},
		{"another interval", connects, seldom, &peer, connects, false},
		{"without connections", listens, seldom, &more, listens, true},
	} {
		if got := NewSet(zap.NewNop()).New(owner{}, c.name, often, &peer, &c.before).Is(c.tunnel, c.peer, &c.path); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
	if (*Path)(nil).Is(often, &peer, &listens) {
		t.Error("no Path is one")
	}
}

// When a path is put before another one at its port, both have names of their own, and both
// learn where their peers are.
func TestNames(t *testing.T) {
	s := NewSet(zap.NewNop())
	var peer config.Peer
	first, second := &owner{}, &owner{"path 1"}
	a := s.New(first, "six0", new(config.Tunnel), &peer, &config.Path{Listen: true})
	if a.String() != "six0" {
		t.Errorf("the only path is %v", a)
	}
	first.label = "path 2"
	b := s.New(second, "six0", new(config.Tunnel), &peer, &config.Path{Listen: true})
	if a.String() != "six0, path 2" || b.String() != "six0, path 1" {
		t.Errorf("the paths are %v and %v", a, b)
	}
	at := netip.MustParseAddrPort("192.0.2.1:5555")
	one := roaming.Listening{Name: "six0", Local: at, Secret: "correct horse battery", Path: a}
	if errs := s.exchange.Set([]roaming.Listening{one}, nil); errs != nil {
		t.Fatal(errs)
	}
	one.Name = a.String()
	if errs := s.exchange.Set([]roaming.Listening{{Name: b.String(), Local: at, Secret: "another correct horse", Path: b}, one}, nil); errs != nil {
		t.Error(errs)
	}
}
