package broker

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"

	"sixfour/encap/drop"
	"sixfour/internal/api"
	"sixfour/internal/events"
	"sixfour/internal/leases"
	"sixfour/internal/store"
	"sixfour/transport/access"
)

// place is an Authority with accounts in a file.
type place struct {
	*Authority
	base   *leases.Base
	routes routeList
	log    events.Log
}

type routeList struct {
	mu  sync.Mutex
	all []Route
}

func (r *routeList) Add(route Route) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = append(r.all, route)
}

func (r *routeList) Remove(route Route) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = slices.DeleteFunc(r.all, func(o Route) bool { return o == route })
}

func newPlace(t *testing.T, open bool) *place {
	t.Helper()
	p := &place{}
	p.Authority = New(Config{Interface: "six0", Clients: access.NewClients(), Router: &p.routes, Events: &p.log, Log: zap.NewNop()})
	s, err := store.OpenBolt(filepath.Join(t.TempDir(), "broker.db"))
	if err != nil {
		t.Fatal(err)
	}
	pool, endpoints := netip.MustParsePrefix("2001:db8:100::/40"), netip.MustParsePrefix("2001:db8:ff::/48")
	p.base, err = leases.Open(t.Context(), leases.Config{
		Store: s, Server: "here", Pool: []netip.Prefix{pool}, PrefixLength: 64, MaxPrefixLength: 56, Endpoints: endpoints, MTU: 1280, Open: open, Notify: p.Notify,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.base.Close(); s.Close() })
	p.Set(Settings{MTU: 1280, Networks: []netip.Prefix{pool, endpoints}})
	p.Use(p.base)
	return p
}

func (p *place) add(t *testing.T, a leases.Account) access.Account {
	t.Helper()
	a.Type, a.Enabled = "ayiya", true
	if _, err := p.base.Add(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	named, err := p.Named(a.Name)
	if err != nil {
		t.Fatal(err)
	}
	return named
}

// testLink remembers how it was ended, and what was sent.
type testLink struct {
	mu    sync.Mutex
	ended *access.Refusal
	sent  int
}

func (l *testLink) Send([]byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sent++
	return nil
}

func (l *testLink) End(why *access.Refusal) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended = why
}

// reason waits until the link is ended.
func (l *testLink) reason(t *testing.T) access.Reason {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		l.mu.Lock()
		why := l.ended
		l.mu.Unlock()
		if why != nil {
			return why.Reason
		}
	}
	t.Fatal("the client is not ended")
	return ""
}

var outside = netip.MustParseAddrPort("198.51.100.7:4000")

func (p *place) attach(t *testing.T, a access.Account) (access.Client, *testLink) {
	t.Helper()
	l := &testLink{}
	c, err := p.Attach(t.Context(), a, access.Attachment{Protocol: "ayiya", From: outside, Link: l})
	if err != nil {
		t.Fatal(err)
	}
	return c, l
}

// inner returns the beginning of a packet with two addresses.
func inner(src, dst netip.Addr) []byte {
	b := make([]byte, 48)
	b[0], b[5], b[6], b[7] = 0x60, 8, 59, 64
	copy(b[8:], src.AsSlice())
	copy(b[24:], dst.AsSlice())
	return b
}

// refusal returns the reason of an error.
func reasonOf(err error) access.Reason {
	var r *access.Refusal
	if errors.As(err, &r) {
		return r.Reason
	}
	return access.Reason(fmt.Sprint(err))
}

