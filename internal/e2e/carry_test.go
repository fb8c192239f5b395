package e2e

import (
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"sixfour/encap/header"
	"sixfour/internal/rig"
)

func TestPing(t *testing.T) {
	t.Parallel()
	h := newHosts(t, 1500)
	start(t, h.a, configA())
	start(t, h.b, configB())
	for _, o := range []rig.PingOptions{
		{}, {Size: 1}, {Size: 1412, DF: true}, {TTL: 1}, {TOS: 0xb8}, {Count: 300, Interval: time.Millisecond},
		{IPv4Options: []byte{7, 11, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0}}, // record route
		{IPv4Options: []byte{0x94, 4, 0, 0}},                       // router alert
		{Size: 1413}, {Size: 4000}, {Size: 20000},                  // fragmented inside
	} {
		pings(t, h.a, inB, o)
		pings(t, h.b, inA, o)
		if o.IPv4Options == nil {
			o.Size = min(o.Size, 1392) // the IPv6 header is longer
			pings(t, h.a, in6B, o)
			pings(t, h.b, in6A, o)
		}
	}
	pings(t, h.a, in6B, rig.PingOptions{Size: 4000})
}

// The interface need not have the address of the IPv6 layer: the daemon answers for it.
func TestPingAnsweredByDaemon(t *testing.T) {
	t.Parallel()
	h := newHosts(t, 1500)
	a := start(t, h.a, configA(`address = ["10.0.0.1/30"]`))
	b := start(t, h.b, configB())
	b.answered(t)
	_, before := a.status(t)
	_, probed := b.status(t)
	pings(t, h.b, in6A, rig.PingOptions{})
	pings(t, h.b, in6A, rig.PingOptions{Size: 1392, TOS: 0xb8})
	pings(t, h.b, inA, rig.PingOptions{})
	pings(t, h.a, inB, rig.PingOptions{})
	eventually(t, "6 requests answered, and b's probes", func() error {
		_, s := a.status(t)
		_, o := b.status(t)
		if got, probes := s.Answered-before.Answered, o.Probes.Answered-probed.Probes.Answered; got != 6+probes {
			return fmt.Errorf("%d, of which %d to probes", got, probes)
		}
		return nil
	})
}

// The packets on the wire, read by a decoder that is not ours.
func TestWire(t *testing.T) {
	t.Parallel()
	h := newHosts(t, 1500)
	start(t, h.a, configA())
	start(t, h.b, configB())
	wire, err := h.b.Capture("vb")
	must(t, err)
	defer wire.Close()
	pings(t, h.a, inB, rig.PingOptions{Count: 1, Size: 100})
	f, err := wire.Find(t.Context(), func(f rig.Frame) bool {
		p := f.Packet()
		return f.Type == 0x0800 && len(p) == 20+40+20+8+100 && p[9] == header.ProtoIPv6
	})
	must(t, err)
	p := gopacket.NewPacket(f.Data, layers.LayerTypeEthernet, gopacket.Default)
	want := []gopacket.LayerType{layers.LayerTypeEthernet, layers.LayerTypeIPv4, layers.LayerTypeIPv6, layers.LayerTypeIPv4, layers.LayerTypeICMPv4, gopacket.LayerTypePayload}
	if len(p.Layers()) != len(want) {
		t.Fatalf("layers: %v", p)
	}
	for i, l := range p.Layers() {
		if l.LayerType() != want[i] {
			t.Fatalf("layer %d is %v, want %v", i, l.LayerType(), want[i])
		}
		if ip, ok := l.(*layers.IPv4); ok && (header.Sum(ip.Contents, 0) != 0xffff || int(ip.Length) != len(ip.Contents)+len(ip.Payload)) {
			t.Errorf("layer %d: %s", i, gopacket.LayerString(l))
		}
	}
	outer, mid := p.Layers()[1].(*layers.IPv4), p.Layers()[2].(*layers.IPv6)
	if outer.Protocol != layers.IPProtocolIPv6 || outer.TTL != 64 || outer.Flags != layers.IPv4DontFragment ||
		mid.NextHeader != layers.IPProtocolIPv4 || mid.HopLimit != 64 || mid.SrcIP.String() != "fc00::1" || mid.DstIP.String() != "fc00::2" {
		t.Errorf("%v", p)
	}
}

