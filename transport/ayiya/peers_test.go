package ayiya

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sixfour/encap/ayiya"
	"sixfour/transport"
)

func TestClientPeers(t *testing.T) {
	s, other := newStub(t), newStub(t)
	c := connect(t, 1, s.at(), quick)
	s.receive(ayiya.EchoRequest)
	s.send(s.packet(ayiya.EchoRequest, ayiya.NextNone, nil, 0))
	c.expect(t, "up 1")
	list := []transport.SessionPeer{{ID: "renamed", Remote: s.at(), Settings: settings(1)}}
	must(t, c.SetPeers(list))
	c.expect(t, "up renamed")
	must(t, c.SetPeers(list))
	list[0].Remote = other.at() // its name has another address
	must(t, c.SetPeers(list))
	if err := c.tx.SendOne(c.packet(s.at(), inner(endpoint(1).Client, internet, "x"))); !errors.Is(err, unix.ENOTCONN) {
		t.Errorf("sent to the former server: %v", err)
	}
	other.receive(ayiya.Noop)
	c.expect(t, fmt.Sprintf("up renamed %v", other.at()))

	for name, change := range map[string]func(*transport.SessionPeer, *Settings){
		"no address":           func(p *transport.SessionPeer, _ *Settings) { p.Remote = netip.AddrPort{} },
		"no port":              func(p *transport.SessionPeer, _ *Settings) { p.Remote = netip.AddrPortFrom(p.Remote.Addr(), 0) },
		"IPv6":                 func(p *transport.SessionPeer, _ *Settings) { p.Remote = netip.MustParseAddrPort("[::1]:5072") },
		"no password":          func(_ *transport.SessionPeer, s *Settings) { s.Secret = "" },
		"no identity":          func(_ *transport.SessionPeer, s *Settings) { s.Client = netip.Addr{} },
		"an IPv4 identity":     func(_ *transport.SessionPeer, s *Settings) { s.Client = netip.MustParseAddr("192.0.2.1") },
		"an identity twice":    func(_ *transport.SessionPeer, s *Settings) { s.Server = s.Client },
		"UMAC":                 func(_ *transport.SessionPeer, s *Settings) { s.Hash = 3 },
		"rare heartbeats":      func(_ *transport.SessionPeer, s *Settings) { s.Heartbeat = 2 * time.Minute },
		"a negative heartbeat": func(_ *transport.SessionPeer, s *Settings) { s.Heartbeat = -1 },
		"a large window":       func(_ *transport.SessionPeer, s *Settings) { s.Window = 2 * time.Hour },
		"other settings":       func(p *transport.SessionPeer, _ *Settings) { p.Settings = "x" },
	} {
		of := settings(1)
		p := transport.SessionPeer{Remote: s.at(), Settings: of}
		change(&p, of)
		if err := c.SetPeers([]transport.SessionPeer{p}); err == nil || strings.Contains(err.Error(), password) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := c.SetPeers([]transport.SessionPeer{list[0], list[0]}); err == nil {
		t.Error("two servers at one address are accepted")
	}
	must(t, c.Close())
	if err := c.SetPeers(nil); !errors.Is(err, net.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
	if err := c.tx.SendOne(c.packet(s.at(), nil)); err == nil {
		t.Error("sent after Close")
	}
}

func TestClientSenderErrors(t *testing.T) {
	s := newStub(t)
	c := connect(t, 1, s.at(), quick)
	c.expect(t, "up 1")
	good := c.packet(s.at(), inner(endpoint(1).Client, internet, "x"))
	other := bytes.Clone(good)
	other[21]++ // the source port
	for name, pkt := range map[string][]byte{
		"nothing": nil, "headers only": good[:28], "another port": other, "no IP packet": c.packet(s.at(), []byte{0, 1, 2}),
	} {
		if err := c.tx.SendOne(pkt); !errors.Is(err, unix.EINVAL) {
			t.Errorf("%s: %v", name, err)
		}
		n, err := c.tx.Send([]transport.Packet{{Head: good}, {Head: pkt}, {Head: good}})
		if n != 1 || !errors.Is(err, unix.EINVAL) {
			t.Errorf("%s in a batch: %d, %v", name, n, err)
		}
	}
	large := make([]byte, 65500)
	copy(large, c.packet(s.at(), inner(endpoint(1).Client, internet, string(make([]byte, 65400)))))
	if err := c.tx.SendOne(large); !errors.Is(err, unix.EMSGSIZE) {
		t.Errorf("65500 bytes: %v", err)
	}
	if _, err := c.Sender(transport.Options{Mark: 1}); err == nil {
		t.Error("a sender with another mark is opened")
	}
	if err := c.tx.Close(); err != nil {
		t.Error(err)
	}
	if _, err := c.tx.Send([]transport.Packet{{Head: good}}); !errors.Is(err, net.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

// The settings of a server show no password.
func TestSettingsAreHidden(t *testing.T) {
	for _, format := range []string{"%v", "%+v", "%#v"} {
		if text := fmt.Sprintf(format, settings(1)); strings.Contains(text, password) {
			t.Errorf("%s: %s", format, text)
		}
	}
}

// Ports are used by several goroutines at once.
func TestClientConcurrency(t *testing.T) {
	b := newBroker(3)
	s := serve(t, ServerConfig{Authority: b})
	c := connect(t, 1, s.Local(), quick)
	c.expect(t, "up 1")
	at := b.client("1")
	var all sync.WaitGroup
	all.Go(func() {
		for i := range 200 {
			pkt := c.packet(s.Local(), inner(endpoint(1).Client, internet, fmt.Sprint(i)))
			_, _ = c.tx.Send([]transport.Packet{{Head: pkt}, {Head: pkt}})
		}
	})
	all.Go(func() {
		for i := range 200 {
			_ = c.tx.SendOne(c.packet(s.Local(), inner(endpoint(1).Client, internet, fmt.Sprint(i))))
		}
	})
	for range 2 {
		all.Go(func() {
			for range 200 {
				_ = at.Link.Send(inner(internet, endpoint(1).Client, "back"))
			}
		})
	}
	all.Go(func() {
		for i := range 20 {
			_ = c.SetPeers([]transport.SessionPeer{{ID: i, Remote: s.Local(), Settings: settings(1)}})
		}
	})
	all.Wait()
	must(t, c.Close())
	must(t, s.Close())
}
