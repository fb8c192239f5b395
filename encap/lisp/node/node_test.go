package node

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"sixfour/encap/drop"
	"sixfour/encap/header"
	"sixfour/encap/lisp"
	"sixfour/encap/resolve"
	"sixfour/internal/vectors"
)

// network is an outer network in simulated time, with routers and map servers.
type network struct {
	t     *testing.T
	now   time.Time
	hosts map[netip.Addr]*host
	order []*host
	sent  int
	lose  func(from, to netip.AddrPort, b []byte) bool
}

// host is a router or a map server.
type host struct {
	*router
	net   *network
	addr  netip.Addr
	sites map[lisp.EID][]netip.Addr // of a map server: where it passes requests on
	key   string
	regs  []lisp.Registration // that it has received
	got   [][]byte            // packets for the interface
	drops map[drop.Reason]int
}

func newNetwork(t *testing.T) *network {
	return &network{t: t, now: time.Unix(1e9, 0), hosts: map[netip.Addr]*host{}}
}

func (n *network) add(addr string) *host {
	h := &host{net: n, addr: netip.MustParseAddr(addr), drops: map[drop.Reason]int{}}
	n.hosts[h.addr] = h
	n.order = append(n.order, h)
	return h
}

func (n *network) mapServer(addr string) *host {
	h := n.add(addr)
	h.sites, h.key = map[lisp.EID][]netip.Addr{}, "lisp-key"
	return h
}

// xtr adds a router, whose map server and map resolver is at an address.
func (n *network) xtr(addr, server string, m Router) *host {
	n.t.Helper()
	h := n.add(addr)
	if server != "" {
		m.Resolvers, m.Key = []resolve.Host{hostAt(server)}, NewKey("/key", "lisp-key", lisp.SHA256)
		if !m.Proxy {
			m.Servers = m.Resolvers
		}
	}
	r, err := m.Resolver(resolve.Site{Local: h.addr})
	if err != nil {
		n.t.Fatal(err)
	}
	h.router = r.(*router)
	return h
}

func hostAt(a string) resolve.Host { return resolve.Host{Addr: netip.MustParseAddr(a)} }

func prefixes(list ...string) (all []netip.Prefix) {
	for _, p := range list {
		all = append(all, netip.MustParsePrefix(p))
	}
	return all
}

// run lets time pass.
func (n *network) run(d time.Duration) {
	for end := n.now.Add(d); n.now.Before(end); {
		next := end
		for _, h := range n.order {
			if h.router == nil {
				continue
			}
			if again := h.step(); again.Before(next) {
				next = again
			}
		}
		if !next.After(n.now) {
			next = n.now.Add(10 * time.Millisecond)
		}
		n.now = next
	}
}

func (h *host) step() time.Time {
	for range 50 {
		send, lost, again := h.Next(h.net.now)
		h.drops[drop.Unresolved] += lost
		if len(send) == 0 {
			return again
		}
		for _, m := range send {
			if m.Raw {
				h.net.deliver(netip.AddrPortFrom(h.addr, m.From.Port()), m.To.AddrPort(), m.Bytes)
			} else {
				h.net.carry(h.addr, m.To, m.Bytes)
			}
		}
	}
	h.net.t.Fatal("a router does not stop sending")
	return time.Time{}
}

// deliver passes a datagram to the port of control messages.
func (n *network) deliver(from, to netip.AddrPort, b []byte) {
	n.sent++
	h := n.hosts[to.Addr()]
	if h == nil || to.Port() != lisp.ControlPort || n.lose != nil && n.lose(from, to, b) {
		return
	}
	if h.sites != nil {
		h.serve(from, b)
		return
	}
	if !h.Wants(b) {
		h.drops[drop.UnknownProtocol]++
		return
	}
	h.Receive(header.Outer{From: from, At: to}, b, n.now)
	if h.Refused() != drop.None {
		h.drops[h.Refused()]++
	}
	h.step()
}

// carry passes a packet to a router's data port.
func (n *network) carry(from netip.Addr, to resolve.Endpoint, pkt []byte) {
	h := n.hosts[to.Addr()]
	if h == nil || h.router == nil || to.Port != lisp.DataPort {
		return
	}
	at := resolve.EndpointOf(netip.AddrPortFrom(h.addr, lisp.DataPort))
	if why := h.From(resolve.EndpointOf(netip.AddrPortFrom(from, 50000)), at, pkt); why != drop.None {
		h.drops[why]++
		return
	}
	h.got = append(h.got, pkt)
}

