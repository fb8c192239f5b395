package grants

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"reflect"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	wire "sixfour/encap/tic"
	"sixfour/internal/config"
	"sixfour/internal/session/heartbeat"
	"sixfour/internal/session/tic"
	"sixfour/internal/text"
)

const (
	// After a failure, the next attempt is after firstRetry, which doubles up to lastRetry. After
	// patience failures in a row it is after slowRetry: an account with a wrong password should
	// not be locked.
	firstRetry = 2 * time.Second
	lastRetry  = 30 * time.Second
	slowRetry  = 5 * time.Minute
	patience   = 20
	// askAgain is how often a server is asked that has answered: the administrator may have
	// changed something.
	askAgain = time.Hour
)

// retry returns the pause after so many failures in a row, three quarters to one and a quarter of
// what it would be, so that many clients do not come back at the same time.
func retry(failures int) time.Duration {
	pause := min(firstRetry<<min(max(failures-1, 0), 8), lastRetry)
	if failures > patience {
		pause = slowRetry
	}
	return jitter(pause)
}

func jitter(d time.Duration) time.Duration { return d*3/4 + rand.N(d/2) }

// learner holds a dialogue of TIC.
type learner func(context.Context, tic.ClientConfig) (wire.Tunnel, error)

// ask asks a server of TIC how the tunnel is configured, again and again, until ctx ends.
func (s *session) ask(ctx context.Context, of *config.TIC) {
	var beats sync.WaitGroup
	defer beats.Wait()
	var sends *grant // whose messages are sent
	stop := func() {}
	defer func() { stop() }()
	failures := 0
	for {
		g, err := s.askOnce(ctx, of)
		if ctx.Err() != nil {
			return
		}
		s.mu.Lock()
		s.asked = s.set.Clock.Now()
		wait := jitter(askAgain)
		if err != nil {
			failures++
			wait = retry(failures)
			s.fail(s.advise(err))
		} else {
			failures = 0
			s.succeed()
		}
		s.status.Next = s.set.Clock.Now().Add(wait)
		s.mu.Unlock()
		if err == nil {
			s.take(g)
			if sends == nil || !reflect.DeepEqual(sends.beats, g.beats) || sends.to != g.to || sends.every != g.every {
				stop()
				stop = func() {}
				if sends = g; g.beats != nil {
					stop = s.beginBeats(ctx, &beats, g)
				}
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-s.wake:
		case <-s.set.Clock.After(wait):
		}
	}
}

func (s *session) askOnce(ctx context.Context, of *config.TIC) (*grant, error) {
	if of.Password.Value() == "" {
		return nil, fmt.Errorf("the password in %s could not be read: correct the file, and reload", of.Password)
	}
	c := tic.ClientConfig{
		Server: net.JoinHostPort(serverOf(&s.id.client), strconv.Itoa(int(s.id.client.Port))),
		User:   of.User, Password: of.Password.Value(), TunnelID: of.TunnelID,
		StartTLS: map[string]tic.StartTLS{"auto": tic.Auto, "require": tic.Require, "off": tic.Off}[of.StartTLS],
		Name:     serverOf(&s.id.client),
		Dial:     s.dialer().DialContext,
		Now:      s.set.Clock.Now,
	}
	if of.CA != "" {
		pem, err := os.ReadFile(of.CA)
		if err != nil {
			return nil, fmt.Errorf("ca: %w", err)
		}
		if c.CA = x509.NewCertPool(); !c.CA.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("ca %s: there is no certificate in it", of.CA)
		}
	}
	learn := s.set.learn
	if learn == nil {
		learn = tic.Learn
	}
	t, err := learn(ctx, c)
	if err != nil {
		return nil, err
	}
	return s.ofTIC(&t)
}

