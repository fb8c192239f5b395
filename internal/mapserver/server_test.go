package mapserver

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"time"

	"sixfour/encap/header"
	"sixfour/encap/lisp"
	"sixfour/internal/store"
	"sixfour/internal/vectors"
)

var (
	key   = []byte("lisp-key")
	begin = time.Unix(1_800_000_000, 0)
	one   = netip.MustParseAddrPort("192.0.2.1:50010")
)

func eid(s string) lisp.EID { return lisp.EID{Prefix: netip.MustParsePrefix(s)} }

func host(s string) lisp.EID { return lisp.HostEID(0, netip.MustParseAddr(s)) }

// serverWith returns a server that can send to all addresses.
func serverWith(sites ...Site) *Server {
	s := New()
	s.Sends = netip.Addr.IsValid
	s.SetSites(sites)
	return s
}

func siteOf(name string, prefixes ...string) Site {
	s := Site{Name: name, Key: key}
	for _, p := range prefixes {
		s.EIDs = append(s.EIDs, eid(p))
	}
	return s
}

// at returns a locator that is the sender's own.
func at(a string) lisp.Locator {
	return lisp.Locator{Priority: 1, Weight: 100, Flags: lisp.LocatorLocal | lisp.LocatorReachable, Addr: netip.MustParseAddr(a)}
}

func registration(nonce uint64, proxy bool, e lisp.EID, locators ...lisp.Locator) *lisp.Registration {
	return &lisp.Registration{Type: lisp.TypeRegister, Proxy: proxy, Nonce: nonce, Algorithm: lisp.SHA256, Records: []lisp.Record{{TTL: 60, EID: e, Authoritative: true, Locators: locators}}}
}

// register registers, and returns the reason why it is refused.
func register(s *Server, b []byte, now time.Time) Reason {
	a, why := s.Admit(b, one, now)
	if why == Served {
		s.Apply(a, now)
	}
	return why
}

func accept(t *testing.T, s *Server, m *lisp.Registration, now time.Time) {
	t.Helper()
	if why := register(s, m.Append(nil, key, false), now); why != Served {
		t.Fatalf("registration of %v is refused: %v", m.Records, why)
	}
}

func requestFor(e lisp.EID, locators ...string) []byte {
	q := &lisp.Request{Nonce: 77, EIDs: []lisp.EID{e}}
	for _, a := range locators {
		q.Locators = append(q.Locators, netip.MustParseAddr(a))
	}
	if len(locators) == 0 {
		q.Locators = []netip.Addr{netip.MustParseAddr("198.51.100.2")}
	}
	return encapsulated(q)
}

func encapsulated(q *lisp.Request) []byte {
	return lisp.AppendInside(nil, netip.MustParseAddrPort("198.51.100.2:50011"), netip.MustParseAddrPort("192.0.2.99:4342"), q.Append(nil))
}

// replyTo returns the only record of the reply to a request.
func replyTo(t *testing.T, s *Server, b []byte, now time.Time) lisp.Record {
	t.Helper()
	m, why := s.Answer(b, netip.MustParseAddrPort("198.51.100.2:4342"), now)
	if why != Served {
		t.Fatalf("refused: %v", why)
	}
	if m.To != netip.MustParseAddrPort("198.51.100.2:50011") {
		t.Errorf("reply to %v", m.To)
	}
	r, err := lisp.ParseReply(m.Bytes)
	if err != nil || len(r.Records) != 1 || r.Nonce != 77 || r.Probe {
		t.Fatalf("reply is %+v, %v", r, err)
	}
	return r.Records[0]
}

// payload returns the UDP payload of a packet of the vectors.
func payload(t *testing.T, name string) []byte {
	t.Helper()
	b := vectors.Read(t)[name]
	if len(b) < header.IPv4Len+header.UDPLen {
		t.Fatalf("no vector %s", name)
	}
	return b[header.IPv4Len+header.UDPLen:]
}