// serve is what a map server and resolver does.
func (h *host) serve(from netip.AddrPort, b []byte) {
	switch t, _ := lisp.MessageType(b); t {
	case lisp.TypeRegister:
		m, err := lisp.ParseRegistration(b)
		if err != nil || m.Verify(b, []byte(h.key)) != nil {
			h.drops[drop.Unauthenticated]++
			return
		}
		h.regs = append(h.regs, *m)
		for _, e := range m.Records {
			h.sites[e.EID] = []netip.Addr{from.Addr()}
		}
		m.Type = lisp.TypeNotify
		h.net.deliver(netip.AddrPortFrom(h.addr, lisp.ControlPort), from, m.Append(nil, []byte(h.key), false))
	case lisp.TypeEncapsulated:
		packet, _ := lisp.Encapsulated(b)
		src, _, message, err := lisp.Inside(packet)
		if err != nil {
			h.net.t.Fatal(err)
		}
		q, err := lisp.ParseRequest(message)
		if err != nil {
			h.net.t.Fatal(err)
		}
		for eid, etrs := range h.sites {
			if eid.Contains(q.EIDs[0]) && len(etrs) > 0 {
				h.net.deliver(netip.AddrPortFrom(h.addr, lisp.ControlPort), netip.AddrPortFrom(etrs[0], lisp.ControlPort), b)
				return
			}
		}
		bits := 16
		if q.EIDs[0].Prefix.Addr().Is4() {
			bits = 8
		}
		p, _ := q.EIDs[0].Prefix.Addr().Prefix(bits)
		reply := &lisp.Reply{Nonce: q.Nonce, Records: []lisp.Record{{TTL: 15, EID: lisp.EID{Instance: q.EIDs[0].Instance, Prefix: p}, Action: lisp.NativelyForward}}}
		h.net.deliver(netip.AddrPortFrom(h.addr, lisp.ControlPort), netip.AddrPortFrom(q.Locators[0], src.Port()), reply.Append(nil))
	}
}

// packet returns an inner UDP packet with a source port.
func packet(src, dst string, port uint16) []byte {
	from, to := netip.AddrPortFrom(netip.MustParseAddr(src), port), netip.AddrPortFrom(netip.MustParseAddr(dst), 9)
	b := make([]byte, header.HeadersLen(from.Addr())+4)
	header.PutHeaders(b, &header.Outer{From: from, At: to, TTL: 64})
	return b
}

// say sends an inner packet from a router's interface.
func (h *host) say(src, dst string, port uint16) drop.Reason {
	pkt := packet(src, dst, port)
	to, why := h.To(pkt)
	switch {
	case why == drop.Unresolved && h.Hold(pkt, h.net.now):
		h.step()
		return drop.None
	case why == drop.None:
		h.net.carry(h.addr, to, pkt)
	}
	return why
}

// states returns what the status shows, without ages.
func (h *host) states() (list []string) {
	for _, e := range h.Entries(h.net.now) {
		list = append(list, fmt.Sprintf("%v %v %s", netip.PrefixFrom(e.Node, e.Bits), e.Link, e.State))
	}
	return list
}

func (h *host) wantStates(want ...string) {
	h.net.t.Helper()
	if got := h.states(); !slices.Equal(got, want) {
		h.net.t.Errorf("states %q, want %q", got, want)
	}
}

const server = "198.51.100.53"

// sites returns two sites with a map server.
func sites(t *testing.T) (n *network, a, b, ms *host) {
	n = newNetwork(t)
	ms = n.mapServer(server)
	a = n.xtr("192.0.2.1", server, Router{EIDs: prefixes("2001:db8:e1::/48", "10.1.0.0/16")})
	b = n.xtr("198.51.100.2", server, Router{EIDs: prefixes("2001:db8:e2::/48", "10.2.0.0/16")})
	n.run(time.Second)
	return n, a, b, ms
}

