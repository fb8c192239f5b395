package mechanism_test

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"sixfour/encap"
	"sixfour/encap/drop"
	"sixfour/encap/header"
	"sixfour/encap/resolve"
	"sixfour/encap/source"
	"sixfour/internal/config/mechanism"
	"sixfour/internal/configfile"
)

// The addresses of the nodes that are tested, and of the server, router or relay that those which
// need one have.
const (
	local       = "198.51.100.9"
	second      = "198.51.100.10"
	other       = "198.51.100.120"
	otherSecond = "198.51.100.121"
	local6      = "2001:db8:ffff::1"
	edgeAt      = "2001:db8:12:3400:0:c000:212:34"
	ruleMAP     = `rules = [{ ipv6 = "2001:db8::/40", ipv4 = "192.0.2.0/24", ea_bits = 16 }]`
)

// role is one end of a mechanism, and what strangers send to it.
type role struct {
	mode, name string
	keys       string
	local      string
	// ratio is the most that is sent for a packet of a stranger, in bytes for each of its
	// bytes, with all headers.
	ratio float64
	// asking is the most that is sent to find destinations that do not answer, in bytes for each
	// byte of packets to them; 0: 1. A Map-Request has up to three times the size of a packet, is
	// repeated, and goes to the map resolver.
	asking float64
	// trusting says that the mechanism believes whoever is its server or router by the outer
	// address alone, and so has to be used inside a site.
	trusting bool
	// keeps says that what it knows of a neighbour stays until its place is needed.
	keeps bool
	// deaf says that it accepts no packets.
	deaf bool
	// asks is the role of the node by which it gets an address.
	asks string
	// packets returns a packet such as nodes of the mechanism send: its outer source, and what
	// follows the headers of the framing. From is its outer source if nothing else is needed, and
	// me is the node's inner address, if it has learnt one.
	packets func(r *rand.Rand, from netip.AddrPort, me header.Word6) (netip.AddrPort, []byte)
	// toControl says which of them go to the port of control messages; nil: none.
	toControl func(payload []byte) bool
}

var roles = []role{
	{mode: "6to4", name: "router", keys: "relay = '" + other + "'\n", local: local, packets: packets6to4},
	{mode: "6to4", name: "relay", keys: "role = 'relay'\nclients = ['0.0.0.0/0']\n", local: local, packets: packets6to4},
	{mode: "6to4", name: "return", keys: "role = 'return'\nsources = ['2001:db8::/32']\n", local: local, deaf: true, packets: packets6to4},
	{mode: "6to4", name: "pmt", keys: "role = 'pmt'\nprovider_prefix = '2001:db8::/32'\nv4_common = '100.64.0.0/10'\ncustomers = ['100.64.0.0/10']\n", local: local, packets: packetsPMT},
	{mode: "6rd", name: "br", keys: "role = 'br'\nprefix = '2001:db8::/32'\n", local: local, packets: packets6rd},
	{mode: "6rd", name: "ce", keys: "prefix = '2001:db8::/32'\nborder_relay = '" + other + "'\n", local: local, packets: packets6rd},
	{mode: "isatap", name: "host", keys: "routers = ['" + other + "']\n", local: local, ratio: 1, trusting: true, packets: packetsISATAP},
	{mode: "isatap", name: "router", keys: "router = true\nprefix = ['2001:db8:5efe:1::/64']\n", local: local, ratio: 1.7, trusting: true, packets: packetsISATAP},
	{mode: "v4compat", local: local, packets: packetsCompatible},
	{mode: "6over4", local: local, ratio: 1.1, trusting: true, keeps: true, packets: packets6over4},
	{mode: "teredo", name: "client", keys: "role = 'client'\nserver = '" + other + "'\n", local: local, ratio: 1.5, asks: "server", packets: packetsTeredo},
	{mode: "teredo", name: "server", keys: "role = 'server'\nbind = ['" + local + "', '" + second + "']\n", ratio: 1.74, packets: packetsTeredo},
	{mode: "teredo", name: "relay", keys: "role = 'relay'\nprefix = ['2001:db8:ff::/64']\n", local: local, ratio: 1, deaf: true, packets: packetsTeredo},
	{mode: "6a44", name: "client", keys: "role = 'client'\nrelay = '" + other + "'\n", local: local, ratio: 1, asks: "relay", packets: packets6a44},
	{mode: "6a44", name: "relay", keys: "role = 'relay'\nprefix = '2001:db8:44::/48'\n", local: local, ratio: 1, packets: packets6a44},
	{mode: "6bed4", name: "peer", keys: "role = 'peer'\nrouter = '" + other + "'\nport = 40000\n", local: local, ratio: 1, asks: "router", packets: packets6bed4},
	{mode: "6bed4", name: "router", keys: "role = 'router'\nprefix = '2001:db8:b:b::/64'\n", local: local, ratio: 1.53, packets: packets6bed4},
	{mode: "lisp", name: "xtr", keys: "role = 'xtr'\neid = ['2001:db8:e1::/48', '10.1.0.0/16']\nmap_resolver = '" + other + "'\n", local: local, ratio: 1.2, asking: 9, packets: packetsLISP, toControl: isLISPControl},
	{mode: "lisp", name: "pxtr", keys: "role = 'pxtr'\neid = ['2001:db8:e0::/44', '10.0.0.0/8']\nmap_resolver = '" + other + "'\n", local: local, asking: 9, packets: packetsLISP, toControl: isLISPControl},
	{mode: "map_e", name: "ce", keys: "role = 'ce'\nprefix = '2001:db8:12:3400::/56'\nborder_relay = '" + local6 + "'\n" + ruleMAP + "\n", packets: packetsMAP(edgeAt)},
	{mode: "map_e", name: "br", keys: "role = 'br'\nlocal = '" + local6 + "'\n" + ruleMAP + "\n", packets: packetsMAP(local6)},
	{mode: "lw4o6", name: "b4", keys: "role = 'b4'\nlocal = '2001:db8:a::1'\nborder_relay = '" + local6 + "'\nbindings = [{ ipv4 = '192.0.2.1', psid_len = 10, psid = 16 }]\n", packets: packetsMAP("2001:db8:a::1")},
	{mode: "lw4o6", name: "aftr", keys: "role = 'aftr'\nlocal = '" + local6 + "'\nbindings = [{ ipv4 = '192.0.2.1', psid_len = 10, psid = 16, ipv6 = '2001:db8:a::1' }]\n", packets: packetsMAP(local6)},
}

