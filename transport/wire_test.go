package transport_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sixfour/encap/header"
	"sixfour/internal/rig"
	"sixfour/transport"
)

var tunnelProtocols = []byte{header.ProtoIPv4, header.ProtoIPv6, header.GRE}

func capture(t testing.TB, n *rig.Namespace, dev string) *rig.Capture {
	t.Helper()
	c, err := n.Capture(dev)
	check(t, err)
	t.Cleanup(func() { c.Close() })
	return c
}

// TestOnTheWire: packets are on the wire exactly as given to a sender (traffic class,
// hop limit, flow label), and arrive.
func TestOnTheWire(t *testing.T) {
	left, right := two(t)
	both(t, func(t *testing.T, e ends) {
		tx := dial(t, left, e.left, transport.Options{})
		for _, p := range tunnelProtocols {
			t.Run(fmt.Sprint(p), func(t *testing.T) {
				rx := listen(t, right, e.right, int(p), transport.Shard{}, transport.Options{})
				c := capture(t, right, "eth0")
				pkts := [][]byte{e.outer(p, make([]byte, 100)), e.outer(p, make([]byte, 101))}
				if n, err := tx.Send(pieces(pkts)); err != nil {
					t.Fatalf("sent %d: %v", n, err)
				}
				for _, want := range pkts {
					f, err := c.Find(soon(t), func(f rig.Frame) bool { return len(f.Packet()) == len(want) })
					if err != nil || !bytes.Equal(f.Packet(), want) {
						t.Errorf("%v\n got %x\nwant %x", err, f.Packet(), want)
					}
				}
				expect(t, rx, pkts...)
			})
		}
	})
}

// TestAboveMTU: only a packet above the device's MTU is refused, however often that
// happens.
func TestAboveMTU(t *testing.T) {
	left, right := two(t)
	both(t, func(t *testing.T, e ends) {
		tx := dial(t, left, e.left, transport.Options{})
		rx := listen(t, right, e.right, protocol, transport.Shard{}, transport.Options{})
		pkts := [][]byte{e.packet(1500, 0), e.packet(1501, 1), e.packet(1500, 2)}
		for range 10 {
			n, err := tx.Send(pieces(pkts))
			if n != 1 || !errors.Is(err, unix.EMSGSIZE) {
				t.Fatalf("sent %d: %v", n, err)
			}
			if err := tx.SendOne(pkts[1]); !errors.Is(err, unix.EMSGSIZE) {
				t.Fatalf("alone: %v", err)
			}
			if n, err := tx.Send(pieces(pkts)[2:]); n != 1 || err != nil {
				t.Fatalf("the rest: %d, %v", n, err)
			}
			expect(t, rx, pkts[0], pkts[2])
		}
	})
}

// fragments splits a packet in two fragments (RFC 791; RFC 8200 section 4.5).
func (e ends) fragments(protocol byte, payload []byte) [][]byte {
	const cut = 64
	var out [][]byte
	for _, f := range []struct {
		offset, more uint16
		data         []byte
	}{{0, 1, payload[:cut]}, {cut, 0, payload[cut:]}} {
		if e.left.Is4() {
			p := e.outer(protocol, f.data)
			binary.BigEndian.PutUint16(p[4:], 0x1234)
			binary.BigEndian.PutUint16(p[6:], f.more<<13|f.offset/8)
			header.IPv4(p).SetChecksum()
			out = append(out, p)
			continue
		}
		ext := []byte{protocol, 0, 0, 0, 1, 2, 3, 4}
		binary.BigEndian.PutUint16(ext[2:], f.offset|f.more)
		out = append(out, e.outer(header.FragmentHdr, append(ext, f.data...)))
	}
	return out
}