// Two sites with IPv6 and IPv4 exchange packets; the first one waits for the mapping.
func TestSites(t *testing.T) {
	n, a, b, ms := sites(t)
	if len(ms.regs) != 2 || len(ms.regs[0].Records) != 2 {
		t.Fatalf("registrations %+v", ms.regs)
	}
	for _, f := range [][2]string{{"2001:db8:e1::1", "2001:db8:e2::1"}, {"10.1.0.1", "10.2.0.1"}} {
		before := len(b.got)
		for range 3 {
			if why := a.say(f[0], f[1], 1); why != drop.None {
				t.Errorf("%s: %v", f, why)
			}
		}
		if len(b.got)-before != 3 {
			t.Errorf("%s: %d of 3 packets have arrived", f, len(b.got)-before)
		}
		if why := b.say(f[1], f[0], 1); why != drop.None || len(a.got) == 0 {
			t.Errorf("back: %v", why)
		}
	}
	a.wantStates("2001:db8:e1::/48 198.51.100.53:4342 registered", "10.1.0.0/16 198.51.100.53:4342 registered",
		"10.2.0.0/16 198.51.100.2:4341 up", "2001:db8:e2::/48 198.51.100.2:4341 up")
	for _, f := range []struct {
		src, dst string
		want     drop.Reason
	}{
		{"2001:db8:e3::1", "2001:db8:e2::1", drop.Spoof},
		{"2001:db8:e1::1", "2001:db8:e1::2", drop.Loop},
		{"2001:db8:e1::1", "ff02::1", drop.Martian},
	} {
		if why := a.say(f.src, f.dst, 1); why != f.want {
			t.Errorf("from %s to %s: %v, want %v", f.src, f.dst, why, f.want)
		}
	}
	local := resolve.EndpointOf(netip.MustParseAddrPort("192.0.2.1:4341"))
	for _, f := range []struct {
		outer, src, dst string
		want            drop.Reason
	}{
		{"203.0.113.9", "2001:db8:9::1", "2001:db8:e1::1", drop.None}, // from a proxy ITR
		{"203.0.113.9", "2001:db8:e1::7", "2001:db8:e1::1", drop.Spoof},
		{"203.0.113.9", "2001:db8:e2::1", "2001:db8:9::1", drop.NoPeer},
		{"192.0.2.1", "2001:db8:e2::1", "2001:db8:e1::1", drop.OwnSource},
		{"127.0.0.1", "2001:db8:e2::1", "2001:db8:e1::1", drop.Martian},
	} {
		from := resolve.EndpointOf(netip.AddrPortFrom(netip.MustParseAddr(f.outer), 1))
		if why := a.From(from, local, packet(f.src, f.dst, 1)); why != f.want {
			t.Errorf("%+v: %v", f, why)
		}
	}
	a.Checked = true
	from := resolve.EndpointOf(netip.MustParseAddrPort("203.0.113.9:1"))
	if why := a.From(from, local, packet("2001:db8:e2::1", "2001:db8:e1::1", 1)); why != drop.Spoof {
		t.Errorf("from another locator: %v", why)
	}
	n.run(10 * time.Minute) // a mapping that is not used is not probed for ever
	sent := n.sent
	if n.run(10 * time.Minute); n.sent-sent > 2*2*10+4 {
		t.Errorf("%d messages in ten minutes", n.sent-sent)
	}
}

// IPv6 locators, with an instance.
func TestIPv6Locators(t *testing.T) {
	n := newNetwork(t)
	n.mapServer("2001:db8:ffff::53")
	a := n.xtr("2001:db8:a::1", "2001:db8:ffff::53", Router{EIDs: prefixes("10.1.0.0/16"), Instance: 7})
	b := n.xtr("2001:db8:b::1", "2001:db8:ffff::53", Router{EIDs: prefixes("10.2.0.0/16"), Instance: 7})
	other := n.xtr("2001:db8:c::1", "2001:db8:ffff::53", Router{EIDs: prefixes("10.2.0.0/16"), Instance: 8})
	n.run(time.Second)
	if why := a.say("10.1.0.1", "10.2.0.1", 1); why != drop.None || len(b.got) != 1 || len(other.got) != 0 {
		t.Errorf("%v, %d and %d packets", why, len(b.got), len(other.got))
	}
	if f := a.Framing().Properties(); f.Overhead != 16 {
		t.Errorf("%+v", f)
	}
}

// A negative mapping with the action to forward natively: through a proxy ETR, if there is one.
func TestProxy(t *testing.T) {
	n, a, b, _ := sites(t)
	const native = "2620:0:1::1"
	if why := a.say("2001:db8:e1::1", native, 1); why != drop.None { // it waits
		t.Error(why)
	}
	n.run(time.Second)
	if why := a.say("2001:db8:e1::1", native, 1); why != drop.NoPeer || a.drops[drop.Unresolved] != 1 {
		t.Errorf("without a proxy ETR: %v, drops %v", why, a.drops)
	}
	if s := a.states(); !slices.Contains(s, "2620::/16 invalid AddrPort native") {
		t.Errorf("%q", s)
	}
	p := n.xtr("203.0.113.1", server, Router{EIDs: prefixes("2001:db8:e0::/44"), Proxy: true})
	c := n.xtr("192.0.2.3", server, Router{EIDs: prefixes("2001:db8:e3::/48"), ProxyETRs: []resolve.Host{hostAt("203.0.113.1")}})
	n.run(time.Second)
	for range 2 {
		if why := c.say("2001:db8:e3::1", native, 1); why != drop.None {
			t.Error(why)
		}
	}
	if len(p.got) != 2 {
		t.Errorf("the proxy xTR has got %d packets; drops %v", len(p.got), p.drops)
	}
	if why := p.say(native, "2001:db8:e2::1", 1); why != drop.None || len(b.got) != 1 {
		t.Errorf("to a site: %v, %d packets", why, len(b.got))
	}
	for _, f := range []struct {
		src, dst string
		want     drop.Reason
	}{{"2001:db8:e3::1", "2001:db8:e2::1", drop.Spoof}, {native, "2620:0:2::1", drop.NoPeer}} {
		if why := p.say(f.src, f.dst, 1); why != f.want {
			t.Errorf("from %s to %s: %v", f.src, f.dst, why)
		}
	}
	at := resolve.EndpointOf(netip.MustParseAddrPort("203.0.113.1:4341"))
	for _, f := range [][2]string{{native, native}, {"2001:db8:e3::1", "2001:db8:e2::1"}} { // an open relay, and a detour
		if why := p.From(p.endpoint(netip.MustParseAddr("192.0.2.3")), at, packet(f[0], f[1], 1)); why == drop.None {
			t.Errorf("%s is carried", f)
		}
	}
}

