package mapserver

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"

	"sixfour/encap/lisp"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// here is the address of the map server.
var here = netip.MustParseAddr("127.83.52.1")

// run runs a service until stop is called.
func run(t *testing.T, file string, sites ...Site) (v *Service, stop func()) {
	t.Helper()
	v, err := Open(Config{Listen: []netip.Addr{here}, Store: file, Sites: sites}, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		v.Run(ctx)
	}()
	for !v.sends(here) { // the socket is not open yet
		time.Sleep(time.Millisecond)
	}
	return v, func() { cancel(); <-done }
}

// router4 returns the socket of a router, at the control port of an IPv4 address.
func router4(t *testing.T, at string) *net.UDPConn {
	t.Helper()
	c, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(at), lisp.ControlPort)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetReadBuffer(4 << 20)
	return c
}

// ask sends messages to the server, and returns the next one that comes back.
func ask(t *testing.T, c *net.UDPConn, messages ...[]byte) []byte {
	t.Helper()
	for _, m := range messages {
		if _, err := c.WriteToUDPAddrPort(m, netip.AddrPortFrom(here, lisp.ControlPort)); err != nil {
			t.Fatal(err)
		}
	}
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
	b := make([]byte, maxMessage)
	n, _, err := c.ReadFromUDPAddrPort(b)
	if err != nil {
		t.Fatal(err)
	}
	return b[:n]
}

// notified returns a registration that wants a notification.
func notified(nonce uint64, e lisp.EID, at string) []byte {
	l := lisp.Locator{Priority: 1, Flags: lisp.LocatorLocal | lisp.LocatorReachable, Addr: netip.MustParseAddr(at)}
	m := registration(nonce, true, e, l)
	m.WantNotify = true
	return m.Append(nil, key, false)
}

// A router registers, and another one gets its mapping, also after a restart. What was sent
// before the restart cannot be sent again after it.
func TestService(t *testing.T) {
	file := filepath.Join(t.TempDir(), "lisp.db")
	site := siteOf("a", "2001:db8:e1::/48")
	v, stop := run(t, file, site)
	etr := router4(t, "127.83.52.2")
	mapping := func() lisp.Record {
		t.Helper()
		q := &lisp.Request{Nonce: 77, Locators: []netip.Addr{netip.MustParseAddr("127.83.52.2")}, EIDs: []lisp.EID{host("2001:db8:e1::1")}}
		b := lisp.AppendInside(nil, netip.MustParseAddrPort("127.83.52.2:4342"), netip.AddrPortFrom(here, lisp.ControlPort), q.Append(nil))
		r, err := lisp.ParseReply(ask(t, etr, b))
		if err != nil || len(r.Records) != 1 || r.Nonce != 77 {
			t.Fatalf("%+v, %v", r, err)
		}
		return r.Records[0]
	}
	if r := mapping(); len(r.Locators) != 0 {
		t.Errorf("mapping of a site that has not registered: %+v", r)
	}
	first := notified(5, eid("2001:db8:e1::/48"), "127.83.52.2")
	n, err := lisp.ParseRegistration(ask(t, etr, first))
	if err != nil || n.Type != lisp.TypeNotify || n.Nonce != 5 {
		t.Fatalf("notification is %+v, %v", n, err)
	}
	if r := mapping(); len(r.Locators) != 1 {
		t.Errorf("mapping is %+v", r)
	}
	stop()
	if v.Status().Registered != 1 {
		t.Errorf("status is %+v", v.Status())
	}

	v, stop = run(t, file, site)
	defer stop()
	if r := mapping(); len(r.Locators) != 1 {
		t.Errorf("mapping after a restart is %+v", r)
	}
	// Registrations are served in order: when there is an answer to the second, the first
	// was refused.
	if n, err := lisp.ParseRegistration(ask(t, etr, first, notified(6, eid("2001:db8:e1::/48"), "127.83.52.2"))); err != nil || n.Nonce != 6 {
		t.Errorf("notification after a restart: %+v, %v", n, err)
	}
	if s := v.Status(); s.Refused["old_nonce"] != 1 || s.SiteList[0].Refused["old_nonce"] != 1 || s.SiteList[0].LastRegistered == nil {
		t.Errorf("status is %+v", s)
	}
	v.Reload([]Site{siteOf("b", "2001:db8:e1::/48")})
	if r := mapping(); len(r.Locators) != 0 {
		t.Errorf("mapping of a site that was removed: %+v", r)
	}
	v.Reload([]Site{site})
	if r := mapping(); len(r.Locators) != 1 {
		t.Errorf("mapping of a site that is there again: %+v", r)
	}
}