// Registrations of other programs are taken and notified as they expect it, under the right
// reasons otherwise.
func TestVectors(t *testing.T) {
	s := serverWith(siteOf("a", "2001:db8:e1::/48"))
	for _, c := range []struct {
		name, notify string
		why          Reason
	}{
		{name: "LISP-3", notify: "LISP-4"},
		{name: "LISP-16"},
		{name: "LISP-18"},
		{name: "LISP-19"},
		{name: "LISP-20", notify: "LISP-21"},
		{name: "LISP-D1", why: WrongKey},
		{name: "LISP-D2", why: OldNonce},
		{name: "LISP-20", why: OldNonce},
		{name: "LISP-18", why: OldNonce},
		{name: "LISP-4", why: Malformed},
	} {
		a, why := s.Admit(payload(t, c.name), one, begin)
		if why != c.why {
			t.Errorf("%s: %v, want %v", c.name, why, c.why)
		}
		if why != Served {
			continue
		}
		m, ok := s.Apply(a, begin)
		if !ok {
			t.Errorf("%s: no notification", c.name)
		}
		if c.notify != "" && (!bytes.Equal(m.Bytes, payload(t, c.notify)) || m.To != netip.MustParseAddrPort("192.0.2.1:4342")) {
			t.Errorf("%s: notification to %v is\n%x, want\n%x", c.name, m.To, m.Bytes, payload(t, c.notify))
		}
	}
	if s.sites["a"].refused[OldNonce] != 3 || s.sites["a"].refused[WrongKey] != 1 {
		t.Errorf("refused: %v", s.sites["a"].refused)
	}
}

// A request is forwarded as it is to a router that has not asked for replies of the server.
func TestForward(t *testing.T) {
	s := serverWith(siteOf("b", "2001:db8:e2::/48"))
	accept(t, s, registration(1, false, eid("2001:db8:e2::/48"), at("198.51.100.2")), begin)
	b := payload(t, "LISP-10")
	m, why := s.Answer(b, one, begin)
	if why != Served || m.To != netip.MustParseAddrPort("198.51.100.2:4342") || !bytes.Equal(m.Bytes, payload(t, "LISP-11")) {
		t.Errorf("%v to %v:\n%x, want\n%x", why, m.To, m.Bytes, payload(t, "LISP-11"))
	}
}

// The router to which a request goes can be reached, and is one of those with the best priority,
// by their weights.
func TestChoice(t *testing.T) {
	s := serverWith(siteOf("b", "2001:db8:e2::/48"))
	heavy, light, worse, down, unusable := at("192.0.2.1"), at("192.0.2.2"), at("192.0.2.3"), at("192.0.2.4"), at("192.0.2.5")
	heavy.Weight, light.Weight, worse.Priority, down.Flags, unusable.Priority = 3, 1, 2, 0, 255
	s.Sends = func(a netip.Addr) bool { return a.Is4() }
	accept(t, s, registration(1, false, eid("2001:db8:e2::/48"), worse, heavy, down, unusable, light, at("2001:db8::1")), begin)
	got := map[netip.Addr]int{}
	for n := range uint64(400) {
		m, _ := s.Answer(encapsulated(&lisp.Request{Nonce: n, Locators: []netip.Addr{one.Addr()}, EIDs: []lisp.EID{host("2001:db8:e2::1")}}), one, begin)
		got[m.To.Addr()]++
	}
	if len(got) != 2 || got[heavy.Addr] != 300 || got[light.Addr] != 100 {
		t.Errorf("requests go to %v", got)
	}
}