// TestKernelDeals: fragments and extension headers, which the kernel processes, are not
// visible.
func TestKernelDeals(t *testing.T) {
	left, right := two(t)
	payload := bytes.Repeat([]byte("sixfour!"), 20)
	both(t, func(t *testing.T, e ends) {
		tx := dial(t, left, e.left, transport.Options{})
		for _, p := range tunnelProtocols {
			rx := listen(t, right, e.right, int(p), transport.Shard{}, transport.Options{})
			want := e.outer(p, payload)
			if e.left.Is4() { // reassembled: the identification stays, and there is no DF
				binary.BigEndian.PutUint32(want[4:], 0x1234<<16)
				header.IPv4(want).SetChecksum()
			}
			f := e.fragments(p, payload)
			for _, order := range [][]int{{0, 1}, {1, 0}} {
				check(t, tx.SendOne(f[order[0]]))
				check(t, tx.SendOne(f[order[1]]))
				expect(t, rx, want)
			}
			if e.left.Is4() {
				continue
			}
			// The encapsulation limit of RFC 2473 section 4.1.1; padding hop by hop.
			check(t, tx.SendOne(e.outer(header.DestOptions, append([]byte{p, 0, 4, 1, 4, 1, 1, 0}, payload...))))
			check(t, tx.SendOne(e.outer(header.HopByHop, append([]byte{p, 0, 1, 4, 0, 0, 0, 0}, payload...))))
			expect(t, rx, want, want)
		}
	})
}

// TestShortPackets: a receiver passes on exactly what arrives, whatever another host
// sends.
func TestShortPackets(t *testing.T) {
	left, right := two(t)
	both(t, func(t *testing.T, e ends) {
		tx := dial(t, left, e.left, transport.Options{})
		for _, p := range tunnelProtocols {
			rx := listen(t, right, e.right, int(p), transport.Shard{}, transport.Options{})
			var pkts [][]byte
			for n := range 48 {
				pkts = append(pkts, e.outer(p, bytes.Repeat([]byte{0xff}, n)))
			}
			if n, err := tx.Send(pieces(pkts)); err != nil {
				t.Fatalf("packet %d: %v", n, err)
			}
			expect(t, rx, pkts...)
		}
	})
}

// TestLinkLocal: a link-local address works with its zone, by name and by number.
func TestLinkLocal(t *testing.T) {
	left, right := two(t)
	e := ends{netip.MustParseAddr("fe80::64:1"), netip.MustParseAddr("fe80::64:2")}
	check(t, left.AddAddr("eth0", netip.PrefixFrom(e.left, 64)))
	check(t, right.AddAddr("eth0", netip.PrefixFrom(e.right, 64)))
	usable(t, left, e.left.WithZone("eth0"))
	usable(t, right, e.right.WithZone("eth0"))
	index := func(n *rig.Namespace) string {
		l, err := n.Handle().LinkByName("eth0")
		check(t, err)
		return fmt.Sprint(l.Attrs().Index)
	}
	for _, zones := range [][2]string{{"eth0", "eth0"}, {index(left), index(right)}} {
		tx := dial(t, left, e.left.WithZone(zones[0]), transport.Options{})
		rx := listen(t, right, e.right.WithZone(zones[1]), header.GRE, transport.Shard{}, transport.Options{})
		check(t, tx.SendOne(e.outer(header.GRE, make([]byte, 10))))
		expect(t, rx, e.outer(header.GRE, make([]byte, 10)))
	}
}

// usable waits until an address can be used.
func usable(t *testing.T, n *rig.Namespace, a netip.Addr) {
	t.Helper()
	for ctx := soon(t); ; {
		err := n.Do(func() error {
			c, err := net.ListenPacket("udp6", netip.AddrPortFrom(a, 0).String())
			if err == nil {
				c.Close()
			}
			return err
		})
		if err == nil {
			return
		}
		if ctx.Err() != nil {
			t.Fatal(err)
		}
	}
}

