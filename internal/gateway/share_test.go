package gateway

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	gosync "sync"
	"testing"
	"time"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"sixfour/encap/mape"
	"sixfour/internal/rig"
	"sixfour/internal/rig/rigtest"
)

// edge is a customer edge and a host behind it:
//
//	host (192.168.0.2) ── ce ── map0: the test, which answers as the internet
type edge struct {
	t        *testing.T
	host, ce *rig.Namespace
	g        *Gateway
	device   *os.File // of map0
	address  netip.Addr

	mu    gosync.Mutex
	ports mape.Ports
	seen  map[string]map[uint16]bool // source ports and identifiers by protocol and destination
}

func newEdge(t *testing.T, address netip.Addr, ports mape.Ports) *edge {
	e := &edge{t: t, address: address, ports: ports, host: rigtest.Namespace(t, "host"), ce: rigtest.Namespace(t, "ce"), seen: make(map[string]map[uint16]bool)}
	must(t, rig.Veth(e.host, "eth0", e.ce, "lan0", 1500))
	must(t, e.host.AddAddr("eth0", netip.MustParsePrefix("192.168.0.2/24")))
	must(t, e.ce.AddAddr("lan0", netip.MustParsePrefix("192.168.0.1/24")))
	must(t, e.host.AddRoute(netip.MustParsePrefix("0.0.0.0/0"), netip.MustParseAddr("192.168.0.1"), ""))
	must(t, e.ce.Forward())
	must(t, e.ce.Do(func() (err error) {
		fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		ifr, err := unix.NewIfreq("map0")
		if err != nil {
			return err
		}
		ifr.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
		if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr); err != nil {
			return err
		}
		e.device = os.NewFile(uintptr(fd), "map0")
		e.g, err = Open()
		return err
	}))
	must(t, e.ce.LinkUp("map0"))
	must(t, e.ce.AddAddr("map0", netip.MustParsePrefix("192.0.0.2/32")))
	must(t, e.ce.AddRoute(netip.MustParsePrefix("0.0.0.0/0"), netip.Addr{}, "map0"))
	ended := make(chan struct{})
	go func() { defer close(ended); e.internet() }()
	t.Cleanup(func() { e.device.Close(); <-ended })
	e.sync()
	return e
}

// sync makes the translation to the ports.
func (e *edge) sync() {
	e.t.Helper()
	must(e.t, e.ce.Do(func() error {
		_, err := e.g.Sync(Wanted{Shares: []Share{{Interface: "map0", Address: e.address, Ports: e.ports}}})
		return err
	}))
}

// internet checks and answers what the customer edge sends into the tunnel.
func (e *edge) internet() {
	b := make([]byte, 2000)
	for {
		n, err := e.device.Read(b)
		if err != nil {
			return
		}
		if n < 28 || b[0] != 0x45 {
			continue
		}
		if answer := e.answer(b[:n]); answer != nil {
			_, _ = e.device.Write(answer)
		}
	}
}

// answer returns the answer to a packet; nil: there is none.
func (e *edge) answer(p []byte) []byte {
	e.mu.Lock()
	defer e.mu.Unlock()
	src, dst, l4 := netip.AddrFrom4([4]byte(p[12:16])), netip.AddrFrom4([4]byte(p[16:20])), p[20:]
	port := binary.BigEndian.Uint16(l4)
	if p[9] == unix.IPPROTO_ICMP {
		port = binary.BigEndian.Uint16(l4[4:])
	}
	if src != e.address || !e.ports.Has(port) {
		e.t.Errorf("a packet of protocol %d to %v came from %v, port or identifier %d", p[9], dst, src, port)
		return nil
	}
	key := fmt.Sprintf("%d %v", p[9], dst)
	if e.seen[key] == nil {
		e.seen[key] = make(map[uint16]bool)
	}
	e.seen[key][port] = true
	if p[8] == 1 { // time exceeded
		quoted := p[:28]
		m := append([]byte{11, 0, 0, 0, 0, 0, 0, 0}, quoted...)
		binary.BigEndian.PutUint16(m[2:], checksum(m))
		return packet(unix.IPPROTO_ICMP, netip.MustParseAddr("203.0.113.1"), src, m)
	}
	switch p[9] {
	case unix.IPPROTO_UDP: // the same back: with ports exchanged, the checksum stays
		back := append([]byte(nil), l4...)
		copy(back, l4[2:4])
		copy(back[2:], l4[:2])
		return packet(unix.IPPROTO_UDP, dst, src, back)
	case unix.IPPROTO_TCP: // a reset
		back := make([]byte, 20)
		copy(back, l4[2:4])
		copy(back[2:], l4[:2])
		binary.BigEndian.PutUint32(back[8:], binary.BigEndian.Uint32(l4[4:])+1)
		back[12], back[13] = 5<<4, 0x14
		pseudo := append(append(append([]byte(nil), p[16:20]...), p[12:16]...), 0, unix.IPPROTO_TCP, 0, 20)
		binary.BigEndian.PutUint16(back[16:], checksum(append(pseudo, back...)))
		return packet(unix.IPPROTO_TCP, dst, src, back)
	case unix.IPPROTO_ICMP:
		back := append([]byte(nil), l4...)
		back[0], back[2], back[3] = 0, 0, 0
		binary.BigEndian.PutUint16(back[2:], checksum(back))
		return packet(unix.IPPROTO_ICMP, dst, src, back)
	}
	return nil
}

