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
	"sixfour/internal/rig/rigtest"
	"sixfour/transport"
	"sixfour/transport/wiretest"
)

// TestOnTheWire: packets are on the wire exactly as given to a sender (traffic class,
// hop limit, flow label), and arrive.
func TestOnTheWire(t *testing.T) {
	left, right := wiretest.Two(t)
	wiretest.Both(t, func(t *testing.T, e wiretest.Ends) {
		tx := wiretest.Dial(t, left, e.Left, transport.Options{})
		for _, p := range wiretest.TunnelProtocols {
			t.Run(fmt.Sprint(p), func(t *testing.T) {
				rx := wiretest.Listen(t, right, e.Right, int(p), transport.Shard{}, transport.Options{})
				c := wiretest.Capture(t, right, "eth0")
				pkts := [][]byte{e.Outer(p, make([]byte, 100)), e.Outer(p, make([]byte, 101))}
				if n, err := tx.Send(wiretest.Pieces(pkts)); err != nil {
					t.Fatalf("sent %d: %v", n, err)
				}
				for _, want := range pkts {
					f, err := c.Find(wiretest.Soon(t), func(f rig.Frame) bool { return len(f.Packet()) == len(want) })
					if err != nil || !bytes.Equal(f.Packet(), want) {
						t.Errorf("%v\n got %x\nwant %x", err, f.Packet(), want)
					}
				}
				wiretest.Expect(t, rx, pkts...)
			})
		}
	})
}

// TestAboveMTU: only a packet above the device's MTU is refused, however often that
// happens.
func TestAboveMTU(t *testing.T) {
	left, right := wiretest.Two(t)
	wiretest.Both(t, func(t *testing.T, e wiretest.Ends) {
		tx := wiretest.Dial(t, left, e.Left, transport.Options{})
		rx := wiretest.Listen(t, right, e.Right, protocol, transport.Shard{}, transport.Options{})
		pkts := [][]byte{e.Packet(1500, 0), e.Packet(1501, 1), e.Packet(1500, 2)}
		for range 10 {
			n, err := tx.Send(wiretest.Pieces(pkts))
			if n != 1 || !errors.Is(err, unix.EMSGSIZE) {
				t.Fatalf("sent %d: %v", n, err)
			}
			if err := tx.SendOne(pkts[1]); !errors.Is(err, unix.EMSGSIZE) {
				t.Fatalf("alone: %v", err)
			}
			if n, err := tx.Send(wiretest.Pieces(pkts)[2:]); n != 1 || err != nil {
				t.Fatalf("the rest: %d, %v", n, err)
			}
			wiretest.Expect(t, rx, pkts[0], pkts[2])
		}
	})
}

// TestKernelDeals: fragments and extension headers, which the kernel processes, are not
// visible.
func TestKernelDeals(t *testing.T) {
	left, right := wiretest.Two(t)
	payload := bytes.Repeat([]byte("sixfour!"), 20)
	wiretest.Both(t, func(t *testing.T, e wiretest.Ends) {
		tx := wiretest.Dial(t, left, e.Left, transport.Options{})
		for _, p := range wiretest.TunnelProtocols {
			rx := wiretest.Listen(t, right, e.Right, int(p), transport.Shard{}, transport.Options{})
			want := e.Outer(p, payload)
			if e.Left.Is4() { // reassembled: the identification stays, and there is no DF
				binary.BigEndian.PutUint32(want[4:], 0x1234<<16)
				header.IPv4(want).SetChecksum()
			}
			f := e.Fragments(p, payload)
			for _, order := range [][]int{{0, 1}, {1, 0}} {
				rigtest.Must(t, tx.SendOne(f[order[0]]))
				rigtest.Must(t, tx.SendOne(f[order[1]]))
				wiretest.Expect(t, rx, want)
			}
			if e.Left.Is4() {
				continue
			}
			// The encapsulation limit of RFC 2473 section 4.1.1; padding hop by hop.
			rigtest.Must(t, tx.SendOne(e.Outer(header.DestOptions, append([]byte{p, 0, 4, 1, 4, 1, 1, 0}, payload...))))
			rigtest.Must(t, tx.SendOne(e.Outer(header.HopByHop, append([]byte{p, 0, 1, 4, 0, 0, 0, 0}, payload...))))
			wiretest.Expect(t, rx, want, want)
		}
	})
}

// TestShortPackets: a receiver passes on exactly what arrives, whatever another host
// sends.
func TestShortPackets(t *testing.T) {
	left, right := wiretest.Two(t)
	wiretest.Both(t, func(t *testing.T, e wiretest.Ends) {
		tx := wiretest.Dial(t, left, e.Left, transport.Options{})
		for _, p := range wiretest.TunnelProtocols {
			rx := wiretest.Listen(t, right, e.Right, int(p), transport.Shard{}, transport.Options{})
			var pkts [][]byte
			for n := range 48 {
				pkts = append(pkts, e.Outer(p, bytes.Repeat([]byte{0xff}, n)))
			}
			if n, err := tx.Send(wiretest.Pieces(pkts)); err != nil {
				t.Fatalf("packet %d: %v", n, err)
			}
			wiretest.Expect(t, rx, pkts...)
		}
	})
}