// node is a node without sockets.
type node struct {
	role
	kind     encap.Kind
	stack    *encap.Stack
	resolver resolve.Resolver
	agent    resolve.Agent // nil: it sends nothing
	local    netip.Addr
	now      time.Time
	accepted int               // packets that arrived and were not dropped
	sent     []resolve.Message // for the last packet that arrived
	server   *node             // nil: it needs none
}

func newNode(t *testing.T, r *role) *node {
	t.Helper()
	return newNodeAt(t, r, r.local)
}

func newNodeAt(t *testing.T, r *role, local string) *node {
	t.Helper()
	text := fmt.Sprintf("[[tunnel]]\nname = 'six0'\nmode = '%s'\n", r.mode)
	if local != "" {
		text += "local = '" + local + "'\n"
	}
	c, err := configfile.Parse("file", []byte(text+r.keys))
	if err != nil {
		t.Fatal(err)
	}
	tunnel := &c.Tunnels[0]
	m := tunnel.Layers[0].Mechanism
	n := &node{role: *r, kind: tunnel.Kind(0), local: tunnel.Peers[0].Paths[0].Local, now: time.Unix(1e9, 0)}
	if !n.local.IsValid() {
		t.Fatalf("no local address: %+v", tunnel.Peers[0].Paths[0])
	}
	site := resolve.Site{Local: n.local, Own: tunnel.Address}
	if r.asks != "" {
		defer n.ask(t)
	}
	for range m.Hosts() {
		site.Hosts = append(site.Hosts, nil)
	}
	if n.resolver, err = m.Resolver(site); err != nil {
		t.Fatal(err)
	}
	n.agent, _ = n.resolver.(resolve.Agent)
	n.stack, err = encap.New([]encap.Layer{{Kind: n.kind, Local: n.local, Resolver: n.resolver}}, 1500, encap.DefaultOptions, source.New(nil, nil, false).For(n.resolver), encap.NewRecord())
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// ask lets the node get an address from the server, relay or router at the address other.
func (n *node) ask(t *testing.T) {
	t.Helper()
	i := slices.IndexFunc(roles, func(r role) bool { return r.mode == n.mode && r.name == n.asks })
	at, keys := other, roles[i].keys
	if roles[i].local == "" { // the keys have it
		at, keys = "", strings.NewReplacer(local, other, second, otherSecond).Replace(keys)
	}
	n.server = newNodeAt(t, &role{mode: n.mode, keys: keys}, at)
	for range 100 {
		n.now = n.now.Add(100 * time.Millisecond)
		n.send()
	}
	if n.me() == (header.Word6{}) {
		t.Fatalf("no address: %+v", n.agent.Entries(n.now))
	}
}

// send sends what the node has to send now, and returns its size. What is for the node's server is
// answered.
func (n *node) send() int {
	list := n.next()
	for _, m := range list {
		if n.server == nil || !m.Raw || m.To.Addr() != netip.MustParseAddr(other) && m.To.Addr() != netip.MustParseAddr(otherSecond) {
			continue
		}
		n.server.now = n.now
		n.server.arrive(n.server.outer(netip.AddrPortFrom(n.local, n.port()), m.To.Addr(), m.Bytes))
		for _, answer := range n.server.sent {
			from := n.server.local
			if a := answer.From.Addr(); a.IsValid() {
				from = a
			}
			if answer.To.Addr() == n.local {
				n.arrive(n.outer(netip.AddrPortFrom(from, n.server.port()), n.local, answer.Bytes))
			}
		}
	}
	return n.size(list)
}

// port returns the node's port; 0: there are none.
func (n *node) port() uint16 { return n.kind.Properties().Ports.Local }

// me returns the address that the node has learnt; zero: none.
func (n *node) me() (me header.Word6) {
	if n.agent != nil {
		if l := n.agent.Learnt(); len(l.Addresses) > 0 {
			me, _ = header.Word6Of(l.Addresses[0].Prefix.Addr())
		}
	}
	return me
}

// outer returns the packet with a payload that reaches the node at one of its addresses.
func (n *node) outer(from netip.AddrPort, at netip.Addr, payload []byte) []byte {
	if p := n.port(); p != 0 {
		if n.toControl != nil && n.toControl(payload) {
			p = n.kind.Properties().Ports.Control
		}
		udp := binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, from.Port()), p)
		udp = binary.BigEndian.AppendUint16(udp, uint16(header.UDPLen+len(payload)))
		payload = append(append(udp, 0, 0), payload...)
	}
	if n.kind.Over() == 6 {
		return ip6(from.Addr(), at, n.kind.Protocol(), payload)
	}
	return ip4(from.Addr(), at, n.kind.Protocol(), 0, 0, payload)
}

