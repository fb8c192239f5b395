package connectip

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sixfour/transport"
)

func TestCertificates(t *testing.T) {
	other := newAuthority(t)
	for _, c := range []struct {
		name   string
		change func(c *Config, s *Settings, a *authority)
		want   string
	}{
		{"expired", func(c *Config, _ *Settings, a *authority) {
			c.Certificate = a.certificate(name, time.Now().Add(-time.Minute))
		}, "expired"},
		{"another name", func(c *Config, _ *Settings, a *authority) {
			c.Certificate = a.certificate("other.example", time.Now().Add(time.Hour))
		}, "not " + name},
		{"an unknown authority", func(c *Config, _ *Settings, a *authority) {
			c.Certificate = other.certificate(name, time.Now().Add(time.Hour))
		}, "signed by an unknown authority"},
		{"the address instead of the name", func(_ *Config, s *Settings, _ *authority) { s.ServerName = "" }, "127.0.0.1"},
	} {
		for _, over := range []Over{UDP, TCP, Auto} {
			t.Run(c.name+" "+string(over), func(t *testing.T) {
				a := newAuthority(t)
				config := Config{Certificate: a.certificate(name, time.Now().Add(time.Hour))}
				settings := &Settings{Path: defaultPath, Secret: []byte(secret), ServerName: name, Roots: a.pool(), Over: over}
				c.change(&config, settings, a)
				server, client := open(t, config), open(t, Config{})
				if err := server.SetPeers([]transport.SessionPeer{{ID: "client", Settings: &Settings{Path: defaultPath, Secret: []byte(secret)}}}); err != nil {
					t.Fatal(err)
				}
				if err := client.SetPeers([]transport.SessionPeer{{ID: "server", Remote: server.Local(), Settings: settings}}); err != nil {
					t.Fatal(err)
				}
				if err := client.down("server"); !strings.Contains(err.Error(), c.want) {
					t.Errorf("the error is %v", err)
				}
				if over == TCP {
					wait(t, server.refusals, "the refusal")
				}
			})
		}
	}
}

func TestWrongSecretOrPath(t *testing.T) {
	for _, over := range []Over{UDP, TCP} {
		for _, c := range []struct {
			name, path, secret, want string
			refused                  error
		}{
			{"secret", defaultPath, "0123456789abcdeg", "401", ErrSecret},
			{"longer secret", defaultPath, secret + "0", "401", ErrSecret},
			{"path", "/other", secret, "404", ErrPath},
		} {
			t.Run(c.name+" "+string(over), func(t *testing.T) {
				p := newPair(t, over)
				client := open(t, Config{})
				settings := *p.client.peers["server"].settings
				settings.Path, settings.Secret = c.path, []byte(c.secret)
				if err := client.SetPeers([]transport.SessionPeer{{ID: "server", Remote: p.server.Local(), Settings: &settings}}); err != nil {
					t.Fatal(err)
				}
				if err := client.down("server"); !strings.Contains(err.Error(), c.want) {
					t.Errorf("the error is %v", err)
				}
				if got := wait(t, p.server.refusals, "the refusal"); !errors.Is(got.why, c.refused) {
					t.Errorf("refused because %v", got.why)
				}
				exchange(p.client, p.server.Local(), p.server, p.from, inner(100, 0))
				p.server.routes.mu.RLock()
				defer p.server.routes.mu.RUnlock()
				if n := len(p.server.routes.at); n != 1 {
					t.Errorf("there are %d addresses", n)
				}
			})
		}
	}
}

func TestCheckPeers(t *testing.T) {
	p := open(t, Config{Plain: true})
	good := Settings{Path: "/x", Secret: []byte(secret)}
	with := func(change func(s *Settings)) *Settings {
		s := good
		change(&s)
		return &s
	}
	remote := netip.MustParseAddrPort("127.0.0.1:443")
	for _, c := range []struct {
		name  string
		peers []transport.SessionPeer
	}{
		{"no settings", []transport.SessionPeer{{ID: 1}}},
		{"nil settings", []transport.SessionPeer{{ID: 1, Settings: (*Settings)(nil)}}},
		{"one ID twice", []transport.SessionPeer{{ID: 1, Settings: &good}, {ID: 1, Settings: with(func(s *Settings) { s.Path = "/y" })}}},
		{"one secret twice", []transport.SessionPeer{{ID: 1, Settings: &good}, {ID: 2, Settings: with(func(*Settings) {})}}},
		{"one remote twice", []transport.SessionPeer{{ID: 1, Remote: remote, Settings: &good}, {ID: 2, Remote: remote, Settings: with(func(s *Settings) { s.Path = "/y" })}}},
		{"another family", []transport.SessionPeer{{ID: 1, Remote: netip.MustParseAddrPort("[::1]:443"), Settings: &good}}},
		{"no path", []transport.SessionPeer{{ID: 1, Settings: with(func(s *Settings) { s.Path = "" })}}},
		{"a path with a line", []transport.SessionPeer{{ID: 1, Settings: with(func(s *Settings) { s.Path = "/\r\nx" })}}},
		{"no secret", []transport.SessionPeer{{ID: 1, Settings: with(func(s *Settings) { s.Secret = nil })}}},
		{"a secret with a line", []transport.SessionPeer{{ID: 1, Settings: with(func(s *Settings) { s.Secret = []byte("a\nb") })}}},
		{"a host with a path", []transport.SessionPeer{{ID: 1, Settings: with(func(s *Settings) { s.Host = "a/b" })}}},
		{"over", []transport.SessionPeer{{ID: 1, Settings: with(func(s *Settings) { s.Over = "ip" })}}},
		{"not a prefix", []transport.SessionPeer{{ID: 1, Settings: with(func(s *Settings) { s.Assign = []netip.Prefix{netip.MustParsePrefix("2001:db8::1/64")} })}}},
		{"routes that overlap", []transport.SessionPeer{{ID: 1, Settings: with(func(s *Settings) {
			s.Routes = []netip.Prefix{netip.MustParsePrefix("2001:db8::/32"), netip.MustParsePrefix("2001:db8::/64")}
		})}}},
	} {
		if err := p.SetPeers(c.peers); err == nil {
			t.Errorf("%s is accepted", c.name)
		} else if strings.Contains(err.Error(), secret) {
			t.Errorf("%s: the error has the secret: %v", c.name, err)
		}
	}
	client := open(t, Config{})
	if err := client.SetPeers([]transport.SessionPeer{{ID: 1, Settings: &good}}); err == nil {
		t.Error("a peer that connects to a port that does not listen is accepted")
	}
}

func TestListenErrors(t *testing.T) {
	if _, err := Listen(Config{Local: loopback, Plain: true, Over: UDP}, transport.Options{}); err == nil {
		t.Error("Plain over UDP is accepted")
	}
	if _, err := Listen(Config{Local: loopback, Over: "x", Plain: true}, transport.Options{}); err == nil {
		t.Error("Over x is accepted")
	}
	a := newAuthority(t)
	used := open(t, Config{Certificate: a.certificate(name, time.Now().Add(time.Hour))})
	for _, over := range []Over{UDP, TCP, Auto} {
		c := Config{Local: used.Local(), Certificate: a.certificate(name, time.Now().Add(time.Hour)), Over: over}
		if _, err := Listen(c, transport.Options{}); !errors.Is(err, unix.EADDRINUSE) {
			t.Errorf("a port in use, over %s: %v", over, err)
		}
	}
}
