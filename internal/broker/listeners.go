package broker

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	wireheartbeat "sixfour/encap/heartbeat"
	wiretic "sixfour/encap/tic"
	"sixfour/internal/api"
	"sixfour/internal/config"
	"sixfour/internal/config/problem"
	"sixfour/internal/session/heartbeat"
	"sixfour/internal/session/tic"
	"sixfour/internal/sessions"
	"sixfour/transport"
	"sixfour/transport/access"
	"sixfour/transport/ayiya"
	"sixfour/transport/jsontun"
	"sixfour/transport/tsp"
)

// server is the server of a protocol.
type server interface{ Close() error }

// listeners runs the servers of the configured listeners. A listener whose server cannot be
// opened, because the host does not have the address yet, is tried again.
type listeners struct {
	authority access.Authority
	prefix    func(account string) netip.Prefix
	options   transport.Options
	log       *zap.Logger
	wake      chan struct{}

	mu     sync.Mutex
	want   []config.BrokerListener
	open   bool // unknown clients are served
	opened map[key]*listener
	raw    map[netip.Addr]*shared41
}

// key is what distinguishes servers: another one must be opened if it changes.
type key struct {
	config.BrokerListener
	open bool
}

// listener is a configured listener.
type listener struct {
	server server // nil: it could not be opened
	err    error
	raw    *shared41
}

// shared41 is a protocol41 that several servers use.
type shared41 struct {
	*protocol41
	users int
}

func newListeners(a access.Authority, prefix func(string) netip.Prefix, o transport.Options, log *zap.Logger) *listeners {
	return &listeners{authority: a, prefix: prefix, options: o, log: log, wake: make(chan struct{}, 1), opened: map[key]*listener{}, raw: map[netip.Addr]*shared41{}}
}