// Replies are for the widest prefix of which they are true, in place of one router, and in the
// instance that was asked for.
func TestReplies(t *testing.T) {
	seven := lisp.EID{Instance: 7, Prefix: netip.MustParsePrefix("10.0.0.0/8")}
	wide := siteOf("wide", "2001:db8::/32", "192.168.0.0/16")
	wide.EIDs = append(wide.EIDs, seven)
	s := serverWith(wide, siteOf("inside", "2001:db8:8000::/48"))
	probed := at("203.0.113.1")
	probed.Flags |= lisp.LocatorProbed
	accept(t, s, registration(1, true, eid("2001:db8::/32"), probed), begin)
	accept(t, s, registration(2, true, eid("2001:db8:4000::/34"), at("203.0.113.2")), begin)
	accept(t, s, registration(3, true, seven, at("2001:db8:ffff::7")), begin)
	rejecting := registration(4, true, eid("192.168.5.0/24"))
	rejecting.Records[0].Action = lisp.DropPolicy
	accept(t, s, rejecting, begin)
	for _, c := range []struct {
		asked lisp.EID
		want  string
		to    string // locator
		ttl   uint32
		does  lisp.Action
	}{
		{host("2001:db8:1::1"), "2001:db8::/34", "203.0.113.1", 60, 0},
		{host("2001:db8:4000::1"), "2001:db8:4000::/34", "203.0.113.2", 60, 0},
		{host("2001:db8:c000::1"), "2001:db8:c000::/34", "203.0.113.1", 60, 0},
		{host("2001:db8:8000::1"), "2001:db8:8000::/48", "", 1, lisp.NativelyForward},
		{host("2001:db8:8001::1"), "2001:db8:8001::/48", "203.0.113.1", 60, 0},
		{eid("2001:db8:4001::/48"), "2001:db8:4000::/34", "203.0.113.2", 60, 0},
		{eid("2001:db8::/32"), "2001:db8::/34", "203.0.113.1", 60, 0}, // for the first address
		{host("2001:db9::1"), "2001:db9::/32", "", 15, lisp.NativelyForward},
		{host("2a00::1"), "2a00::/16", "", 15, lisp.NativelyForward},
		{host("192.168.5.7"), "192.168.5.0/24", "", 60, lisp.DropPolicy},
		{host("192.168.6.7"), "192.168.6.0/23", "", 1, lisp.NativelyForward},
		{host("10.1.2.3"), "10.0.0.0/8", "", 15, lisp.NativelyForward},
		{lisp.HostEID(7, netip.MustParseAddr("10.1.2.3")), "10.0.0.0/8", "2001:db8:ffff::7", 60, 0},
		{lisp.HostEID(9, netip.MustParseAddr("10.1.2.3")), "10.0.0.0/8", "", 15, lisp.NativelyForward},
	} {
		r := replyTo(t, s, requestFor(c.asked), begin)
		if r.EID.Prefix != netip.MustParsePrefix(c.want) || r.EID.Instance != c.asked.Instance || r.TTL != c.ttl || r.Action != c.does || r.Authoritative {
			t.Errorf("%v: %+v, want %s", c.asked, r, c.want)
		}
		if c.to == "" && len(r.Locators) > 0 || c.to != "" && (len(r.Locators) != 1 || r.Locators[0].Addr.String() != c.to || r.Locators[0].Flags != lisp.LocatorReachable) {
			t.Errorf("%v: locators are %+v, want %s", c.asked, r.Locators, c.to)
		}
	}
	// A request for an authoritative reply goes to a router.
	q := &lisp.Request{Authoritative: true, Locators: []netip.Addr{one.Addr()}, EIDs: []lisp.EID{host("2001:db8:4000::1")}}
	if m, why := s.Answer(encapsulated(q), one, begin); why != Served || m.To.Addr().String() != "203.0.113.2" {
		t.Errorf("request for an authoritative reply: %v to %v", why, m.To)
	}
}

// A reply is true for all addresses of its prefix.
func TestWidest(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	random := func(most int) netip.Prefix {
		p, _ := netip.AddrFrom4([4]byte{10, 0, byte(rnd.IntN(4)), byte(rnd.IntN(256))}).Prefix(20 + rnd.IntN(most-19))
		return p
	}
	for round := range 60 {
		s := serverWith()
		owner := map[netip.Prefix]string{}
		var sites []Site
		for i := range 1 + rnd.IntN(6) {
			if p := random(28); owner[p] == "" {
				owner[p] = fmt.Sprint(i)
				sites = append(sites, siteOf(owner[p], p.String()))
			}
		}
		s.SetSites(sites)
		for n := range uint64(rnd.IntN(8)) {
			p := random(30)
			if of := s.siteOf(lisp.EID{Prefix: p}); of != nil {
				register(s, registration(n+1, true, lisp.EID{Prefix: p}, at(fmt.Sprintf("192.0.2.%d", n+1))).Append(nil, key, false), begin)
			}
		}
		// mappingOf is what is true for one address.
		mappingOf := func(a netip.Addr) string {
			site, mapped, to := -1, -1, ""
			for p := range owner {
				if p.Contains(a) {
					site = max(site, p.Bits())
				}
			}
			for e, m := range s.all {
				if e.Prefix.Contains(a) && e.Prefix.Bits() > mapped {
					mapped, to = e.Prefix.Bits(), m.record.Locators[0].Addr.String()
				}
			}
			if mapped >= site && mapped >= 0 {
				return to
			}
			return fmt.Sprint("none ", site >= 0)
		}
		for range 20 {
			a := random(32).Addr()
			r := replyTo(t, s, requestFor(lisp.HostEID(0, a)), begin)
			uniform := func(p netip.Prefix) bool {
				for b := p.Addr(); p.Contains(b); b = b.Next() {
					if mappingOf(b) != mappingOf(a) {
						return false
					}
				}
				return true
			}
			if p := r.EID.Prefix; !p.Contains(a) || p.Bits() >= 20 && !uniform(p) {
				t.Fatalf("round %d: the reply for %v has %v, in which there are other mappings", round, a, p)
			}
			if got := mappingOf(a); len(r.Locators) == 1 && got != r.Locators[0].Addr.String() || len(r.Locators) == 0 && !strings.HasPrefix(got, "none") {
				t.Fatalf("round %d: the reply for %v has %v, want %s", round, a, r.Locators, got)
			}
		}
	}
}