// A request that nobody answers is repeated after 1, 2, 4 and 8 seconds; then there are no more
// for a while.
func TestUnanswered(t *testing.T) {
	n, a, _, _ := sites(t)
	var times []time.Duration
	begin := n.now
	n.lose = func(_, _ netip.AddrPort, b []byte) bool {
		if t, _ := lisp.MessageType(b); t == lisp.TypeEncapsulated {
			times = append(times, n.now.Sub(begin))
			return true
		}
		return false
	}
	for range 5 {
		a.say("2001:db8:e1::1", "2001:db8:e2::1", 1)
	}
	if a.asked.held != heldPackets {
		t.Errorf("%d packets wait", a.asked.held)
	}
	n.run(20 * time.Second)
	if !slices.Equal(times, []time.Duration{0, time.Second, 3 * time.Second, 7 * time.Second}) {
		t.Errorf("requests after %v", times)
	}
	if a.drops[drop.Unresolved] != heldPackets || a.asked.held != 0 || len(a.asked.of) != 0 || len(a.asked.nonces) != 0 {
		t.Errorf("drops %v, %+v", a.drops, a.asked)
	}
	if why := a.say("2001:db8:e1::1", "2001:db8:e2::1", 1); why != drop.NoPeer || len(times) != 4 {
		t.Errorf("%v, requests %v", why, times)
	}
	n.lose = nil
	n.run(time.Minute)
	if why := a.say("2001:db8:e1::1", "2001:db8:e2::1", 1); why != drop.None || len(a.asked.of) != 0 {
		t.Errorf("later: %v", why)
	}
}

// Priorities and weights decide about locators, and probes tell which are up.
func TestLocators(t *testing.T) {
	n := newNetwork(t)
	n.mapServer(server)
	a := n.xtr("192.0.2.1", server, Router{EIDs: prefixes("2001:db8:e1::/48")})
	rlocs := []RLOC{
		{netip.MustParseAddr("198.51.100.2"), 1, 75}, {netip.MustParseAddr("198.51.100.3"), 1, 25},
		{netip.MustParseAddr("198.51.100.4"), 2, 1}, {netip.MustParseAddr("198.51.100.5"), 255, 1},
	}
	var etrs []*host
	for i, l := range rlocs {
		m := Router{EIDs: prefixes("2001:db8:e2::/48"), RLOCs: rlocs}
		s := server
		if i > 0 {
			s = ""
		}
		etrs = append(etrs, n.xtr(l.Addr.String(), s, m))
	}
	n.run(time.Second)
	share := func() (got [4]int) {
		for port := range uint16(2000) {
			if why := a.say("2001:db8:e1::1", "2001:db8:e2::1", port+1); why != drop.None {
				t.Fatal(why)
			}
		}
		for i, e := range etrs {
			got[i], e.got = len(e.got), nil
		}
		return got
	}
	got := share()
	if got[0] < 1350 || got[0] > 1650 || got[0]+got[1] != 2000 {
		t.Errorf("shares %d", got)
	}
	a.wantStates("2001:db8:e1::/48 198.51.100.53:4342 registered", "2001:db8:e2::/48 198.51.100.2:4341 up", "2001:db8:e2::/48 198.51.100.3:4341 up",
		"2001:db8:e2::/48 198.51.100.4:4341 backup", "2001:db8:e2::/48 198.51.100.5:4341 unusable")
	down := map[string]bool{"198.51.100.2": true}
	n.lose = func(_, to netip.AddrPort, _ []byte) bool { return down[to.Addr().String()] }
	live := func(d time.Duration) [4]int { // with traffic
		for end := n.now.Add(d); n.now.Before(end); n.run(20 * time.Second) {
			a.say("2001:db8:e1::1", "2001:db8:e2::1", 1)
		}
		for _, e := range etrs {
			e.got = nil
		}
		return share()
	}
	if got := live(2 * time.Minute); got != [4]int{0, 2000} {
		t.Errorf("without the first: %d; %q", got, a.states())
	}
	down["198.51.100.3"] = true
	if got := live(2 * time.Minute); got != [4]int{0, 0, 2000} {
		t.Errorf("the backup: %d", got)
	}
	down["198.51.100.4"] = true
	if got := live(2 * time.Minute); got[0]+got[1] != 2000 {
		t.Errorf("none answers probes: %d", got)
	}
	clear(down)
	if got := live(3 * time.Minute); got[0] < 1350 || got[2] != 0 {
		t.Errorf("all are back: %d; %q", got, a.states())
	}
	// A flow keeps its locator, and the limit for a packet needs no ports.
	one, _ := a.To(packet("2001:db8:e1::1", "2001:db8:e2::1", 5))
	for range 10 {
		if again, _ := a.To(packet("2001:db8:e1::1", "2001:db8:e2::1", 5)); again != one {
			t.Error("a flow has two locators")
		}
	}
}