// A client is attached with its prefix, which is routed to it until it leaves, and is the same
// when it comes back.
func TestAttach(t *testing.T) {
	p := newPlace(t, false)
	alice := p.add(t, leases.Account{Name: "alice", Secret: "wonderland"})
	if at, err := p.At(alice.Endpoint.Client); err != nil || at != alice {
		t.Errorf("at %v: %+v, %v", alice.Endpoint.Client, at, err)
	}
	c, _ := p.attach(t, alice)
	lease := c.Lease()
	if lease.Account != "alice" || lease.Prefix.Bits() != 64 || lease.MTU != 1280 || lease.Endpoint != alice.Endpoint {
		t.Errorf("the lease is %+v", lease)
	}
	if len(p.routes.all) != 1 || p.routes.all[0].Prefix != lease.Prefix {
		t.Errorf("the routes are %v", p.routes.all)
	}
	moved := netip.MustParseAddrPort("198.51.100.8:4001")
	c.Heard(moved, netip.AddrPort{})
	if l, ok := p.base.Lease("alice"); !ok || l.Last.Outer != moved || !l.Until.IsZero() {
		t.Errorf("the lease in the base is %+v", l)
	}
	c.Leave("enough")
	c.Leave("once more")
	if len(p.routes.all) != 0 {
		t.Errorf("the routes are %v", p.routes.all)
	}
	if r := c.Receive(inner(lease.Prefix.Addr().Next(), routerAddr)); r == drop.None {
		t.Error("a client that has left sends")
	}
	again, _ := p.attach(t, alice)
	if again.Lease() != lease {
		t.Errorf("then the lease is %+v", again.Lease())
	}
	p.Close()
	if _, err := p.Attach(t.Context(), alice, access.Attachment{Protocol: "ayiya", From: outside, Link: &testLink{}}); reasonOf(err) != access.Stopping {
		t.Errorf("after Close: %v", err)
	}
	var kinds []string
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for e := range p.log.Follow(ctx) {
		if kinds = append(kinds, e.Kind); len(kinds) == 4 {
			break
		}
	}
	if want := []string{api.EventGranted, api.EventMoved, api.EventLeft, api.EventGranted}; !slices.Equal(kinds, want) {
		t.Errorf("the events are %v, want %v", kinds, want)
	}
}

var routerAddr = netip.MustParseAddr("2001:db8:1::2")

// A client that comes again ends its former connection, whose packets count no more. So does
// one that was removed, disabled, or has another secret.
func TestEnded(t *testing.T) {
	p := newPlace(t, false)
	alice := p.add(t, leases.Account{Name: "alice", Secret: "wonderland"})
	first, link := p.attach(t, alice)
	second, other := p.attach(t, alice)
	if r := link.reason(t); r != access.Elsewhere {
		t.Errorf("the first is ended with %s", r)
	}
	first.Leave("late")
	if len(p.routes.all) != 1 || first.Lease() != second.Lease() {
		t.Errorf("the routes are %v", p.routes.all)
	}
	from := second.Lease().Prefix.Addr().Next()
	if r := first.Receive(inner(from, routerAddr)); r == drop.None {
		t.Error("the first still sends")
	}
	for _, c := range []struct {
		change func(*leases.Account)
		want   access.Reason
	}{
		{func(a *leases.Account) { a.Enabled = false }, access.Disabled},
		{func(a *leases.Account) { a.Enabled, a.Secret = true, "another" }, access.WrongSecret},
		{func(a *leases.Account) { a.Limits.Rate = 1000 }, access.TooMany},
	} {
		if _, err := p.base.Change(t.Context(), "alice", c.change); err != nil {
			t.Fatal(err)
		}
		if alice.Secret != "" && c.want != access.Disabled { // enabled again
			now, err := p.Named("alice")
			if err != nil {
				t.Fatal(err)
			}
			if c.want == access.WrongSecret {
				_, other = p.attach(t, alice) // with the former secret
				p.Notify(leases.Event{Kind: leases.Changed, Account: "alice"})
				alice = now
			}
		}
		if r := other.reason(t); r != c.want {
			t.Errorf("it is ended with %s, want %s", r, c.want)
		}
		if c.want == access.WrongSecret {
			_, other = p.attach(t, alice)
		}
	}
	_, other = p.attach(t, alice)
	p.Notify(leases.Event{Kind: leases.Moved, Account: "alice", Server: "there"})
	if r := other.reason(t); r != access.Elsewhere || len(p.routes.all) != 0 {
		t.Errorf("at another server: %s, routes %v", r, p.routes.all)
	}
	c, other := p.attach(t, alice)
	p.Notify(leases.Event{Kind: leases.Silent, Before: time.Now().Add(-time.Hour)})
	if other.ended != nil {
		t.Error("a client that was heard is ended")
	}
	p.Notify(leases.Event{Kind: leases.Silent, Before: time.Now().Add(time.Second)})
	if r := other.reason(t); r != access.Silent {
		t.Errorf("a silent client is ended with %s", r)
	}
	_ = c
}