// TestMark: packets with a mark have a route of their own.
func TestMark(t *testing.T) {
	left, right := two(t)
	both(t, func(t *testing.T, e ends) {
		const table, mark = 100, 7
		rule := netlink.NewRule()
		rule.Family, rule.Mark, rule.Table, rule.Priority = map[bool]int{true: unix.AF_INET, false: unix.AF_INET6}[e.left.Is4()], mark, table, 10
		check(t, left.Handle().RuleAdd(rule))
		to := &net.IPNet{IP: e.right.AsSlice(), Mask: net.CIDRMask(e.right.BitLen(), e.right.BitLen())}
		check(t, left.Handle().RouteAdd(&netlink.Route{Table: table, Dst: to, Type: unix.RTN_UNREACHABLE}))
		rx := listen(t, right, e.right, protocol, transport.Shard{}, transport.Options{})
		if err := dial(t, left, e.left, transport.Options{Mark: mark}).SendOne(e.packet(100, 0)); !errors.Is(err, unix.EHOSTUNREACH) {
			t.Errorf("with the mark: %v", err)
		}
		check(t, dial(t, left, e.left, transport.Options{Mark: mark + 1}).SendOne(e.packet(100, 1)))
		expect(t, rx, e.packet(100, 1))
	})
}

// TestICMPTypes: only the requested types of ICMP arrive, and ICMPv6 only with a correct
// checksum.
func TestICMPTypes(t *testing.T) {
	left, right := two(t)
	both(t, func(t *testing.T, e ends) {
		protocol, tooBig, echo := byte(header.ICMPv6), byte(2), byte(128)
		if e.left.Is4() {
			protocol, tooBig, echo = header.ICMP, 3, 8
		}
		message := func(kind byte) []byte {
			m := append([]byte{kind, 0, 0, 0}, "sixfour!"...)
			sum := uint32(0)
			if !e.left.Is4() {
				sum = header.PseudoSum(e.left.AsSlice(), e.right.AsSlice(), len(m), header.ICMPv6)
			}
			binary.BigEndian.PutUint16(m[2:], ^header.Sum(m, sum))
			return e.outer(protocol, m)
		}
		tx := dial(t, left, e.left, transport.Options{})
		some := listen(t, right, e.right, int(protocol), transport.Shard{}, transport.Options{ICMP: []int{int(tooBig)}})
		all := listen(t, right, e.right, int(protocol), transport.Shard{}, transport.Options{})
		none := listen(t, right, e.right, int(protocol), transport.Shard{}, transport.Options{ICMP: []int{}})
		want := message(tooBig)
		check(t, tx.SendOne(message(echo)))
		if !e.left.Is4() {
			bad := bytes.Clone(want)
			bad[len(bad)-1]++
			check(t, tx.SendOne(bad))
		}
		check(t, tx.SendOne(want))
		expect(t, all, message(echo), want)
		expect(t, some, want)
		check(t, none.Close())
	})
}

func TestOpenErrors(t *testing.T) {
	n := alone(t)
	addr := netip.MustParseAddr
	for _, c := range []struct {
		local netip.Addr
		o     transport.Options
		want  string // part of the error
	}{
		{netip.Addr{}, transport.Options{}, "neither an IPv4 nor an IPv6 address"},
		{addr("::ffff:203.0.113.1"), transport.Options{}, "neither an IPv4 nor an IPv6 address"},
		{addr("fe80::1"), transport.Options{}, "write fe80::1%DEV"},
		{addr("fe80::1%nosuch0"), transport.Options{}, "the interface of fe80::1%nosuch0: no such device"},
		{addr("239.192.0.1"), transport.Options{Join: addr("239.192.0.1"), JoinAt: addr("192.0.2.9")}, "no interface has the address 192.0.2.9"},
		{addr("239.192.0.1"), transport.Options{Join: addr("239.192.0.1")}, "join"},
		{addr("239.192.0.1"), transport.Options{Join: addr("ff02::1"), JoinAt: addr("192.0.2.9")}, "IPv4 multicast address"},
	} {
		err := n.Do(func() error {
			rx, err := transport.ListenRaw(c.local, protocol, transport.Shard{}, c.o)
			if err == nil {
				rx.Close()
			}
			return err
		})
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "open raw socket for protocol 253") {
			t.Errorf("listen at %v: %v, want %q", c.local, err, c.want)
		}
		if c.o.Join.IsValid() {
			continue
		}
		err = n.Do(func() error {
			tx, err := transport.DialRaw(c.local, 253, c.o)
			if err == nil {
				tx.Close()
			}
			return err
		})
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "open raw socket for protocol 253 from") {
			t.Errorf("dial from %v: %v, want %q", c.local, err, c.want)
		}
	}
}