// Without a store nothing is registered, and requests are answered.
func TestNoStore(t *testing.T) {
	v, stop := run(t, filepath.Join(t.TempDir(), "none", "\x00"), siteOf("a", "2001:db8:e1::/48"))
	defer stop()
	v.admit(context.Background(), []arrived{{notified(1, eid("2001:db8:e1::/48"), "127.83.52.2"), one}})
	if s := v.Status(); s.Error == "" || s.Refused["not_kept"] != 1 || s.Prefixes != 0 {
		t.Errorf("status is %+v", s)
	}
}

// All routers of 10,000 sites register at once, and each gets its notification: those whose
// messages were lost send them again.
func TestManySites(t *testing.T) {
	const sites = 10_000
	prefix := func(i int) lisp.EID {
		var a [16]byte
		copy(a[:], []byte{0x20, 1, 0xd, 0xb8})
		binary.BigEndian.PutUint16(a[4:], uint16(i))
		return lisp.EID{Prefix: netip.PrefixFrom(netip.AddrFrom16(a), 48)}
	}
	var all []Site
	for i := range sites {
		all = append(all, Site{Name: fmt.Sprint(i), Key: key, EIDs: []lisp.EID{prefix(i)}})
	}
	v, stop := run(t, filepath.Join(t.TempDir(), "lisp.db"), all...)
	defer stop()
	c := router4(t, "127.83.52.3")
	// The goroutine ends when the socket is closed.
	heard := make(chan int, sites)
	done := make(chan struct{})
	go func() {
		defer close(done)
		b := make([]byte, 2048)
		for {
			n, err := c.Read(b)
			if err != nil {
				return
			}
			if m, err := lisp.ParseRegistration(b[:n]); err == nil && len(m.Records) == 1 {
				a := m.Records[0].EID.Prefix.Addr().As16()
				heard <- int(binary.BigEndian.Uint16(a[4:]))
			}
		}
	}()
	defer func() { c.Close(); <-done }()
	missing := map[int]bool{}
	for i := range sites {
		missing[i] = true
	}
	for round := uint64(1); len(missing) > 0; round++ {
		if round > 100 {
			t.Fatalf("%d sites of %d are not registered", len(missing), sites)
		}
		window := 0
		for i := range missing {
			if _, err := c.WriteToUDPAddrPort(notified(round, prefix(i), "127.83.52.3"), netip.AddrPortFrom(here, lisp.ControlPort)); err != nil {
				t.Fatal(err)
			}
			if window++; window == 2000 {
				break
			}
		}
		for quiet := false; window > 0 && !quiet; {
			select {
			case i := <-heard:
				delete(missing, i)
				window--
			case <-time.After(time.Second):
				quiet = true
			}
		}
	}
	if s := v.Status(); s.Registered != sites || s.Prefixes != sites || len(s.SiteList) != maxSites {
		t.Errorf("%d sites of %d are registered, with %d prefixes", s.Registered, s.Sites, s.Prefixes)
	}
	last := requestFor(lisp.HostEID(0, prefix(sites-1).Prefix.Addr().Next()), "127.83.52.3")
	if m, why := v.server.Answer(last, one, time.Now()); why != Served || !bytes.Contains(m.Bytes, []byte{127, 83, 52, 3}) {
		t.Errorf("the last site has no mapping: %v", why)
	}
}

func BenchmarkAnswer(b *testing.B) {
	s := serverWith(siteOf("a", "2001:db8:e1::/48"))
	if why := register(s, registration(1, true, eid("2001:db8:e1::/48"), at("192.0.2.1")).Append(nil, key, false), begin); why != Served {
		b.Fatal(why)
	}
	q := requestFor(host("2001:db8:e1::1"))
	b.ReportAllocs()
	for b.Loop() {
		s.Answer(q, one, begin)
	}
}