// packet returns an IPv4 packet.
func packet(protocol byte, src, dst netip.Addr, payload []byte) []byte {
	h := []byte{0x45, 0, 0, 0, 0, 0, 0, 0, 60, protocol, 0, 0}
	h = append(append(h, src.AsSlice()...), dst.AsSlice()...)
	binary.BigEndian.PutUint16(h[2:], uint16(20+len(payload)))
	binary.BigEndian.PutUint16(h[10:], checksum(h))
	return append(h, payload...)
}

func checksum(b []byte) uint16 {
	sum := uint32(0)
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	if len(b)%2 == 1 {
		sum += uint32(b[len(b)-1]) << 8
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// used returns how many different ports or identifiers came to a destination.
func (e *edge) used(protocol int, dst string) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.seen[fmt.Sprintf("%d %v", protocol, dst)])
}

const patience = 10 * time.Second

// udp sends a datagram from a new socket, and expects the same back.
func udp(dst string) error {
	c, err := net.Dial("udp4", dst)
	if err != nil {
		return err
	}
	defer c.Close()
	return echo(c)
}

func echo(c net.Conn) error {
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	if _, err := c.Write([]byte("hello")); err != nil {
		return err
	}
	if _, err := c.Read(make([]byte, 100)); err != nil {
		return fmt.Errorf("no answer of %v: %w", c.RemoteAddr(), err)
	}
	return nil
}

// Two customer edges with one address: thousands of flows of hosts behind them, of which none
// leaves the ports of its edge.
func TestShare(t *testing.T) {
	address := netip.MustParseAddr("192.0.2.18")
	for _, psid := range []uint16{0x34, 0xff} {
		t.Run(fmt.Sprintf("PSID %#x", psid), func(t *testing.T) {
			t.Parallel()
			e := newEdge(t, address, mape.Ports{Offset: 6, PSIDLen: 8, PSID: psid})
			must(t, e.host.Do(func() error { return e.flows() }))
			for _, c := range []struct {
				protocol int
				dst      string
			}{{unix.IPPROTO_UDP, "198.51.100.53"}, {unix.IPPROTO_ICMP, "198.51.100.7"}} {
				if n := e.used(c.protocol, c.dst); n != e.ports.Count() {
					t.Errorf("protocol %d: %d ports of %d were used", c.protocol, n, e.ports.Count())
				}
			}
			if n := e.used(unix.IPPROTO_UDP, "203.0.113.9"); n != 1 {
				t.Errorf("one socket had %d ports at three destinations, want one", n)
			}
			must(t, e.ce.Do(func() error { return udp("198.51.100.200:53") })) // the customer edge's own
			e.move()
			must(t, e.ce.Do(e.g.Close))
			if left := tableNames(t, e.ce); strings.Contains(left, "sixfour") {
				t.Errorf("after Close there is %s", left)
			}
		})
	}
}

