package encap_test

import (
	"bytes"
	"encoding/binary"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sixfour/encap"
	"sixfour/encap/drop"
	"sixfour/encap/fragment"
	"sixfour/encap/header"
	"sixfour/encap/icmp"
	"sixfour/encap/resolve"
	"sixfour/encap/source"
	"sixfour/internal/vectors"
)

// hostilePackets is how many packets TestHostile makes: few in normal runs, a hundred
// million with "go test ./encap -run TestHostile -hostile 100000000 -timeout 0".
var hostilePackets = flag.Int("hostile", 200_000, "packets that TestHostile makes")

// The host of the hostile tests: its addresses and the subnets on its other links. No
// accepted packet may have one of them as source.
var (
	hostileOwn = []netip.Prefix{netip.MustParsePrefix("192.168.7.1/24"), netip.MustParsePrefix("2001:db8:aaaa::1/64")}
	hostileNet = source.NewHostNets([]source.HostAddress{
		{Addr: hostileOwn[0].Addr(), Subnet: hostileOwn[0].Masked(), Link: 1}, {Addr: hostileOwn[1].Addr(), Subnet: hostileOwn[1].Masked(), Link: 1}})
)

// target is a stack that receives packets, with the state that it keeps between them.
type target struct {
	name    string
	in      *encap.Stack
	from    netip.Addr // outer addresses from which packets are accepted
	to      netip.Addr
	carries byte // protocol number of the outer packets
	agent   resolve.Agent
	whole   *fragment.Reassembler
	good    [][]byte // valid packets, from which others are made
}

// couldGet reports whether a packet has the outermost header of the target.
func (g *target) couldGet(b []byte) bool {
	if g.to.Is4() {
		return len(b) >= header.IPv4Len && b[0]>>4 == 4 && b[9] == g.carries
	}
	return len(b) >= header.IPv6Len && b[0]>>4 == 6 && (b[6] == g.carries || header.IsExtension(b[6]))
}