// A client cannot be what it is not: the inner source is its own, and the outer one not an
// address inside the tunnels.
func TestLies(t *testing.T) {
	p := newPlace(t, false)
	a, b := p.add(t, leases.Account{Name: "a", Secret: "1"}), p.add(t, leases.Account{Name: "b", Secret: "2"})
	if _, err := p.config.Clients.Listen(); err != nil {
		t.Fatal(err)
	}
	c, _ := p.attach(t, a)
	other, _ := p.attach(t, b)
	own, theirs := c.Lease(), other.Lease()
	for _, x := range []struct {
		src, dst netip.Addr
		want     drop.Reason
	}{
		{own.Prefix.Addr().Next(), routerAddr, drop.None},
		{own.Endpoint.Client, routerAddr, drop.None},
		{own.Endpoint.Client, own.Endpoint.Broker, drop.None},
		{own.Prefix.Addr().Next(), theirs.Prefix.Addr().Next(), drop.None},
		{theirs.Prefix.Addr().Next(), routerAddr, drop.Spoof},
		{theirs.Endpoint.Client, routerAddr, drop.Spoof},
		{own.Endpoint.Broker, routerAddr, drop.Spoof},
		{netip.IPv6Unspecified(), routerAddr, drop.Spoof},
		{netip.IPv6Loopback(), routerAddr, drop.Spoof},
		{netip.MustParseAddr("fe80::1"), routerAddr, drop.Martian},
		{own.Prefix.Addr().Next(), netip.MustParseAddr("ff02::1"), drop.Martian},
		{own.Prefix.Addr().Next(), own.Prefix.Addr(), drop.Loop},
	} {
		if r := c.Receive(inner(x.src, x.dst)); r != x.want {
			t.Errorf("%v to %v: %v, want %v", x.src, x.dst, r, x.want)
		}
	}
	for _, short := range [][]byte{nil, {0x60}, make([]byte, 39), append([]byte{0x45}, make([]byte, 60)...)} {
		if r := c.Receive(short); r == drop.None {
			t.Errorf("% x is accepted", short)
		}
	}
	_, err := p.Attach(t.Context(), a, access.Attachment{Protocol: "ayiya", From: netip.AddrPortFrom(theirs.Prefix.Addr().Next(), 1), Link: &testLink{}})
	if reasonOf(err) != access.WrongAddress {
		t.Errorf("from an address inside: %v", err)
	}
	if _, err := p.Named("nobody"); reasonOf(err) != access.UnknownAccount {
		t.Errorf("an unknown name: %v", err)
	}
	if _, err := p.At(routerAddr); reasonOf(err) != access.UnknownAccount {
		t.Errorf("an unknown address: %v", err)
	}
	if _, err := New(Config{Log: zap.NewNop()}).Named("a"); reasonOf(err) != access.Unavailable {
		t.Errorf("without a store: %v", err)
	}
}

