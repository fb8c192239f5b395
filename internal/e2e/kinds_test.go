package e2e

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"sixfour/internal/rig"
)

var carried = []kind{
	kind4in4,
	kind4in6,
	kind4in6.with(" with an encapsulation limit", "encap_limit = 4\n").withHeaders(48, "IPv6(60) options(4) IPv4(1)"),
	kindDSLite,
	kind6in6,
	kindGRE,
	kindGRE.gre(" with a key", "key = 42\n", 4, "key 42"),
	kindGRE.gre(" with a checksum", "checksum = true\n", 4, "checksum"),
	kindGRE.gre(" in sequence", "sequence = true\n", 4, "sequence"),
	kindGRE.gre(" with everything", "key = \"192.0.2.1\"\nchecksum = true\nsequence = true\n", 12, "checksum key 3221225985 sequence"),
	kindGRE6,
	kindGRE6.gre(" with everything", "key = 7\nchecksum = true\nsequence = true\n", 12, "checksum key 7 sequence"),
	kindStack,
	{"6in4 in 4in6", "stack = [\"6in4\", \"4in6\"]\nlocal = \"10.9.9.%[1]d\"\nremote = \"10.9.9.%[2]d\"\nlocal6 = \"2001:db8:ff::%[1]d0\"\nremote6 = \"2001:db8:ff::%[2]d0\"\n" + innerAB, "",
		bothA, bothB, 60, []string{"IPv6(4) IPv4(1)", "IPv6(4) IPv4(41) IPv6(58)"}},
	{"6in6 in 6in6", "stack = [{ mode = \"6in6\", local = \"fd00:6::%[1]d\", remote = \"fd00:6::%[2]d\" }, \"6in6\"]\n" + over6 + inner6, "",
		ip6A, ip6B, 80, []string{"IPv6(41) IPv6(41) IPv6(58)"}},
	kind6to4,
	kind6rd,
	kindISATAP,
	kindCompat,
	kind6over4,
	kindGRE.xdp(),
	kind4in6.xdp(),
	kindGRE6.xdp(),
	kindStack.xdp(),
}

// withHeaders returns k with another length and other headers on the wire.
func (k kind) withHeaders(over int, wire ...string) kind {
	k.over, k.wire = over, wire
	return k
}

// xdp returns k with a's packets sent and received through AF_XDP, where captures at a do
// not see them.
func (k kind) xdp() kind {
	k.name, k.a, k.b = k.name+" through AF_XDP", k.a+"io = \"xdp\"\n", k.a
	return k
}

// Every mode carries packets of every size in both directions, with the headers that its
// standard requires.
func TestModesOnTheWire(t *testing.T) {
	for _, k := range carried {
		t.Run(k.name, func(t *testing.T) {
			t.Parallel()
			h := newHosts6(t)
			a, b := k.pair(t, h.a, h.b)
			if strings.Contains(k.a, "xdp") {
				a.waitIO(t, "xdp")
			}
			// An ISATAP host without a prefix refuses its own address.
			before := lost(t, a, b)
			for i := range k.toA {
				k.pings(t, h.a, k.toB[i])
				k.pings(t, h.b, k.toA[i])
				k.checkHeaders(t, h.b, h.a, k.toB[i], k.wire[i])
				k.checkHeaders(t, h.b, h.b, k.toA[i], k.wire[i])
				transfer(t, h.a, h.b, k.toB[i], 4<<20)
				transfer(t, h.b, h.a, k.toA[i], 4<<20)
			}
			if after := lost(t, a, b); after != before {
				t.Errorf("drops: %s, before %s", after, before)
			}
		})
	}
}

// lost returns the drops of packets that arrived at the daemons.
func lost(t *testing.T, daemons ...*daemon) (drops string) {
	t.Helper()
	for _, d := range daemons {
		s, _ := d.status(t)
		for _, tun := range s.Tunnels {
			drops += fmt.Sprintf("%s %v; ", tun.Name, tun.In.Drops)
		}
		drops += fmt.Sprintf("strays %v; ", s.Stray.Drops)
	}
	return drops
}

// pings sends a small one, the largest, and one that the kernel fragments.
func (k kind) pings(t *testing.T, from *rig.Namespace, to netip.Addr) {
	t.Helper()
	echo := 28
	if to.Is6() {
		echo = 48
	}
	pings(t, from, to, rig.PingOptions{})
	pings(t, from, to, rig.PingOptions{Size: 1500 - k.over - echo, DF: true})
	pings(t, from, to, rig.PingOptions{Size: 4000})
}

// waitIO waits until packets are sent in this way: by a socket or AF_XDP.
func (d *daemon) waitIO(t *testing.T, by string) {
	t.Helper()
	eventually(t, "packets leave by "+by, func() error {
		if _, s := d.status(t); s.State.IO != by {
			return fmt.Errorf("by %s", s.State.IO)
		}
		return nil
	})
}

// checkHeaders sends a ping, and expects the request at b's device with these headers.
func (k kind) checkHeaders(t *testing.T, b, from *rig.Namespace, to netip.Addr, want string) {
	t.Helper()
	wire, err := b.Capture("vb")
	must(t, err)
	defer wire.Close()
	const size = 333
	pings(t, from, to, rig.PingOptions{Count: 1, Size: size})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	length := k.over + 28 + size
	if to.Is6() {
		length += 20
	}
	if k.name == "6in4 in 4in6" && to.Is4() { // IPv4 enters the outer layer
		length -= 20
	}
	var saw []string
	if _, err := wire.Find(ctx, func(f rig.Frame) bool {
		if len(f.Packet()) != length {
			return false
		}
		got := headers(f)
		saw = append(saw, got)
		return got == want
	}); err != nil {
		t.Errorf("%v: of packets of %d bytes saw %q, want %s", err, length, saw, want)
	}
}

// headers names the headers of a frame, by a decoder that is not ours.
func headers(f rig.Frame) string {
	var words []string
	for _, l := range gopacket.NewPacket(f.Data, layers.LayerTypeEthernet, gopacket.Default).Layers() {
		switch l := l.(type) {
		case *layers.IPv4:
			words = append(words, fmt.Sprintf("IPv4(%d)", l.Protocol))
		case *layers.IPv6:
			words = append(words, fmt.Sprintf("IPv6(%d)", l.NextHeader))
		case *layers.IPv6Destination:
			words = append(words, fmt.Sprintf("options(%d)", l.NextHeader))
		case *layers.GRE:
			var flags string
			if l.ChecksumPresent {
				flags += "checksum "
			}
			if l.KeyPresent {
				flags += fmt.Sprintf("key %d ", l.Key)
			}
			if l.SeqPresent {
				flags += "sequence "
			}
			words = append(words, fmt.Sprintf("GRE(%s%04x)", flags, uint16(l.Protocol)))
		}
	}
	return strings.Join(words, " ")
}