// What is registered ends with its time, or when it is withdrawn.
func TestLifetime(t *testing.T) {
	s := serverWith(siteOf("a", "2001:db8:e1::/48"))
	mapped := func(now time.Time) bool {
		s.Expire(now)
		return len(replyTo(t, s, requestFor(host("2001:db8:e1::1")), now).Locators) > 0
	}
	accept(t, s, registration(1, true, eid("2001:db8:e1::/48"), at("192.0.2.1")), begin)
	if !mapped(begin.Add(179*time.Second)) || mapped(begin.Add(180*time.Second)) {
		t.Error("a registration does not end after three minutes")
	}
	long := registration(2, true, eid("2001:db8:e1::/48"), at("192.0.2.1"))
	long.UseTTL = true
	accept(t, s, long, begin)
	if !mapped(begin.Add(59*time.Minute)) || mapped(begin.Add(time.Hour)) {
		t.Error("a registration does not end with the TTL of its record")
	}
	accept(t, s, registration(3, true, eid("2001:db8:e1::/48"), at("192.0.2.1")), begin)
	gone := registration(4, true, eid("2001:db8:e1::/48"), at("192.0.2.1"))
	gone.Records[0].TTL = 0
	accept(t, s, gone, begin)
	if mapped(begin) || s.sites["a"].prefixes != 0 || len(s.all) != 0 {
		t.Error("a registration is not withdrawn")
	}
}

// Nonces do not go back after a restart, and registrations continue. Those of another key are
// forgotten.
func TestRestore(t *testing.T) {
	s := serverWith(siteOf("a", "2001:db8:e1::/48"))
	var kept []store.Item
	b := registration(9, true, eid("2001:db8:e1::/48"), at("192.0.2.1")).Append(nil, key, false)
	a, _ := s.Admit(b, one, begin)
	for _, p := range a.Save {
		kept = append(kept, store.Item{Key: p.Key, Value: p.Value})
	}
	kept = append(kept, store.Item{Key: "lisp/a/floor", Value: []byte{1}}, store.Item{Key: "other"}, store.Item{Key: "lisp/gone/floor", Value: make([]byte, 8)})
	again := func(site Site, now time.Time) *Server {
		s := New()
		s.Sends = netip.Addr.IsValid
		s.Restore(kept, s.SetSites([]Site{site}), now)
		return s
	}
	s = again(siteOf("a", "2001:db8:e1::/48"), begin.Add(time.Minute))
	if len(s.all) != 1 || register(s, b, begin) != OldNonce || s.sites["a"].prefixes != 1 {
		t.Error("a registration can be sent again after a restart")
	}
	if fresh := s.SetSites([]Site{siteOf("a", "2001:db8:e1::/48"), siteOf("b", "2001:db8:e2::/48")}); len(fresh) != 1 || len(s.all) != 1 || register(s, b, begin) != OldNonce {
		t.Error("a site is lost by a reload that does not change it")
	}
	if s := again(siteOf("a", "2001:db8:e1::/48"), begin.Add(time.Hour)); len(s.all) != 0 || register(s, b, begin) != OldNonce {
		t.Error("a registration is restored after its end")
	}
	if s := again(siteOf("a", "2001:db8:e3::/48"), begin); len(s.all) != 0 {
		t.Error("a registration outside of the prefixes is restored")
	}
	other := siteOf("a", "2001:db8:e1::/48")
	other.Key = []byte("another")
	if s := again(other, begin); len(s.all) != 0 || len(s.sites["a"].routers) != 0 {
		t.Error("a registration of another key is restored")
	}
}