// Many clients of one account at once: one stays, and it is the one that is routed.
func TestAttachRace(t *testing.T) {
	p := newPlace(t, true)
	var all sync.WaitGroup
	for i := range 200 {
		all.Go(func() {
			a, err := p.Named(fmt.Sprint("id", i%5))
			if err == nil {
				var c access.Client
				if c, err = p.Attach(t.Context(), a, access.Attachment{Protocol: "json", From: outside, Link: &testLink{}}); err == nil && i%3 == 0 {
					c.Leave("at once")
				}
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	clients, _ := p.counts()
	if n := len(p.all()); n != clients["json"] || n != len(p.routes.all) || n > 5 {
		t.Errorf("%d clients, %v by protocol, routes %v", n, clients, p.routes.all)
	}
}

// Refusals are counted by protocol and reason. Few of them are logged.
func TestRefuse(t *testing.T) {
	p := newPlace(t, false)
	for i := range 1000 {
		p.Refuse("tic", outside, fmt.Sprint("x", i), access.Refuse(access.WrongSecret, "no"))
	}
	p.Refuse("ayiya", outside, "", access.Refuse(access.BadClock, "no"))
	_, refused := p.counts()
	want := []api.BrokerRefusals{{Protocol: "ayiya", Reason: "bad_clock", Count: 1}, {Protocol: "tic", Reason: "wrong_secret", Count: 1000}}
	if !slices.Equal(refused, want) {
		t.Errorf("%v, want %v", refused, want)
	}
}

// Sources have rates: a host in IPv6 has one for its /64. What succeeds does not count, and the
// memory is bounded.
func TestAllow(t *testing.T) {
	now := time.Now()
	a := New(Config{Log: zap.NewNop(), Now: func() time.Time { return now }})
	in := func(s string) netip.Addr { return netip.MustParseAddr(s) }
	n := 0
	for i := range 3 * burstAttempts {
		if a.Allow(in(fmt.Sprintf("2001:db8::%x", i+1))) {
			n++
		}
	}
	if n != burstAttempts {
		t.Errorf("%d attempts of a /64, want %d", n, burstAttempts)
	}
	if !a.Allow(in("2001:db8:0:1::1")) || !a.Allow(in("::ffff:192.0.2.1")) || !a.Allow(in("192.0.2.1")) {
		t.Error("others are not allowed")
	}
	now = now.Add(time.Second)
	n = 0
	for range burstAttempts {
		if a.Allow(in("2001:db8::1")) {
			n++
		}
	}
	if n != attemptsPerSecond {
		t.Errorf("%d attempts in a second, want %d", n, attemptsPerSecond)
	}
	for range 5 * burstAttempts {
		if !a.Allow(in("192.0.2.2")) {
			t.Fatal("attempts that succeed count")
		}
		a.rates.giveBack(in("192.0.2.2"))
	}
	for i := range 4 * maxSources {
		a.Allow(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}))
	}
	if len(a.rates.now) > maxSources || len(a.rates.old) > maxSources {
		t.Errorf("%d and %d sources are known", len(a.rates.now), len(a.rates.old))
	}
}

// An account with a rate gets that much, in each direction.
func TestRate(t *testing.T) {
	p := newPlace(t, false)
	if _, err := p.config.Clients.Listen(); err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	p.config.Now = func() time.Time { return now }
	c, _ := p.attach(t, p.add(t, leases.Account{Name: "slow", Secret: "s", Limits: leases.Limits{Rate: 8 * 48 * 100}}))
	pkt := inner(c.Lease().Prefix.Addr().Next(), routerAddr)
	got := func() (n int) {
		for range 1000 {
			if c.Receive(pkt) == drop.None {
				n++
			}
		}
		return n
	}
	first := got()
	now = now.Add(100 * time.Millisecond)
	if second := got(); first < 25 || first > 27 || second < 9 || second > 11 {
		t.Errorf("%d packets at once, then %d in a tenth of a second", first, second)
	}
}

// A packet takes as long with many clients as with one, and no memory.
func BenchmarkReceive(b *testing.B) {
	for _, n := range []int{1, 20_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			clients := access.NewClients()
			port, err := clients.Listen()
			if err != nil {
				b.Fatal(err)
			}
			defer port.Close()
			all := make([]*access.Attached, n)
			pkts := make([][]byte, n)
			for i := range all {
				p := netip.PrefixFrom(netip.MustParseAddr(fmt.Sprintf("2001:db8:%x:%x::", 0x100+i>>16, i&0xffff)), 64)
				if all[i], err = clients.Attach(p, netip.Addr{}, &testLink{}); err != nil {
					b.Fatal(err)
				}
				pkts[i] = inner(p.Addr().Next(), routerAddr)
			}
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				all[i].Receive(pkts[i])
				if i++; i == n {
					i = 0
				}
			}
		})
	}
}

// What a log line may have of a client is bounded and without control characters by the logger;
// names of protocols are those of the servers.
func TestEventTexts(t *testing.T) {
	p := newPlace(t, false)
	p.Refuse("tsp", outside, "a", access.Refuse(access.BadMessage, "%s", strings.Repeat("x", 10)))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	if e := <-p.log.Follow(ctx); e.Kind != api.EventRefused || e.Peer != "a" || e.Tunnel != "six0" || !strings.Contains(e.Text, "tsp from 198.51.100.7:4000: bad_message: xxx") {
		t.Errorf("%+v", e)
	}
}
