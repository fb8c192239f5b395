package e2e

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"sixfour/encap/header"
	"sixfour/encap/icmp"
	"sixfour/internal/rig"
)

// forgedTooBig is a forged report of a narrow path. It has the fewest bytes with which it can seem
// to be about a packet of ours: its sender knows only the addresses.
func forgedTooBig(to netip.Addr, mtu uint32, quote []byte) []byte {
	from := netip.MustParseAddr("198.51.100.7")
	if to.Is4() {
		return ip4(from, to, header.ICMP, icmp.Append(nil, icmp.Unreachable4, icmp.FragNeeded, mtu, quote, nil))
	}
	from = netip.MustParseAddr("2001:db8:77::1")
	msg := icmp.Append(nil, icmp.TooBig6, 0, mtu, quote, nil)
	binary.BigEndian.PutUint16(msg[2:], ^header.Sum(msg, header.PseudoSum(from.AsSlice(), to.AsSlice(), len(msg), header.ICMPv6)))
	return ip6(from, to, header.ICMPv6, msg)
}

// quotedPacket is the beginning of a packet of 1500 bytes, as its header says: the header and the
// next 8 bytes.
func quotedPacket(src, dst netip.Addr, protocol byte, behind ...byte) []byte {
	behind = append(behind, make([]byte, 8-len(behind))...)
	if src.Is6() {
		b := ip6(src, dst, protocol, behind)
		binary.BigEndian.PutUint16(b[4:], 1460)
		return b
	}
	b := ip4(src, dst, protocol, behind)
	binary.BigEndian.PutUint16(b[2:], 1500)
	b[6] = 0x40 // DF
	header.IPv4(b).SetChecksum()
	return b
}