// A site whose mapping has changed tells those that send packets to it; they ask the mapping
// system.
func TestSolicit(t *testing.T) {
	n, a, b, ms := sites(t)
	a.say("2001:db8:e1::1", "2001:db8:e2::1", 1)
	n.run(2 * time.Minute)
	other := RLOC{netip.MustParseAddr("198.51.100.3"), 1, 100}
	m := b.Router
	m.RLOCs = []RLOC{other, {b.addr, 2, 100}}
	c := n.xtr("198.51.100.3", "", m)
	r, err := m.Resolver(resolve.Site{Local: b.addr})
	if err != nil {
		t.Fatal(err)
	}
	b.router = r.(*router)
	n.run(time.Second)
	for range 10 {
		a.say("2001:db8:e1::1", "2001:db8:e2::1", 1)
		n.run(time.Second)
	}
	if len(c.got) < 5 {
		t.Errorf("%d packets use the new locator; %q", len(c.got), a.states())
	}
	// Somebody else cannot make it ask.
	q := &lisp.Request{Solicit: true, Nonce: 1, Source: lisp.HostEID(0, netip.MustParseAddr("2001:db8:e2::1")), Locators: []netip.Addr{netip.MustParseAddr("203.0.113.9")}, EIDs: []lisp.EID{lisp.HostEID(0, netip.MustParseAddr("2001:db8:e1::1"))}}
	sent := n.sent
	n.deliver(netip.MustParseAddrPort("203.0.113.9:4342"), netip.AddrPortFrom(a.addr, 4342), q.Append(nil))
	if a.drops[drop.Spoof] != 1 || n.sent != sent+1 {
		t.Errorf("drops %v, %d messages", a.drops, n.sent-sent-1)
	}
	// Nor can the source of many make it ask all the time.
	q.Locators[0] = b.addr
	n.run(time.Minute)
	sent = n.sent
	for range 100 {
		n.deliver(netip.AddrPortFrom(b.addr, 4342), netip.AddrPortFrom(a.addr, 4342), q.Append(nil))
	}
	if n.sent-sent > 100+4 {
		t.Errorf("%d messages for 100", n.sent-sent-100)
	}
	_ = ms
}

// counter is a resolve.Counters with one number, as it would be in a file.
type counter struct{ next, writes uint64 }

func (c *counter) Reserve(_ string, least, count uint64) uint64 {
	first := max(c.next, least)
	c.next, c.writes = first+count, c.writes+1
	return first
}

// After a restart, nonces go on where they were, whatever the clock does, and the counter is not
// written for each of them.
func TestNoncesKept(t *testing.T) {
	disk := new(counter)
	begin := time.Unix(1.7e9, 0)
	var last uint64
	for i, at := range []time.Time{begin, begin.Add(time.Hour), begin.Add(-time.Hour), time.Unix(0, 0), begin.Add(2 * time.Hour)} {
		n := nonces{counters: disk}
		for range 1000 {
			nonce := n.another("file", at)
			if nonce <= last {
				t.Fatalf("start %d: %d after %d", i, nonce, last)
			}
			last = nonce
			at = at.Add(time.Minute)
		}
	}
	if disk.writes != 5 {
		t.Errorf("%d writes for 5 starts", disk.writes)
	}
	n := nonces{counters: disk}
	for range 3 * nonceBlock {
		if nonce := n.another("file", begin); nonce <= last {
			t.Fatalf("%d after %d", nonce, last)
		} else {
			last = nonce
		}
	}
	if disk.writes != 8 || last >= disk.next {
		t.Errorf("%d writes, nonce %d, reserved to %d", disk.writes, last, disk.next)
	}
}