// newTargets returns all kinds of stacks and all mechanisms.
func newTargets(t testing.TB) (list []*target) {
	at := new(atomic.Pointer[source.Interface])
	at.Store(source.NewInterface(hostileNet, 2))
	add := func(name string, layers []encap.Layer, from, to netip.Addr) *target {
		var ends []netip.Addr
		var r resolve.Resolver
		for _, l := range layers {
			ends = append(ends, l.Local)
			if l.Resolver != nil {
				r = l.Resolver
			}
		}
		s, err := encap.New(layers, 1<<16, encap.DefaultOptions, source.New(nil, ends, false).At(at, nil).For(r), encap.NewRecord())
		if err != nil {
			t.Fatal(err)
		}
		g := &target{name: name, in: s, from: from, to: to, carries: layers[len(layers)-1].Kind.Protocol(), whole: fragment.NewReassembler(fragment.Limits{}, nil)}
		g.agent, _ = r.(resolve.Agent)
		list = append(list, g)
		return g
	}
	_, _, all := fuzzed(t)
	inner := [][]byte{
		header4("10.0.0.1", "10.0.0.2", header.UDP, make([]byte, 40)),
		header4("192.168.7.9", "10.0.0.2", header.TCP, tcp(syn, mss(1460))),
		header6("2001:db8:9::1", "2001:db8:9::2", header.TCP, tcp(syn, mss(1440))),
		header6("2001:db8:aaaa::7", "2001:db8:9::2", header.UDP, make([]byte, 9)),
		header6("2001:db8:9::1", "2001:db8:9::2", header.FragmentHdr, append([]byte{header.Routing, 0, 0, 1, 0, 0, 0, 7, 17, 0, 0, 1, 0, 0, 0, 0}, make([]byte, 8)...)),
		header6("2001:db8:9::1", "2001:db8:9::2", header.HopByHop, append([]byte{header.AuthHeader, 0, 1, 4, 0, 0, 0, 0, header.DestOptions, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 17, 0, 1, 4, 0, 0, 0, 0}, make([]byte, 8)...)),
	}
	for i, layers := range all {
		if layers[len(layers)-1].Resolver != nil {
			continue
		}
		outer := layers[len(layers)-1]
		g := add(fmt.Sprint("stack ", i), flip(layers), outer.Local, outer.Remote)
		out := build(t, layers, 1<<16, encap.DefaultOptions)
		for _, in := range inner {
			if pkt, r := encapsulate(out, in); r == drop.None {
				g.good = append(g.good, pkt)
			}
		}
	}
	v := vectors.Read(t)
	mechanism := func(m resolve.Mechanism, local, own string, good ...string) {
		site := resolve.Site{Local: netip.MustParseAddr(local), Strict: false}
		if own != "" {
			site.Own = []netip.Prefix{netip.MustParsePrefix(own)}
		}
		r, err := m.Resolver(site)
		if err != nil {
			t.Fatal(err)
		}
		layers := []encap.Layer{{Kind: encap.SixInFour, Local: site.Local, Resolver: r}}
		g := add(fmt.Sprintf("%T at %s", m, local), layers, netip.Addr{}, site.Local)
		for _, name := range good {
			g.good = append(g.good, v[name])
		}
	}
	relay := resolve.Host{Addr: netip.MustParseAddr("10.0.0.1")}
	anybody := []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")}
	domain := netip.MustParsePrefix("2001:db8::/32")
	mechanism(resolve.SixToFour{Role: resolve.RoleRouter}, "198.51.100.2", "", "6TO4-1", "6TO4-2", "6TO4-3", "6TO4-D1", "6TO4-D2", "6TO4-D3")
	mechanism(resolve.SixToFour{Role: resolve.RoleRelay, Clients: anybody}, "198.51.100.2", "", "6TO4-1", "6TO4-2")
	mechanism(resolve.SixRD{Prefix: domain, MaskLen: 8, Relays: []resolve.Host{relay}, Role: resolve.RoleCE}, "10.100.200.2", "", "6RD-1", "6RD-3", "6RD-D1")
	mechanism(resolve.SixRD{Prefix: domain, MaskLen: 8, Role: resolve.RoleBR}, "10.0.0.1", "", "6RD-2", "6RD-D1")
	mechanism(resolve.ISATAP{Routers: []resolve.Host{{Addr: netip.MustParseAddr("198.51.100.2")}}}, "192.0.2.1", "", "ISATAP-2", "ISATAP-3")
	mechanism(resolve.ISATAP{Router: true, Prefixes: []netip.Prefix{netip.MustParsePrefix("2001:db8:5efe:1::/64")}}, "198.51.100.2", "", "ISATAP-1", "ISATAP-3", "ISATAP-D1")
	mechanism(resolve.V4Compat{}, "192.0.2.1", "::192.0.2.1/96", "AUTO-1")
	mechanism(resolve.SixOverFour{}, "198.51.100.2", "2001:db8:64::1/64", "6OVER4-1", "6OVER4-2")
	// Packets sent by real kernels are used for the targets that could receive them.
	files, _ := filepath.Glob(filepath.Join("..", "testdata", "golden", "*.pcap"))
	if tt, ok := t.(*testing.T); ok {
		for i, f := range files {
			for _, frame := range readCapture(tt, strings.TrimSuffix(filepath.Base(f), ".pcap")) {
				if g := list[(i+frame.n)%len(list)]; len(g.good) < 40 && g.couldGet(frame.ip) {
					g.good = append(g.good, frame.ip)
				}
			}
		}
	}
	for _, g := range list {
		g.good = slices.DeleteFunc(g.good, func(b []byte) bool { return len(b) == 0 })
		if len(g.good) == 0 {
			t.Fatalf("%s: no packets to begin with", g.name)
		}
	}
	return list
}

// TestHostile: no packet, of very many, causes a panic. An accepted packet is a whole
// packet within the received one, with no source address of this host or of its other
// links, and without source routing. The code that handles it next does not panic
// either.
func TestHostile(t *testing.T) {
	workers := runtime.GOMAXPROCS(0)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	var let atomic.Int64
	var reasons [drop.Count]atomic.Int64
	var all sync.WaitGroup
	for w := range workers {
		h := &hostile{t: t, rng: rand.New(rand.NewPCG(seed, uint64(w))), targets: newTargets(t), now: time.Unix(1800000000, 0), buf: make([]byte, 0, 4096)}
		all.Go(func() {
			defer func() {
				if p := recover(); p != nil {
					t.Errorf("%v, with %s: %x", p, h.at.name, h.sent)
					panic(p) // to get the stack trace
				}
			}()
			for range *hostilePackets / workers {
				h.one()
				if t.Failed() {
					return
				}
			}
			let.Add(h.let)
			for r, n := range h.reasons {
				reasons[r].Add(n)
			}
		})
	}
	all.Wait()
	t.Logf("%d packets, %d let through", *hostilePackets, let.Load())
	for r := range reasons {
		if n := reasons[r].Load(); n > 0 && r != 0 {
			t.Logf("%12d %v", n, drop.Reason(r))
		}
	}
	if n := let.Load(); n < int64(*hostilePackets)/100 {
		t.Errorf("only %d were let through: the packets are too wild to try what comes behind the first checks", n)
	}
}