// Forged errors, above all about a narrow path, cost their sender at least a third of the
// bytes that they make the daemon send.
func TestForgedReportsAreNotAmplified(t *testing.T) {
	t.Parallel()
	var (
		outer6 = quotedPacket(outer6A, outer6B, header.ProtoIPv4, 0x45, 0, 0x05, 0xb4)
		hub    = new(strings.Builder)
		spokes []netip.Addr
		many   [][]byte
		gone   [][]byte // the same errors, with the type host unreachable
	)
	fmt.Fprint(hub, "[[tunnel]]\nname = \"six0\"\nmode = \"gre\"\nlocal = \"203.0.113.10\"\naddress = [\"10.0.0.1/24\"]\n")
	for i := range 30 {
		spoke := netip.AddrFrom4([4]byte{203, 0, 113, byte(200 + i)})
		fmt.Fprintf(hub, "[[tunnel.peer]]\nname = \"p%d\"\nremote = \"%v\"\nallowed = [\"10.0.0.%d/32\"]\n", i, spoke, 2+i)
		spokes = append(spokes, spoke)
		gone = append(gone, ip4(netip.MustParseAddr("198.51.100.7"), outerA, header.ICMP,
			icmp.Append(nil, icmp.Unreachable4, 1, 0, quotedPacket(outerA, spoke, header.GRE, 0, 0, 8, 0), nil)))
		many = append(many, forgedTooBig(outerA, 1300, quotedPacket(outerA, spoke, header.GRE, 0, 0, 8, 0)))
	}
	for _, c := range []struct {
		name    string
		a, b    string
		reports [][]byte
	}{
		{"4in6in4", configA(), configB(), [][]byte{forgedTooBig(outerA, 1300, quotedPacket(outerA, outerB, header.ProtoIPv6, 0x60, 0, 0, 0, 0x05, 0xa0, 4, 64))}},
		{"4in6in4, ever less", configA(), configB(), func() (all [][]byte) {
			for mtu := uint32(1499); mtu > 1299; mtu-- {
				all = append(all, forgedTooBig(outerA, mtu, quotedPacket(outerA, outerB, header.ProtoIPv6, 0x60, 0, 0, 0, 0x05, 0xa0, 4, 64)))
			}
			return all
		}()},
		{"4in6in4, the layer inside", configA(), configB(), [][]byte{ip4(outerB, outerA, header.ProtoIPv6, func() []byte {
			q := quotedPacket(in6A, in6B, header.ProtoIPv4, 0x45, 0, 0x05, 0xa0)
			binary.BigEndian.PutUint16(q[4:], 1440)
			return forgedTooBig(in6A, 1300, q)
		}())}},
		{"6in4", plainA(), plainB(), [][]byte{forgedTooBig(outerA, 1300, quotedPacket(outerA, outerB, header.ProtoIPv6, 0x60, 0, 0, 0, 0x05, 0xa0, 17, 64))}},
		{"4in4", kind4in4.atA(), kind4in4.atB(), [][]byte{forgedTooBig(outerA, 1300, quotedPacket(outerA, outerB, header.ProtoIPv4, 0x45, 0, 0x05, 0xc8))}},
		{"gre", kindGRE.atA(), kindGRE.atB(), [][]byte{forgedTooBig(outerA, 1300, quotedPacket(outerA, outerB, header.GRE, 0, 0, 8, 0))}},
		{"4in6", kind4in6.atA(), kind4in6.atB(), [][]byte{forgedTooBig(outer6A, 1300, outer6)}},
		{"30 peers of a hub", hub.String(), "", many},
		{"30 peers of a hub, unreachable", hub.String(), "", gone},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			n, _ := newRouted6(t)
			for _, spoke := range spokes {
				must(t, n.b.AddAddr("vb", netip.PrefixFrom(spoke, 32)))
				must(t, n.r.AddRoute(netip.PrefixFrom(spoke, 32), netip.MustParseAddr("203.0.113.34"), "rs"))
				must(t, n.s.AddRoute(netip.PrefixFrom(spoke, 32), outerB, "sb"))
			}
			a := start(t, n.a, c.a)
			if c.b != "" {
				start(t, n.b, c.b)
				eventually(t, "the peer answers probes", func() error {
					if _, s := a.status(t); s.Probes.Answered < 2 {
						return fmt.Errorf("%+v", s.Probes)
					}
					return nil
				})
			}
			sent, heard := flood(t, n, a, c.reports)
			t.Logf("%d bytes in %d reports made it send %d bytes", heard, heard/len(c.reports[0]), sent)
			if sent > 3*heard {
				t.Errorf("reports of %d bytes made it send %d", heard, sent)
			}
		})
	}
}

// flood sends the reports to a in turns, 50 a second. It returns how many bytes a sent in
// this time, and how many bytes of reports a received.
func flood(t *testing.T, n routed, a *daemon, reports [][]byte) (sent, heard int) {
	t.Helper()
	const all = 100
	_, before := a.status(t)
	wire, err := n.r.Capture("ra")
	must(t, err)
	defer wire.Close()
	here, err := n.r.MAC("ra")
	must(t, err)
	there, err := n.a.MAC("va")
	must(t, err)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for i := range all {
		report, etherType := reports[i%len(reports)], uint16(0x0800)
		if header.Version(report) == 6 {
			etherType = 0x86dd
		}
		must(t, wire.Inject(rig.Ethernet(there, here, etherType, report)))
		<-tick.C
	}
	var got int
	eventually(t, "the reports are heard", func() error {
		_, s := a.status(t)
		if got = int(s.ICMP.Received - before.ICMP.Received); got < all*9/10 {
			return fmt.Errorf("%d of %d: %+v", got, all, s.ICMP)
		}
		return nil
	})
	frames, err := wire.Waiting()
	must(t, err)
	if lost, err := wire.Lost(); err != nil || lost > 0 {
		t.Fatalf("the capture lost %d frames (%v)", lost, err)
	}
	for _, f := range frames {
		if f.Outgoing {
			continue
		}
		switch p := f.Packet(); {
		case f.Type == 0x0800, f.Type == 0x86dd && p[6] != header.ICMPv6, f.Type == 0x86dd && p[40] == icmp.EchoRequest6:
			sent += len(p)
		}
	}
	return sent, got * len(reports[0])
}