// TestLinkLocal: a link-local address works with its zone, by name and by number.
func TestLinkLocal(t *testing.T) {
	left, right := wiretest.Two(t)
	e := wiretest.Ends{Left: netip.MustParseAddr("fe80::64:1"), Right: netip.MustParseAddr("fe80::64:2")}
	rigtest.Must(t, left.AddAddr("eth0", netip.PrefixFrom(e.Left, 64)))
	rigtest.Must(t, right.AddAddr("eth0", netip.PrefixFrom(e.Right, 64)))
	usable(t, left, e.Left.WithZone("eth0"))
	usable(t, right, e.Right.WithZone("eth0"))
	index := func(n *rig.Namespace) string {
		l, err := n.Handle().LinkByName("eth0")
		rigtest.Must(t, err)
		return fmt.Sprint(l.Attrs().Index)
	}
	for _, zones := range [][2]string{{"eth0", "eth0"}, {index(left), index(right)}} {
		tx := wiretest.Dial(t, left, e.Left.WithZone(zones[0]), transport.Options{})
		rx := wiretest.Listen(t, right, e.Right.WithZone(zones[1]), header.GRE, transport.Shard{}, transport.Options{})
		rigtest.Must(t, tx.SendOne(e.Outer(header.GRE, make([]byte, 10))))
		wiretest.Expect(t, rx, e.Outer(header.GRE, make([]byte, 10)))
	}
}

// usable waits until an address can be used.
func usable(t *testing.T, n *rig.Namespace, a netip.Addr) {
	t.Helper()
	for ctx := wiretest.Soon(t); ; {
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
	left, right := wiretest.Two(t)
	wiretest.Both(t, func(t *testing.T, e wiretest.Ends) {
		const table, mark = 100, 7
		rule := netlink.NewRule()
		rule.Family, rule.Mark, rule.Table, rule.Priority = map[bool]int{true: unix.AF_INET, false: unix.AF_INET6}[e.Left.Is4()], mark, table, 10
		rigtest.Must(t, left.Handle().RuleAdd(rule))
		to := &net.IPNet{IP: e.Right.AsSlice(), Mask: net.CIDRMask(e.Right.BitLen(), e.Right.BitLen())}
		rigtest.Must(t, left.Handle().RouteAdd(&netlink.Route{Table: table, Dst: to, Type: unix.RTN_UNREACHABLE}))
		rx := wiretest.Listen(t, right, e.Right, protocol, transport.Shard{}, transport.Options{})
		if err := wiretest.Dial(t, left, e.Left, transport.Options{Mark: mark}).SendOne(e.Packet(100, 0)); !errors.Is(err, unix.EHOSTUNREACH) {
			t.Errorf("with the mark: %v", err)
		}
		rigtest.Must(t, wiretest.Dial(t, left, e.Left, transport.Options{Mark: mark + 1}).SendOne(e.Packet(100, 1)))
		wiretest.Expect(t, rx, e.Packet(100, 1))
	})
}

// TestICMPTypes: only the requested types of ICMP arrive, and ICMPv6 only with a correct
// checksum.
func TestICMPTypes(t *testing.T) {
	left, right := wiretest.Two(t)
	wiretest.Both(t, func(t *testing.T, e wiretest.Ends) {
		protocol, tooBig, echo := byte(header.ICMPv6), byte(2), byte(128)
		if e.Left.Is4() {
			protocol, tooBig, echo = header.ICMP, 3, 8
		}
		message := func(kind byte) []byte {
			m := append([]byte{kind, 0, 0, 0}, "sixfour!"...)
			sum := uint32(0)
			if !e.Left.Is4() {
				sum = header.PseudoSum(e.Left.AsSlice(), e.Right.AsSlice(), len(m), header.ICMPv6)
			}
			binary.BigEndian.PutUint16(m[2:], ^header.Sum(m, sum))
			return e.Outer(protocol, m)
		}
		tx := wiretest.Dial(t, left, e.Left, transport.Options{})
		some := wiretest.Listen(t, right, e.Right, int(protocol), transport.Shard{}, transport.Options{ICMP: []int{int(tooBig)}})
		all := wiretest.Listen(t, right, e.Right, int(protocol), transport.Shard{}, transport.Options{})
		none := wiretest.Listen(t, right, e.Right, int(protocol), transport.Shard{}, transport.Options{ICMP: []int{}})
		want := message(tooBig)
		rigtest.Must(t, tx.SendOne(message(echo)))
		if !e.Left.Is4() {
			bad := bytes.Clone(want)
			bad[len(bad)-1]++
			rigtest.Must(t, tx.SendOne(bad))
		}
		rigtest.Must(t, tx.SendOne(want))
		wiretest.Expect(t, all, message(echo), want)
		wiretest.Expect(t, some, want)
		rigtest.Must(t, none.Close())
	})
}

func TestOpenErrors(t *testing.T) {
	n := wiretest.Alone(t)
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
		{addr("239.192.0.1"), transport.Options{Join: addr("239.192.0.1"), JoinOn: 1 << 20}, "no interface with index 1048576"},
		{addr("239.192.0.1"), transport.Options{Join: addr("239.192.0.1")}, "join"},
		{addr("239.192.0.1"), transport.Options{Join: addr("ff02::1"), JoinOn: 1}, "IPv4 multicast address"},
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

// TestQueued: a raw socket reports whether its packets have left: here they wait for a
// neighbour that never answers.
func TestQueued(t *testing.T) {
	left, _ := wiretest.Two(t)
	wiretest.Both(t, func(t *testing.T, e wiretest.Ends) {
		tx := wiretest.Dial(t, left, e.Left, transport.Options{})
		if tx.Queued() {
			t.Error("nothing was sent, and something is queued")
		}
		gone := wiretest.Ends{Left: e.Left, Right: e.Right.Next().Next()}
		rigtest.Must(t, tx.SendOne(gone.Outer(header.GRE, make([]byte, 100))))
		if !tx.Queued() {
			t.Error("a packet to a neighbour that does not answer does not wait")
		}
	})
}