// hostile makes packets at random.
type hostile struct {
	t       *testing.T
	rng     *rand.Rand
	targets []*target
	at      *target
	now     time.Time
	buf     []byte
	sent    []byte // the packet as it was made
	let     int64
	reasons [drop.Count]int64
}

func (h *hostile) one() {
	h.at = h.targets[h.rng.IntN(len(h.targets))]
	h.now = h.now.Add(time.Duration(h.rng.IntN(20)) * time.Millisecond)
	b := h.make()
	h.sent = append(h.sent[:0], b...)
	inner, r := h.at.in.Decapsulate(b)
	h.reasons[r]++
	switch {
	case r == drop.Fragment && inner != nil:
		if whole, r := h.at.whole.Add(inner, h.now); r == drop.None && whole != nil {
			if got, r := h.at.in.DecapsulateReassembled(whole); r == drop.None {
				h.check(got)
			}
		}
	case r == drop.OwnSource && inner != nil:
		h.at.in.Keepalive(inner, h.rng.IntN(2) == 0)
	case r == drop.None:
		h.let++
		h.check(inner)
	default:
		h.at.in.Unquote(h.sent)
		if e, ok := icmp.Parse(paddedTo(h.sent)); ok {
			e.Meaning()
		}
	}
}

// paddedTo returns a packet that is long enough for the getters of a parsed one.
func paddedTo(b []byte) []byte {
	if p, r := header.Parse(b, header.Version(b)); r == drop.None {
		return p
	}
	return header4("192.0.2.1", "192.0.2.2", header.ICMP, make([]byte, 8))
}

// check checks an accepted packet.
func (h *hostile) check(inner []byte) {
	if _, r := header.Parse(inner, header.Version(inner)); r != drop.None {
		h.t.Errorf("%s: let through %x of %x: %v", h.at.name, inner, h.sent, r)
		return
	}
	var src netip.Addr
	if header.Version(inner) == 4 {
		src = header.IPv4(inner).Src()
	} else {
		src = header.IPv6(inner).Src()
		if at := bytes.IndexByte(inner[6:7], header.Routing); at == 0 && len(inner) >= 44 && inner[42] == 0 && inner[43] > 0 {
			h.t.Errorf("%s: source routing in %x", h.at.name, inner)
		}
		if h.at.agent != nil && h.at.agent.Wants(inner) {
			h.hear(inner)
		}
	}
	for _, p := range hostileOwn {
		if p.Contains(src) {
			h.t.Errorf("%s: source %v is ours, in %x", h.at.name, src, inner)
		}
	}
	icmp.MayAnswer(inner, h.rng.IntN(2) == 0)
	encap.ClampMSS(inner, 1280)
	out := make([]byte, encap.Headroom+len(inner))
	copy(out[encap.Headroom:], inner)
	h.at.in.Encapsulate(out, encap.Headroom)
}

// hear passes a message to an agent, and collects its messages.
func (h *hostile) hear(inner []byte) {
	from := netip.MustParseAddr("198.51.100.2")
	if ip := header.IPv4(h.sent); len(h.sent) >= header.IPv4Len && header.Version(h.sent) == 4 {
		from = ip.Src()
	}
	h.at.agent.Receive(header.Outer{From: netip.AddrPortFrom(from, 0)}, inner, h.now)
	h.at.agent.Hold(inner, h.now)
	send, _, _ := h.at.agent.Next(h.now)
	for _, m := range send {
		if _, r := header.ParseIPv6(m.Bytes); r != drop.None {
			h.t.Errorf("%s: sends %x: %v", h.at.name, m.Bytes, r)
		}
	}
	h.at.agent.Learnt()
	h.at.agent.Entries(h.now)
}