func TestTCP(t *testing.T) {
	h := newHosts(t, 1500)
	start(t, h.a, configA())
	start(t, h.b, configB())
	transfer(t, h.a, h.b, inB, 100<<20)
	transfer(t, h.b, h.a, inA, 10<<20)
	transfer(t, h.a, h.b, in6B, 10<<20)
}

func TestUDP(t *testing.T) {
	h := newHosts(t, 1500)
	start(t, h.a, configA())
	start(t, h.b, configB())
	for _, c := range []struct {
		addr  netip.Addr
		df    bool
		sizes []int
	}{
		{inB, true, []int{24, 100, 576, 1400, 1411, 1412}},
		{inB, false, []int{1412, 1413, 1500, 4000, 9000, 32000, 65000}},
		{in6B, true, []int{24, 100, 1391, 1392}},
		{in6B, false, []int{1393, 4000, 32000}},
	} {
		ds, err := rig.UDPExchange(t.Context(), h.a, h.b, netip.AddrPortFrom(c.addr, 5002), c.sizes, rig.UDPOptions{DF: c.df, Timeout: 5 * time.Second})
		if err != nil || rig.Intact(ds) != len(c.sizes) {
			t.Errorf("UDP to %v: %+v, %v", c.addr, ds, err)
		}
	}
	// For a packet larger than the MTU that must not be fragmented, the kernel reports that
	// at once.
	ds, err := rig.UDPExchange(t.Context(), h.a, h.b, netip.AddrPortFrom(inB, 5002), []int{1413}, rig.UDPOptions{DF: true})
	if err != nil || ds[0].Err == nil {
		t.Errorf("1413 bytes with DF: %+v, %v", ds, err)
	}
}

// Packets are sent through AF_XDP, through the socket while AF_XDP cannot be used, and
// through AF_XDP again.
func TestXDP(t *testing.T) {
	t.Parallel()
	h := newHosts(t, 1500)
	a := start(t, h.a, configA(`io = "xdp"`))
	b := start(t, h.b, configB(`io = "xdp"`))
	leaves := func(d *daemon, by string) {
		t.Helper()
		eventually(t, "packets leave by "+by, func() error {
			if _, s := d.status(t); s.State.IO != by {
				return fmt.Errorf("by %s", s.State.IO)
			}
			return nil
		})
	}
	reachable(t, h.a, inB)
	leaves(a, "xdp")
	leaves(b, "xdp")
	pings(t, h.a, inB, rig.PingOptions{Size: 1412, DF: true})
	pings(t, h.b, in6A, rig.PingOptions{Size: 4000})
	transfer(t, h.a, h.b, inB, 50<<20)
	transfer(t, h.b, h.a, inA, 50<<20)

	// Another host takes over the peer's address: the neighbour has another hardware
	// address.
	must(t, h.b.LinkDown("vb"))
	leaves(a, "socket")
	must(t, h.b.SetMAC("vb", net.HardwareAddr{2, 0, 0, 0, 0, 0x77}))
	must(t, h.b.LinkUp("vb"))
	reachable(t, h.a, inB)
	leaves(a, "xdp")
	transfer(t, h.a, h.b, inB, 10<<20)

	must(t, h.a.SetMTU("va", 3000)) // frames of another size
	must(t, h.b.SetMTU("vb", 3000))
	leaves(a, "xdp")
	transfer(t, h.a, h.b, inB, 10<<20)
	for _, d := range []*daemon{a, b} {
		if _, s := d.status(t); len(s.In.Drops) > 0 {
			t.Errorf("drops: %+v", s.In)
		}
	}
}