// arrive does what the datapath does with a packet, and returns the size of what is sent for it.
func (n *node) arrive(pkt []byte) (sent int) {
	inner, why := n.stack.Decapsulate(pkt)
	if why == drop.None {
		n.accepted++
	}
	if n.agent == nil || why != drop.None && (why != drop.UnknownProtocol || inner == nil) || !n.agent.Wants(inner) {
		return 0
	}
	n.agent.Receive(n.stack.Outer(pkt), inner, n.now)
	n.sent = n.next()
	return n.size(n.sent)
}

// leave does what the datapath does with a packet from the interface.
func (n *node) leave(inner []byte) {
	if _, why := n.resolver.To(inner); why == drop.Unresolved && n.agent != nil {
		n.agent.Hold(inner, n.now)
	}
}

// next returns what the node has to send now.
func (n *node) next() (all []resolve.Message) {
	if n.agent == nil {
		return nil
	}
	for range 100 {
		list, _, _ := n.agent.Next(n.now)
		if len(list) == 0 {
			return all
		}
		all = append(all, list...)
	}
	panic(n.mode + " does not stop sending")
}

// size returns the size of messages with all headers.
func (n *node) size(list []resolve.Message) (size int) {
	for _, m := range list {
		size += len(m.Bytes) + header.IPv4Len
		if n.kind.Over() == 6 {
			size += header.IPv6Len - header.IPv4Len
		}
		if n.port() != 0 {
			size += header.UDPLen
		}
	}
	return size
}

func (n *node) entries() int {
	if n.agent == nil {
		return 0
	}
	return len(n.agent.Entries(n.now))
}

// Every automatic mode is in the table.
func TestAllModes(t *testing.T) {
	for _, m := range mechanism.Rows {
		if !slices.ContainsFunc(roles, func(r role) bool { return r.mode == m.Mode }) {
			t.Errorf("mode %q is not tested: add its roles", m.Mode)
		}
	}
}

const (
	floodSize  = 6000 // more than any table has room for
	floodPause = 100 * time.Microsecond
	mostMemory = 1 << 20
	// mostEntries bounds what a node knows of others, beside itself.
	mostEntries = 1<<12 + 1
	// mostUnasked bounds what a node sends in a second besides answers, such as corrections and
	// its own questions, in bytes.
	mostUnasked = 16 << 10
)