// A mapping is removed when its prefix goes to another site.
func TestSetSites(t *testing.T) {
	a := siteOf("a", "10.0.0.0/8")
	s := serverWith(a)
	accept(t, s, registration(1, true, eid("10.1.0.0/16"), at("192.0.2.1")), begin)
	accept(t, s, registration(2, true, eid("10.2.0.0/16"), at("192.0.2.1")), begin)
	if s.SetSites([]Site{a, siteOf("wider", "0.0.0.0/0")}); len(s.all) != 2 {
		t.Error("a mapping is lost because another site has a wider prefix")
	}
	if s.SetSites([]Site{a, siteOf("longer", "10.1.0.0/16")}); len(s.all) != 1 || s.sites["a"].prefixes != 1 {
		t.Errorf("%d mappings, %d of the site: one prefix belongs to another site now", len(s.all), s.sites["a"].prefixes)
	}
	if r := replyTo(t, s, requestFor(host("10.1.2.3")), begin); len(r.Locators) != 0 || r.TTL != ttlSite {
		t.Errorf("reply is %+v", r)
	}
}

// What a site registers is bounded, and a router that was forgotten does not come back with an
// old registration.
func TestLimits(t *testing.T) {
	s := serverWith(siteOf("a", "10.0.0.0/8"))
	var first []byte
	for i := range maxRouters + 5 {
		m := registration(uint64(i+1), true, eid("10.1.0.0/16"), at(fmt.Sprintf("192.0.2.%d", i+1)))
		if i == 0 {
			first = m.Append(nil, key, false)
		}
		accept(t, s, m, begin.Add(time.Duration(i)*time.Second))
	}
	if n := len(s.sites["a"].routers); n != maxRouters {
		t.Errorf("%d routers", n)
	}
	if why := register(s, first, begin); why != OldNonce {
		t.Errorf("a router that was forgotten: %v", why)
	}
	refused := 0
	for i := range maxPrefixes + 10 {
		e := lisp.EID{Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 2, byte(i >> 8), byte(i)}), 32)}
		if register(s, registration(uint64(1000+i), true, e, at("192.0.2.1")).Append(nil, key, false), begin) == TooMany {
			refused++
		}
	}
	if n := s.sites["a"].prefixes; n != maxPrefixes || refused != 11 {
		t.Errorf("%d prefixes, %d refused", n, refused)
	}
	var many []lisp.Locator
	for i := range maxLocators + 1 {
		many = append(many, at(fmt.Sprintf("192.0.2.%d", i+1)))
	}
	if why := register(s, registration(9000, true, eid("10.1.0.0/16"), many...).Append(nil, key, false), begin); why != TooMany {
		t.Errorf("%d locators: %v", len(many), why)
	}
}

// Registrations are only for the prefixes of the site whose key they have.
func TestSites(t *testing.T) {
	b := siteOf("b", "2001:db8:e2::/48")
	b.Key = []byte("another")
	old := siteOf("old", "10.0.0.0/8")
	old.AnyNonce = true
	s := serverWith(siteOf("a", "2001:db8:e1::/48"), b, old)
	both := registration(1, true, eid("2001:db8:e1::/48"), at("192.0.2.1"))
	both.Records = append(both.Records, registration(1, true, eid("2001:db8:e2::/48")).Records...)
	second := registration(1, true, eid("2001:db8:e2::/48"), at("192.0.2.1"))
	for name, c := range map[string]struct {
		m   *lisp.Registration
		why Reason
	}{
		"a prefix of another site": {second, WrongKey},
		"two sites":                {both, UnknownSite},
		"a wider prefix":           {registration(1, true, eid("2001:db8::/32")), UnknownSite},
		"another instance":         {registration(1, true, lisp.EID{Instance: 7, Prefix: eid("2001:db8:e1::/48").Prefix}), UnknownSite},
		"no record":                {&lisp.Registration{Type: lisp.TypeRegister, Algorithm: lisp.SHA1}, Malformed},
		"no prefix":                {registration(1, true, lisp.EID{}), UnknownSite},
	} {
		if why := register(s, c.m.Append(nil, key, false), begin); why != c.why {
			t.Errorf("%s: %v, want %v", name, why, c.why)
		}
	}
	for range 2 {
		if why := register(s, registration(0, false, eid("10.1.0.0/16"), at("192.0.2.1")).Append(nil, key, false), begin); why != Served {
			t.Errorf("a router of RFC 6833: %v", why)
		}
	}
}