// Nonces of registrations increase, whatever the clock does, and retries slow down.
func TestRegister(t *testing.T) {
	n, a, _, ms := sites(t)
	ms.regs = nil
	n.run(10 * time.Minute)
	var nonces []uint64
	for _, m := range ms.regs {
		if m.Records[0].EID.Prefix == a.EIDs[0] {
			nonces = append(nonces, m.Nonce)
		}
	}
	if len(nonces) < 15 || len(nonces) > 25 { // 5 minutes of 20 s, 5 of 60 s
		t.Errorf("%d registrations", len(nonces))
	}
	n.now = n.now.Add(-time.Hour)
	a.servers[0].next = n.now
	ms.regs = nil
	n.run(time.Second)
	if len(ms.regs) == 0 || ms.regs[0].Nonce <= nonces[len(nonces)-1] {
		t.Error("the nonce goes back with the clock")
	}
	ms.key, ms.drops = "another", map[drop.Reason]int{}
	n.run(10 * time.Minute)
	if got := ms.drops[drop.Unauthenticated]; got < 10 || got > 20 {
		t.Errorf("%d registrations in ten minutes without answers", got)
	}
	if s := a.states()[0]; s != "2001:db8:e1::/48 198.51.100.53:4342 unregistered" {
		t.Error(s)
	}
	m := &lisp.Registration{Type: lisp.TypeNotify, Nonce: a.servers[0].nonce, Algorithm: lisp.SHA256, Records: a.records(netip.Addr{})}
	n.deliver(netip.AddrPortFrom(ms.addr, 4342), netip.AddrPortFrom(a.addr, 4342), m.Append(nil, []byte("another"), false))
	if s := a.states()[0]; s != "2001:db8:e1::/48 198.51.100.53:4342 wrong-key" || a.drops[drop.Unauthenticated] != 1 {
		t.Error(s)
	}
	m.Nonce--
	n.deliver(netip.AddrPortFrom(ms.addr, 4342), netip.AddrPortFrom(a.addr, 4342), m.Append(nil, []byte("lisp-key"), false))
	if a.drops[drop.Spoof] != 1 {
		t.Errorf("an old notification: drops %v", a.drops)
	}
}

// Replies that nobody has asked for, or about something else, change nothing.
func TestForgedReplies(t *testing.T) {
	n, a, _, _ := sites(t)
	n.lose = func(_, to netip.AddrPort, _ []byte) bool { return to.Addr() != a.addr }
	a.say("2001:db8:e1::1", "2001:db8:e2::1", 1)
	nonce := a.asked.of[netip.MustParseAddr("2001:db8:e2::1")].nonce
	attacker := []lisp.Locator{{Priority: 1, Weight: 1, Flags: lisp.LocatorReachable, Addr: netip.MustParseAddr("203.0.113.9")}}
	record := func(p string, l []lisp.Locator) lisp.Record {
		return lisp.Record{TTL: 60, EID: lisp.EID{Prefix: netip.MustParsePrefix(p)}, Locators: l}
	}
	for name, p := range map[string]*lisp.Reply{
		"another nonce":    {Nonce: nonce + 1, Records: []lisp.Record{record("2001:db8:e2::/48", attacker)}},
		"another prefix":   {Nonce: nonce, Records: []lisp.Record{record("2001:db8:e3::/48", attacker)}},
		"everything":       {Nonce: nonce, Records: []lisp.Record{record("::/0", attacker)}},
		"no record":        {Nonce: nonce},
		"another instance": {Nonce: nonce, Records: []lisp.Record{{TTL: 60, EID: lisp.EID{Instance: 1, Prefix: netip.MustParsePrefix("2001:db8:e2::/48")}, Locators: attacker}}},
		"a probe":          {Probe: true, Nonce: nonce, Records: []lisp.Record{record("2001:db8:e2::/48", attacker)}},
	} {
		before := a.drops[drop.Spoof]
		n.deliver(netip.MustParseAddrPort("203.0.113.9:4342"), netip.AddrPortFrom(a.addr, 4342), p.Append(nil))
		if a.drops[drop.Spoof] != before+1 || len(a.cache.all) != 0 {
			t.Errorf("%s: drops %v, %q", name, a.drops, a.states())
		}
	}
	// The right one may not speak of other prefixes, nor lead to this router or into the tunnel.
	bad := []lisp.Locator{{Priority: 1, Weight: 1, Flags: 1, Addr: a.addr}, {Priority: 1, Weight: 1, Flags: 1, Addr: netip.MustParseAddr("10.1.0.1")},
		{Priority: 1, Weight: 1, Flags: 1, Addr: netip.MustParseAddr("127.0.0.1")}, {Priority: 1, Weight: 1, Flags: 1, Addr: netip.MustParseAddr("2001:db8::1")}}
	p := &lisp.Reply{Nonce: nonce, Records: []lisp.Record{record("2001:db8:e2::/48", bad), record("2001:db8:e5::/48", attacker)}}
	n.deliver(netip.MustParseAddrPort("203.0.113.9:4342"), netip.AddrPortFrom(a.addr, 4342), p.Append(nil))
	if why := a.say("2001:db8:e1::1", "2001:db8:e2::1", 1); why != drop.NoPeer || len(a.cache.all) != 1 {
		t.Errorf("%v, %q", why, a.states())
	}
}