// make makes a packet from a valid one, or from random bytes.
func (h *hostile) make() []byte {
	g, rng := h.at, h.rng
	b := append(h.buf[:0], g.good[rng.IntN(len(g.good))]...)
	if rng.IntN(50) == 0 {
		b = b[:0]
		for range rng.IntN(200) {
			b = append(b, byte(rng.Uint32()))
		}
	}
	for range rng.IntN(4) {
		b = h.spoil(b)
	}
	// Most packets should pass the first checks.
	if len(b) >= header.IPv4Len && b[0]>>4 == 4 && rng.IntN(16) != 0 {
		if g.from.Is4() {
			copy(b[12:], g.from.AsSlice())
		}
		if g.to.Is4() && b[16]>>4 != 0xe {
			copy(b[16:], g.to.AsSlice())
		}
		if b[0]&15 < 5 {
			b[0] = 0x45
		}
		b[9] = g.carries
		if rng.IntN(8) != 0 {
			binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
		}
		b[10], b[11] = 0, 0
		if n := int(b[0]&15) * 4; n <= len(b) {
			binary.BigEndian.PutUint16(b[10:], ^header.Sum(b[:n], 0))
		}
	}
	if len(b) >= header.IPv6Len && b[0]>>4 == 6 && g.from.Is6() && rng.IntN(16) != 0 {
		copy(b[8:], g.from.AsSlice())
		copy(b[24:], g.to.AsSlice())
		if !header.IsExtension(b[6]) {
			b[6] = g.carries
		}
		if rng.IntN(8) != 0 {
			binary.BigEndian.PutUint16(b[4:], uint16(len(b)-header.IPv6Len))
		}
	}
	if rng.IntN(2) == 0 {
		h.mendInner(b)
	}
	return b
}

// telling are byte values that have a meaning in some header.
var telling = []byte{0, 1, 4, 6, 17, 41, 43, 44, 47, 50, 51, 58, 59, 60, 0x45, 0x46, 0x4f, 0x60, 0x7f, 0x80, 133, 134, 135, 136, 139, 140, 0xc0, 0xfe, 0xff}

// spoil changes a packet in one way.
func (h *hostile) spoil(b []byte) []byte {
	rng := h.rng
	if len(b) == 0 {
		return b
	}
	at := rng.IntN(len(b))
	switch rng.IntN(8) {
	case 0:
		b[at] ^= 1 << rng.IntN(8)
	case 1:
		b[at] = byte(rng.Uint32())
	case 2, 3:
		b[at] = telling[rng.IntN(len(telling))]
	case 4:
		return b[:at]
	case 5: // bytes in between, such as an extension header
		ext := []byte{telling[rng.IntN(len(telling))], byte(rng.IntN(3)), byte(rng.IntN(6)), byte(rng.IntN(6)), byte(rng.Uint32()), 0, 0, byte(rng.IntN(3))}
		if cap(b) < len(b)+len(ext) {
			return b
		}
		return slices.Insert(b, at&^3, ext...)
	case 6: // a piece of another packet
		other := h.at.good[rng.IntN(len(h.at.good))]
		from := rng.IntN(len(other))
		return append(b[:at], other[from:]...)
	case 7:
		for i := at; i < min(len(b), at+16); i++ {
			b[i] = byte(rng.Uint32())
		}
	}
	return b
}

// mendInner corrects the length and the checksum of the first IPv4 or IPv6 header after
// the outer one.
func (h *hostile) mendInner(b []byte) {
	for at := header.IPv4Len; at+header.IPv4Len <= len(b) && at <= 64; at += 4 {
		switch {
		case b[at] == 0x45:
			binary.BigEndian.PutUint16(b[at+2:], uint16(len(b)-at))
			b[at+10], b[at+11] = 0, 0
			binary.BigEndian.PutUint16(b[at+10:], ^header.Sum(b[at:at+header.IPv4Len], 0))
			return
		case b[at]>>4 == 6 && at+header.IPv6Len <= len(b) && b[at]&15 == 0:
			binary.BigEndian.PutUint16(b[at+4:], uint16(len(b)-at-header.IPv6Len))
			if m := b[at+header.IPv6Len:]; b[at+6] == header.ICMPv6 && len(m) >= 4 { // so that neighbour discovery is accepted
				m[2], m[3] = 0, 0
				binary.BigEndian.PutUint16(m[2:], ^header.Sum(m, header.PseudoSum(b[at+8:at+24], b[at+24:at+40], len(m), header.ICMPv6)))
			}
		}
	}
}