// flows sends packets from the host behind the edge.
func (e *edge) flows() error {
	for i := range e.ports.Count() { // all ports at one destination
		from := &net.UDPAddr{IP: net.IPv4(192, 168, 0, 2), Port: 20000 + i} // each another, because translations outlive sockets
		c, err := net.DialUDP("udp4", from, &net.UDPAddr{IP: net.IPv4(198, 51, 100, 53), Port: 53})
		if err != nil {
			return err
		}
		err = echo(c)
		c.Close()
		if err != nil {
			return err
		}
	}
	for i := range 2000 {
		if err := udp(fmt.Sprintf("198.51.100.%d:53", 100+i%20)); err != nil {
			return err
		}
	}
	for range e.ports.Count() {
		c, err := net.DialTimeout("tcp4", "198.51.100.80:80", patience)
		if !errors.Is(err, unix.ECONNREFUSED) {
			if err == nil {
				c.Close()
			}
			return fmt.Errorf("TCP: %w", err)
		}
	}
	c, err := net.ListenUDP("udp4", nil)
	if err != nil {
		return err
	}
	defer c.Close()
	for port := range 3 { // one port for all destinations
		if _, err := c.WriteToUDP([]byte("hello"), &net.UDPAddr{IP: net.IPv4(203, 0, 113, 9), Port: 40000 + port}); err != nil {
			return err
		}
		_ = c.SetReadDeadline(time.Now().Add(patience))
		if _, err := c.Read(make([]byte, 100)); err != nil {
			return err
		}
	}
	icmp, err := net.ListenPacket("ip4:icmp", "192.168.0.2")
	if err != nil {
		return err
	}
	defer icmp.Close()
	for id := range e.ports.Count() {
		m := []byte{8, 0, 0, 0, byte(id >> 8), byte(id), 0, 1}
		binary.BigEndian.PutUint16(m[2:], checksum(m))
		if _, err := icmp.WriteTo(m, &net.IPAddr{IP: net.IPv4(198, 51, 100, 7)}); err != nil {
			return err
		}
		if err := expect(icmp, func(m []byte) bool { return m[0] == 0 && binary.BigEndian.Uint16(m[4:]) == uint16(id) }); err != nil {
			return fmt.Errorf("ping: %w", err)
		}
	}
	gre, err := net.Dial("ip4:47", "198.51.100.47") // has no ports: it must not leave
	if err != nil {
		return err
	}
	defer gre.Close()
	if _, err := gre.Write(make([]byte, 8)); err != nil {
		return err
	}
	return traceroute(icmp)
}

// traceroute expects the errors of two hops.
func traceroute(icmp net.PacketConn) error {
	c, err := net.DialUDP("udp4", nil, &net.UDPAddr{IP: net.IPv4(198, 51, 100, 99), Port: 33434})
	if err != nil {
		return err
	}
	defer c.Close()
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	local := uint16(c.LocalAddr().(*net.UDPAddr).Port)
	for ttl := 1; ttl <= 2; ttl++ {
		if e := raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_TTL, ttl) }); e != nil || err != nil {
			return errors.Join(e, err)
		}
		if _, err := c.Write([]byte("hello")); err != nil && !errors.Is(err, unix.EHOSTUNREACH) {
			return err
		}
		err := expect(icmp, func(m []byte) bool { // it quotes the packet as the host has sent it
			return m[0] == 11 && len(m) >= 36 && net.IP(m[20:24]).String() == "192.168.0.2" && binary.BigEndian.Uint16(m[28:]) == local
		})
		if err != nil {
			return fmt.Errorf("traceroute, TTL %d: %w", ttl, err)
		}
	}
	return nil
}

// expect reads until a message matches.
func expect(c net.PacketConn, match func([]byte) bool) error {
	_ = c.SetReadDeadline(time.Now().Add(patience))
	b := make([]byte, 2000)
	for {
		n, _, err := c.ReadFrom(b)
		if err != nil {
			return err
		}
		if n >= 8 && match(b[:n]) {
			return nil
		}
	}
}

// move gives the edge other ports: a socket that goes on sending gets one of them.
func (e *edge) move() {
	e.t.Helper()
	var c net.Conn
	must(e.t, e.host.Do(func() (err error) {
		c, err = net.Dial("udp4", "198.51.100.201:53")
		return err
	}))
	defer c.Close()
	must(e.t, echo(c))
	e.mu.Lock()
	e.ports.PSID ^= 1
	e.mu.Unlock()
	e.sync()
	must(e.t, echo(c))
}

// tableNames returns the names of a namespace's nftables tables.
func tableNames(t *testing.T, ns *rig.Namespace) (names string) {
	t.Helper()
	must(t, ns.Do(func() error {
		c, err := nftables.New()
		if err != nil {
			return err
		}
		list, err := c.ListTables()
		for _, table := range list {
			names += table.Name + " "
		}
		return err
	}))
	return names
}

// The extremes of port sets, and addresses that are not shared, are accepted by the kernel.
func TestShareSets(t *testing.T) {
	address := netip.MustParseAddr("192.0.2.18")
	for _, p := range []mape.Ports{{}, {PSIDLen: 1, PSID: 1}, {Offset: 4, PSIDLen: 12, PSID: 7}, {Offset: 12, PSIDLen: 2, PSID: 3}} {
		e := newEdge(t, address, p)
		must(t, e.host.Do(func() error { return errors.Join(udp("198.51.100.53:53"), udp("198.51.100.53:40000")) }))
		must(t, e.ce.Do(e.g.Close))
	}
}