// ofTIC returns what a server of TIC grants.
func (s *session) ofTIC(t *wire.Tunnel) (*grant, error) {
	name := text.Cut(text.Clean(t.ID), maxSaid)
	switch {
	case t.Disabled != "":
		return nil, fmt.Errorf("the tunnel %s is disabled by the %s: enable it at the server", name, t.Disabled)
	case !t.Client.Is6() || t.Bits < 48 || t.Bits > 128:
		return nil, fmt.Errorf("the server says of the tunnel %s that our end is %v/%d, which is no address of IPv6 with a prefix length", name, t.Client, t.Bits)
	case !t.Server.Is4() && t.Type != wire.TypeAYIYA || !t.Server.IsValid():
		return nil, fmt.Errorf("the server does not say of the tunnel %s to which IPv4 address packets go", name)
	}
	g := &grant{Grant: config.Grant{Address: netip.PrefixFrom(t.Client, t.Bits), Remote: t.Broker, MTU: t.MTU}}
	path := config.Path{Encap: config.NoEncapsulation, Remote: config.Host{Addr: t.Server}}
	password := config.Secret{}.With(t.Password)
	switch t.Type {
	case wire.Type6in4:
	case wire.TypeHeartbeat:
		g.beats, g.every, g.to = &config.Heartbeat{Identity: t.Client, Password: password}, t.Interval, netip.AddrPortFrom(t.Server, config.HeartbeatPortNumber)
	case wire.TypeAYIYA:
		path.Encap, path.Port, path.Session = "ayiya", config.AYIYAPortNumber, config.AYIYA{Identity: t.Client, Password: password, Hash: "sha1"}
	default:
		return nil, fmt.Errorf("the tunnel %s is of the type %q, which is not one of 6in4, 6in4-heartbeat and ayiya: choose another type at the server", name, text.Cut(text.Clean(t.Type), 40))
	}
	g.Path = &path
	return g, nil
}

// beginBeats begins to send the heartbeats of a grant, and returns a function that ends it.
func (s *session) beginBeats(ctx context.Context, wg *sync.WaitGroup, g *grant) (stop func()) {
	ctx, stop = context.WithCancel(ctx)
	wg.Go(func() { s.beat(ctx, g.beats, g.to.Port(), g.every) })
	return stop
}

// beat sends heartbeats until ctx ends.
func (s *session) beat(ctx context.Context, of *config.Heartbeat, port uint16, every time.Duration) {
	if of.Password.Value() == "" {
		s.mu.Lock()
		s.fail(fmt.Sprintf("the password in %s could not be read: correct the file, and reload", of.Password))
		s.mu.Unlock()
		return
	}
	client := heartbeat.NewClient(heartbeat.ClientConfig{
		Server: func() (netip.AddrPort, bool) {
			s.mu.Lock()
			defer s.mu.Unlock()
			return netip.AddrPortFrom(s.seen.Remote, port), s.seen.Remote.IsValid()
		},
		Local: s.id.local, Identity: of.Identity, Secret: of.Password.Value(),
		Control: s.dialer().Control, Every: every, Now: s.set.Clock.Now,
		Sent: func(_ netip.Addr, err error) {
			s.mu.Lock()
			defer s.mu.Unlock()
			if err != nil && s.seen.Remote.IsValid() {
				s.fail(s.advise(err))
			} else if err == nil && s.mode == "heartbeat" && !s.silent {
				s.succeed()
			}
		},
	})
	s.mu.Lock()
	s.beats = client
	s.mu.Unlock()
	client.Run(ctx)
}

// dialer returns how the server is connected to: with the mark of the tunnel's packets, so that
// the connection does not go through the tunnel itself.
func (s *session) dialer() *net.Dialer {
	d := &net.Dialer{Timeout: 10 * time.Second}
	if s.id.mark != 0 {
		d.Control = func(_, _ string, c syscall.RawConn) error {
			var err error
			if failed := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, int(s.id.mark)) }); failed != nil {
				return failed
			}
			return err
		}
	}
	return d
}

// advise returns an error in words, with what can be done about it.
func (s *session) advise(err error) string {
	if err == nil {
		return "the session has ended"
	}
	words := err.Error()
	var (
		unknown x509.UnknownAuthorityError
		name    x509.HostnameError
		invalid x509.CertificateInvalidError
		dns     *net.DNSError
		timeout interface{ Timeout() bool }
	)
	port, protocol := s.id.client.Port, "TCP"
	switch s.mode {
	case "ayiya", "heartbeat":
		protocol = "UDP"
	case "tsp":
		protocol = "UDP or TCP"
	}
	switch {
	case errors.As(err, &unknown):
		return words + ": name the file with the certificate of its authority in ca"
	case errors.As(err, &name):
		return words + ": give server the name that is in its certificate"
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return words + ": the server's certificate has expired, or this host's clock is wrong"
	case errors.As(err, &dns):
		return words + ": correct server, or the name servers of this host"
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Sprintf("%s: nothing listens at %s port %d of the server: set another port in server", words, protocol, port)
	case errors.As(err, &timeout) && timeout.Timeout():
		return fmt.Sprintf("%s: the server does not answer at %s port %d: does a packet filter drop it?", words, protocol, port)
	}
	return words
}