// What anybody can send makes no state, and few messages.
func TestFlood(t *testing.T) {
	n, a, _, _ := sites(t)
	all := vectors.Read(t)
	random := rand.New(rand.NewPCG(1, 2))
	var seeds [][]byte
	for name, b := range all {
		if len(name) > 5 && name[:5] == "LISP-" && len(b) > 28 {
			seeds = append(seeds, b[28:])
		}
	}
	slices.SortFunc(seeds, slices.Compare)
	sent := n.sent
	for i := range 50000 {
		b := slices.Clone(seeds[i%len(seeds)])
		for range random.IntN(3) {
			b[random.IntN(len(b))] = byte(random.Uint32())
		}
		b = b[:random.IntN(len(b))+1]
		var from [4]byte
		for j := range from {
			from[j] = byte(random.Uint32())
		}
		if a.Wants(b) {
			a.Receive(header.Outer{From: netip.AddrPortFrom(netip.AddrFrom4(from), 4342), At: netip.AddrPortFrom(a.addr, 4342)}, b, n.now)
		}
	}
	a.step()
	if len(a.cache.all) != 0 || len(a.asked.of) != 0 || len(a.rlocs) != 0 || n.sent-sent > 2*answersEach {
		t.Errorf("%d mappings, %d requests, %d messages", len(a.cache.all), len(a.asked.of), n.sent-sent)
	}
	// Hosts of the site can ask for many EIDs.
	n.lose = func(_, _ netip.AddrPort, _ []byte) bool { return true }
	sent = n.sent
	for i := range 5000 {
		a.say("2001:db8:e1::1", fmt.Sprintf("2001:db8:e2::%x", i), 1)
	}
	if len(a.asked.of) > maxRequests || a.asked.held > heldTotal || n.sent-sent > requestsEach {
		t.Errorf("%d requests, %d packets wait, %d messages", len(a.asked.of), a.asked.held, n.sent-sent)
	}
	n.run(5 * time.Minute)
	if len(a.asked.of) != 0 || a.asked.held != 0 || len(a.cache.all) > maxMappings {
		t.Errorf("later: %d requests, %d packets wait, %d mappings", len(a.asked.of), a.asked.held, len(a.cache.all))
	}
}

// The map cache is bounded, and keeps what is used.
func TestCacheBounded(t *testing.T) {
	c := newCache()
	now := time.Unix(1e9, 0)
	for i := range uint32(maxMappings + 500) {
		a := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
		m := &mapping{prefix: netip.PrefixFrom(a, 32), usedAt: now.Add(time.Duration(i) * time.Second), until: now.Add(time.Hour)}
		c.put(m)
	}
	if len(c.all) != maxMappings || c.table.Load().Size() != maxMappings {
		t.Errorf("%d mappings, %d in the table", len(c.all), c.table.Load().Size())
	}
	if c.sweep(now.Add(2 * time.Hour)); len(c.all) != 0 || c.table.Load().Size() != 0 {
		t.Errorf("%d mappings have not expired", len(c.all))
	}
}

// The cache finds the mapping with the longest prefix, whatever was found before.
func TestLongestPrefix(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	c := newCache()
	now := time.Unix(1e9, 0)
	addr := func() netip.Addr {
		if r.IntN(2) == 0 {
			return netip.AddrFrom4([4]byte{10, byte(r.IntN(2)), byte(r.IntN(2)), byte(r.IntN(4))})
		}
		return netip.AddrFrom16([16]byte{0x20, 1, byte(r.IntN(2)), byte(r.IntN(2)), 15: byte(r.IntN(4))})
	}
	for range 20000 {
		a := addr()
		switch r.IntN(4) {
		case 0:
			p, _ := a.Prefix(8 + r.IntN(a.BitLen()-7))
			c.put(&mapping{prefix: p, until: now.Add(time.Hour), answered: r.IntN(2) == 0})
		case 1:
			for _, m := range c.all {
				c.remove(m)
				break
			}
		default:
			pkt := packet(a.String(), a.String(), 1)
			_, dst := ends(pkt)
			if got, want := c.route(dst), c.find(a); got != want {
				t.Fatalf("%v: %+v, want %+v", a, got, want)
			}
		}
	}
	for p, m := range c.all {
		if (c.silent[p] == m) == m.answered {
			t.Fatalf("%v: answered is %v", p, m.answered)
		}
	}
}