// What a stranger sends makes the server remember nothing, and no host gets more than was sent
// in its name, beyond a limit.
func TestStrangers(t *testing.T) {
	s := serverWith(siteOf("a", "2001:db8:e1::/48"))
	var many []lisp.Locator
	for i := range 20 {
		many = append(many, at(fmt.Sprintf("2001:db8::%d", i+1)))
	}
	accept(t, s, registration(1, true, eid("2001:db8:e1::/48"), many...), begin)
	flood := func(now time.Time) (extra int) {
		for range 1000 {
			b := requestFor(host("2001:db8:e1::1"))
			if m, why := s.Answer(b, one, now); why == Served {
				extra += len(m.Bytes) - len(b)
			} else if why != TooLarge {
				t.Fatal(why)
			}
		}
		return extra
	}
	if n := flood(begin); n == 0 || n > excessBurst {
		t.Errorf("%d bytes more than were received", n)
	}
	if n := flood(begin.Add(time.Second)); n == 0 || n > excessRate {
		t.Errorf("%d bytes more than were received in a second", n)
	}
	for range 1000 { // replies that are not larger are not limited
		replyTo(t, s, requestFor(host("2001:db8:e2::1")), begin.Add(time.Second))
	}
	s.Sends = func(a netip.Addr) bool { return unicast(a) }
	probe := &lisp.Request{Probe: true, Locators: []netip.Addr{one.Addr()}, EIDs: []lisp.EID{host("10.0.0.1")}}
	solicit := &lisp.Request{Solicit: true, Locators: []netip.Addr{one.Addr()}, EIDs: []lisp.EID{host("10.0.0.1")}}
	for name, c := range map[string]struct {
		b   []byte
		why Reason
	}{
		"multicast":       {requestFor(host("10.0.0.1"), "224.0.0.1", "255.255.255.255", "ff02::1", "fe80::1", "0.0.0.0", "::"), Unreachable},
		"probe":           {encapsulated(probe), Unsupported},
		"solicit":         {encapsulated(solicit), Unsupported},
		"no EID":          {encapsulated(&lisp.Request{Locators: []netip.Addr{one.Addr()}}), Malformed},
		"LISP-SEC":        {append([]byte{0x88}, requestFor(host("10.0.0.1"))[1:]...), Unsupported},
		"not a request":   {lisp.AppendInside(nil, one, netip.MustParseAddrPort("192.0.2.9:4342"), (&lisp.Reply{}).Append(nil)), Malformed},
		"cut off":         {requestFor(host("10.0.0.1"))[:40], Malformed},
		"unencapsulated":  {probe.Append(nil), Unsupported},
		"an empty packet": {lisp.AppendEncapsulation(nil), Malformed},
	} {
		if _, why := s.Answer(c.b, one, begin); why != c.why {
			t.Errorf("%s: %v, want %v", name, why, c.why)
		}
	}
	if len(s.spaces) != 1 || len(s.all) != 1 {
		t.Errorf("%d spaces, %d mappings", len(s.spaces), len(s.all))
	}
}

// Any bytes are survived.
func FuzzServer(f *testing.F) {
	for name, b := range vectors.Read(f) {
		if strings.HasPrefix(name, "LISP-") && len(b) > 28 {
			f.Add(b[28:])
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		s := serverWith(siteOf("a", "2001:db8:e1::/48"), siteOf("b", "2001:db8:e2::/48"))
		if a, why := s.Admit(b, one, begin); why == Served {
			s.Apply(a, begin)
		}
		s.Answer(b, one, begin)
	})
}