// set sets which listeners there are to be. Run opens and closes them.
func (l *listeners) set(want []config.BrokerListener, open bool) {
	want = slices.Clone(want)
	for i := range want {
		want[i].At = problem.Pos{}
	}
	l.mu.Lock()
	l.want, l.open = want, open
	l.mu.Unlock()
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// run keeps the listeners open until ctx ends, and closes them. First is called when all were
// tried once.
func (l *listeners) run(ctx context.Context, first func()) {
	for {
		complete := l.update()
		if first != nil {
			first()
			first = nil
		}
		var again <-chan time.Time
		if !complete {
			again = time.After(2 * time.Second)
		}
		select {
		case <-again:
		case <-l.wake:
		case <-ctx.Done():
			l.set(nil, false)
			l.update()
			return
		}
	}
}

// update opens and closes servers. It reports whether all are open. Only run calls it.
func (l *listeners) update() (complete bool) {
	l.mu.Lock()
	want := map[key]bool{}
	for _, w := range l.want {
		want[key{w, l.open}] = true
	}
	var gone []*listener
	for k, o := range l.opened {
		if !want[k] {
			gone = append(gone, o)
			delete(l.opened, k)
		}
	}
	l.mu.Unlock()
	for _, o := range gone { // before others are opened at the same ports
		l.close(o)
	}
	complete = true
	for k := range want {
		l.mu.Lock()
		before := l.opened[k]
		l.mu.Unlock()
		if before != nil && before.server != nil {
			continue
		}
		now := &listener{}
		if now.server, now.err = l.serve(k, now); now.err != nil {
			complete = false
			now.server = nil
			l.release(now)
			if before == nil || before.err.Error() != now.err.Error() {
				l.log.Error("broker: cannot listen: trying again", zap.String("protocol", k.Protocol), zap.Stringer("address", k.Address), zap.Uint16("port", k.Port), zap.Error(now.err))
			}
		} else {
			l.log.Info("broker: listening", zap.String("protocol", k.Protocol), zap.Stringer("address", k.Address), zap.Uint16("port", k.Port))
		}
		l.mu.Lock()
		l.opened[k] = now
		l.mu.Unlock()
	}
	return complete
}

func (l *listeners) close(o *listener) {
	if o.server != nil {
		if err := o.server.Close(); err != nil {
			l.log.Debug("broker: close a listener", zap.Error(err))
		}
	}
	l.release(o)
}

// serve opens the server of a listener.
func (l *listeners) serve(k key, of *listener) (server, error) {
	local := netip.AddrPortFrom(k.Address, k.Port)
	encrypted, err := l.tls(k)
	if err != nil {
		return nil, err
	}
	switch k.Protocol {
	case "json":
		return jsontun.NewServer(jsontun.ServerConfig{Authority: l.authority, Local: local, TLS: encrypted, Required: k.Required}, l.options)
	case "ayiya":
		c := ayiya.ServerConfig{Authority: l.authority, Local: local}
		if k.SHA256 {
			c.Hashes = ayiya.AllHashes()
		}
		return ayiya.NewServer(c, l.options)
	case "heartbeat":
		raw, err := l.protocol41(k.Address, of)
		if err != nil {
			return nil, err
		}
		c := heartbeat.Config{Authority: l.authority, Local: local, Send: raw.send}
		if k.SHA256 {
			c.Digest = wireheartbeat.SHA256
		}
		s, err := heartbeat.NewServer(c)
		if err != nil {
			return nil, err
		}
		receive := s.Receive
		raw.beats.Store(&receive)
		return s, nil
	case "tic":
		return tic.NewServer(tic.Config{Authority: l.authority, Local: local, TLS: encrypted, Plain: !k.Required, SHA256: k.SHA256, POP: pop(k.Address), End: l.end, Prefix: l.prefix})
	case "tsp":
		c := tsp.ServerConfig{Authority: l.authority, Local: local, Open: k.open}
		if !k.Address.IsUnspecified() {
			raw, err := l.protocol41(k.Address, of)
			if err != nil && !errors.Is(err, unix.EPERM) {
				return nil, err
			}
			if err == nil {
				c.Raw = raw.link
			}
		}
		return tsp.NewServer(c, l.options)
	}
	return nil, fmt.Errorf("there is no server of %s", k.Protocol)
}

// end returns where tunnels of a type end that TIC offers. It cannot say a port.
func (l *listeners) end(kind string) (at netip.Addr, ok bool) {
	name := map[string]string{wiretic.TypeAYIYA: "ayiya", wiretic.TypeHeartbeat: "heartbeat"}[kind]
	p, _ := config.BrokerProtocolByName(name)
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, w := range l.want {
		switch {
		case w.Protocol != name || w.Port != p.Port:
		case w.Address.Is4() && !w.Address.IsUnspecified():
			return w.Address, true
		case w.Address.IsUnspecified():
			at, ok = netip.Addr{}, true
		}
	}
	return at, ok
}

// pop describes this server to clients of TIC.
func pop(at netip.Addr) wiretic.POP {
	p := wiretic.POP{ID: "sixfour", City: "-", Country: "-", Short: "sixfour", Name: "sixfour"}
	if at.Is4() {
		p.IPv4 = at
	} else {
		p.IPv6 = at
	}
	return p
}

// tls returns the configuration of TLS for a listener; nil: there is none.
func (l *listeners) tls(k key) (*tls.Config, error) {
	if k.Certificate == "" {
		return nil, nil
	}
	get, err := sessions.Certificate(k.Certificate, k.Key, l.log)
	if err != nil {
		return nil, err
	}
	return &tls.Config{GetCertificate: get, MinVersion: tls.VersionTLS12}, nil
}

// protocol41 returns the socket for protocol 41 at an address, which a listener uses until
// release.
func (l *listeners) protocol41(at netip.Addr, of *listener) (*protocol41, error) {
	s := l.raw[at]
	if s == nil {
		p, err := open41(at, l.options, l.log)
		if err != nil {
			return nil, err
		}
		s = &shared41{protocol41: p}
		l.raw[at] = s
	}
	s.users++
	of.raw = s
	return s.protocol41, nil
}

// release gives back what protocol41 has returned to a listener.
func (l *listeners) release(of *listener) {
	s := of.raw
	if s == nil {
		return
	}
	of.raw = nil
	if of.server != nil { // the one of heartbeat is closed
		if _, ok := of.server.(*heartbeat.Server); ok {
			s.beats.Store(nil)
		}
	}
	if s.users--; s.users == 0 {
		s.close()
		for at, o := range l.raw {
			if o == s {
				delete(l.raw, at)
			}
		}
	}
}

// status returns the state of the listeners.
func (l *listeners) status() (all []api.BrokerListener) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, w := range l.want {
		s := api.BrokerListener{Protocol: w.Protocol, Address: netip.AddrPortFrom(w.Address, w.Port)}
		if o := l.opened[key{w, l.open}]; o == nil {
			s.Error = "it is not open yet"
		} else if o.err != nil {
			s.Error = o.err.Error()
		}
		all = append(all, s)
	}
	return all
}