// The captured request is answered as another implementation has answered it.
func TestVectors(t *testing.T) {
	v := vectors.Read(t)
	n := newNetwork(t)
	b := n.xtr("198.51.100.2", "", Router{EIDs: prefixes("2001:db8:e2::/48")})
	b.step()
	var got []byte
	var to netip.AddrPort
	n.lose = func(_, at netip.AddrPort, m []byte) bool {
		if at.Addr() != b.addr {
			got, to = m, at
		}
		return false
	}
	n.hosts[netip.MustParseAddr("192.0.2.1")] = &host{net: n, sites: map[lisp.EID][]netip.Addr{}, drops: map[drop.Reason]int{}}
	n.deliver(netip.MustParseAddrPort("198.51.100.53:4342"), netip.AddrPortFrom(b.addr, 4342), v["LISP-11"][28:])
	want, err := lisp.ParseReply(v["LISP-12"][28:])
	if err != nil {
		t.Fatal(err)
	}
	want.Records[0].TTL, want.Records[0].Locators[0].MulticastPriority = ttlMinutes, unusable
	if string(got) != string(want.Append(nil)) || to != netip.MustParseAddrPort("192.0.2.1:4342") {
		t.Errorf("to %v: %x, want %x; drops %v", to, got, want.Append(nil), b.drops)
	}
	// A probe is answered to the sender only.
	q := &lisp.Request{Probe: true, Nonce: 5, Locators: []netip.Addr{netip.MustParseAddr("192.0.2.1")}, EIDs: []lisp.EID{{Prefix: netip.MustParsePrefix("2001:db8:e2::/48")}}}
	got = nil
	n.deliver(netip.MustParseAddrPort("203.0.113.9:4342"), netip.AddrPortFrom(b.addr, 4342), q.Append(nil))
	if got != nil || b.drops[drop.Martian] != 1 {
		t.Errorf("%x, drops %v", got, b.drops)
	}
	n.deliver(netip.MustParseAddrPort("192.0.2.1:4342"), netip.AddrPortFrom(b.addr, 4342), q.Append(nil))
	p, err := lisp.ParseReply(got)
	if err != nil || !p.Probe || p.Nonce != 5 || p.Records[0].Locators[0].Flags != lisp.LocatorLocal|lisp.LocatorReachable|lisp.LocatorProbed {
		t.Errorf("%+v, %v", p, err)
	}
	// Without a need for it, a request of another site is refused.
	n.deliver(netip.MustParseAddrPort("198.51.100.53:4342"), netip.AddrPortFrom(b.addr, 4342), v["LISP-5"][28:len(v["LISP-5"])-1])
	if b.drops[drop.LyingLength] != 1 {
		t.Errorf("cut off: %v", b.drops)
	}
}

func TestSite(t *testing.T) {
	for name, f := range map[string]struct {
		m     Router
		local string
	}{
		"EIDs contain the locator": {Router{EIDs: prefixes("192.0.2.0/24")}, "192.0.2.1"},
		"loopback":                 {Router{EIDs: prefixes("2001:db8:e1::/48")}, "127.0.0.1"},
		"link-local":               {Router{EIDs: prefixes("2001:db8:e1::/48")}, "fe80::1"},
	} {
		if _, err := f.m.Resolver(resolve.Site{Local: netip.MustParseAddr(f.local)}); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestNoAllocs(t *testing.T) {
	_, a, b, _ := sites(t)
	a.say("2001:db8:e1::1", "2001:db8:e2::1", 1)
	out, in := packet("2001:db8:e1::1", "2001:db8:e2::1", 1), packet("2001:db8:e2::1", "2001:db8:e1::1", 1)
	from, at := a.endpoint(b.addr), a.endpoint(a.addr)
	a.From(from, at, in)
	for name, f := range map[string]func(){"to": func() { a.To(out) }, "from": func() { a.From(from, at, in) }} {
		if n := testing.AllocsPerRun(100, f); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

func BenchmarkTo(b *testing.B) {
	r := newRouter(Router{EIDs: prefixes("2001:db8:e1::/48")}, netip.MustParseAddr("192.0.2.1"))
	for i := range 10000 {
		p := netip.MustParsePrefix(fmt.Sprintf("2001:db9:%x::/48", i))
		r.install(&lisp.Record{TTL: 60, EID: lisp.EID{Prefix: p}, Locators: []lisp.Locator{{Priority: 1, Weight: 1, Flags: 1, Addr: netip.MustParseAddr("198.51.100.2")}}}, netip.Addr{}, time.Now())
	}
	pkt := packet("2001:db8:e1::1", "2001:db9:77::1", 1)
	for b.Loop() {
		r.To(pkt)
	}
}