// A flood of packets of strangers does not make a node send more than it received, use more and
// more memory, or take an address or a route from anyone. What it has learnt of them ages.
func TestFlood(t *testing.T) {
	for i := range roles {
		r := &roles[i]
		t.Run(r.mode+" "+r.name, func(t *testing.T) {
			n := newNode(t, r)
			random := rand.New(rand.NewPCG(uint64(i), 1))
			n.send()
			quiet := n.entries()
			before, learnt := memory(), n.me()
			n.accepted = 0
			in, out, unasked, start := 0, 0, 0, n.now
			for range floodSize {
				n.now = n.now.Add(floodPause)
				unasked += n.send()
				pkt := n.hostile(random)
				size := len(pkt)
				sent := n.arrive(pkt)
				if float64(sent) > r.ratio*float64(size)+0.5 {
					t.Fatalf("%d bytes are sent for %x, which has %d", sent, pkt, size)
				}
				in, out = in+size, out+sent
			}
			if most := mostUnasked * (1 + int(n.now.Sub(start)/time.Second)); unasked > most {
				t.Errorf("%d bytes are sent besides answers; not more than %d may be", unasked, most)
			}
			if n.accepted == 0 && !r.deaf || out == 0 && r.ratio > 1 || n.accepted > 0 && r.deaf {
				t.Errorf("%d packets are accepted, %d bytes sent: this tests nothing", n.accepted, out)
			}
			if used := memory() - before; used > mostMemory {
				t.Errorf("%d bytes of memory are used", used)
			}
			if e := n.entries(); e > mostEntries {
				t.Errorf("%d nodes are known", e)
			}
			if me := n.me(); me != learnt && !r.trusting {
				t.Errorf("the address was %v, and is %v", learnt.Addr(), me.Addr())
			}
			for range 300 {
				n.now = n.now.Add(time.Minute)
				n.send()
			}
			if e := n.entries(); e > quiet && !r.keeps {
				t.Errorf("%d nodes are known after five hours, %d before the flood", e, quiet)
			}
			runtime.KeepAlive(n)
		})
	}
}

// A host behind the interface that sends to any number of destinations does not make a node use
// more and more memory either, or send much more than it got. What it waits for ages.
func TestScan(t *testing.T) {
	for i := range roles {
		r := &roles[i]
		t.Run(r.mode+" "+r.name, func(t *testing.T) {
			n := newNode(t, r)
			random := rand.New(rand.NewPCG(uint64(i), 2))
			n.send()
			quiet := n.entries()
			before, in, out := memory(), 0, 0
			for range floodSize {
				n.now = n.now.Add(floodPause)
				_, inner := n.packets(random, n.stranger(random), n.me())
				if _, why := header.Parse(inner, header.Version(inner)); why == drop.None {
					if header.Version(inner) == 6 { // back to where it came from
						inner = slices.Concat(inner[:8], inner[24:40], inner[8:24], inner[40:])
					} else {
						inner = slices.Concat(inner[:12], inner[16:20], inner[12:16], inner[20:])
					}
					n.leave(inner)
					in += len(inner)
				}
				out += n.send()
			}
			if used := memory() - before; used > mostMemory {
				t.Errorf("%d bytes of memory are used", used)
			}
			if e := n.entries(); e > mostEntries {
				t.Errorf("%d nodes are known", e)
			}
			for range 300 {
				n.now = n.now.Add(time.Second)
				out += n.send()
			}
			if float64(out) > max(1, r.asking)*float64(in) {
				t.Errorf("%d bytes are sent to find destinations, for packets of %d", out, in)
			}
			for range 300 {
				n.now = n.now.Add(time.Minute)
				n.send()
			}
			if e := n.entries(); e > quiet && !r.keeps {
				t.Errorf("%d nodes are known after five hours, %d before", e, quiet)
			}
			runtime.KeepAlive(n)
		})
	}
}

// memory returns how many bytes of the heap are in use.
func memory() int {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}

// FuzzArrive: no packet of a stranger, and none from the interface, causes a panic or an answer
// that is too large.
func FuzzArrive(f *testing.F) {
	r := rand.New(rand.NewPCG(1, 4))
	for i := range roles {
		from := netip.AddrPortFrom(netip.AddrFrom4([4]byte{9, byte(i), 2, 3}), 4000)
		for range 4 {
			from, b := roles[i].packets(r, from, header.Word6{})
			f.Add(uint8(i), from.Addr().AsSlice(), from.Port(), b)
		}
	}
	f.Fuzz(func(t *testing.T, i uint8, a []byte, port uint16, b []byte) {
		n := newNode(t, &roles[int(i)%len(roles)])
		from, ok := netip.AddrFromSlice(a)
		if !ok || from.Is4() != (n.kind.Over() == 4) || len(b) > 2000 {
			return
		}
		n.send()
		pkt := n.outer(netip.AddrPortFrom(from, port), n.local, b)
		size := len(pkt)
		if sent := n.arrive(pkt); float64(sent) > n.ratio*float64(size)+0.5 {
			t.Errorf("%d bytes are sent for %x", sent, pkt)
		}
		if _, why := header.Parse(b, header.Version(b)); why == drop.None {
			n.leave(b)
		}
		n.now = n.now.Add(time.Second)
		n.send()
	})
}