func Test6in4(t *testing.T) {
	t.Parallel()
	h := newHosts(t, 1500)
	start(t, h.a, plainA())
	b := start(t, h.b, plainB())
	pings(t, h.a, in6B, rig.PingOptions{Size: 1432, DF: true})
	pings(t, h.b, in6A, rig.PingOptions{Size: 4000})
	transfer(t, h.a, h.b, in6B, 20<<20)
	if _, s := b.status(t); s.State.TunnelMTU != 1480 || s.Mode != "6in4" {
		t.Errorf("%+v", s)
	}
}

// With options that change the packets on the wire, packets are still carried, in any
// combination of ends.
func TestOptions(t *testing.T) {
	t.Parallel()
	for _, lines := range [][]string{
		{`encap_limit = 4`},
		{`pmtu = "static"`, `mtu = 1400`},
		{`ttl = "inherit"`, `hop_limit = "inherit"`, `dscp = 10`, `ecn = "compat"`, `flow_label = 74565`},
		{`offload = "off"`, `queues = 1`},
		{`queues = 5`},
		{`flow_label = "inner"`, `fwmark = 77`, `martians = "strict"`},
	} {
		h := newHosts(t, 1500)
		start(t, h.a, configA(lines...))
		start(t, h.b, configB())
		reachable(t, h.b, in6A)
		pings(t, h.a, inB, rig.PingOptions{Size: 1300})
		pings(t, h.b, in6A, rig.PingOptions{})
		transfer(t, h.a, h.b, inB, 1<<20)
		transfer(t, h.b, h.a, inA, 1<<20)
	}
}

// An outer path of 1280 bytes leaves IPv4 1220, and IPv6 less than it needs:
// with IPv6 on the interface its MTU stays 1280 and outer packets are fragmented.
func TestSmallPath(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, address4, address6 string
		mtu                      int
	}{
		{"IPv4 alone", `address = ["10.0.0.1/30"]`, `address = ["10.0.0.2/30"]`, 1220},
		{"with IPv6", `mtu = 0`, `mtu = 0`, 1280},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHosts(t, 1280)
			start(t, h.a, configA(c.address4))
			b := start(t, h.b, configB(c.address6))
			if mtu, err := h.a.MTU("six0"); err != nil || mtu != c.mtu {
				t.Errorf("MTU %d, %v; want %d", mtu, err, c.mtu)
			}
			// A packet that must not be fragmented has 1280 bytes less the 40 of the IPv6
			// layer.
			pings(t, h.a, inB, rig.PingOptions{Size: min(c.mtu, 1240) - 28, DF: true})
			pings(t, h.a, inB, rig.PingOptions{Size: c.mtu - 28})
			pings(t, h.b, inA, rig.PingOptions{Size: 5000})
			transfer(t, h.a, h.b, inB, 10<<20)
			if c.mtu == 1280 {
				pings(t, h.a, in6B, rig.PingOptions{Size: 1280 - 48, DF: true})
				transfer(t, h.b, h.a, in6A, 10<<20)
			}
			if _, s := b.status(t); len(s.In.Drops)+len(s.Out.Drops) > 0 {
				t.Errorf("drops: %+v", s)
			}
		})
	}
}

// The interface is in another namespace, and the outer side stays.
func TestNetns(t *testing.T) {
	t.Parallel()
	h := newHosts(t, 1500)
	inner := newNamespace(t, "inner")
	a := start(t, h.a, configA(`netns = "`+inner.Path()+`"`, `routes = ["192.168.2.0/24"]`))
	start(t, h.b, configB())
	pings(t, inner, inB, rig.PingOptions{})
	pings(t, inner, in6B, rig.PingOptions{})
	pings(t, h.b, inA, rig.PingOptions{})
	transfer(t, inner, h.b, inB, 1<<20)
	if _, err := h.a.MTU("six0"); err == nil {
		t.Error("the interface is in the outer namespace too")
	}
	must(t, inner.DelLink("six0")) // and is made again where it was
	a.wait(t, "the interface was made again")
	reachable(t, inner, inB)
	if code := a.end(t, syscall.SIGTERM); code != 0 {
		t.Errorf("exit status %d", code)
	}
	if _, err := inner.MTU("six0"); err == nil {
		t.Error("the interface stays behind")
	}
}
