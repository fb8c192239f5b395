package broker

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"

	"sixfour/encap/drop"
	"sixfour/encap/header"
	"sixfour/encap/icmp"
	"sixfour/internal/config"
	"sixfour/internal/config/mechanism"
	"sixfour/internal/engine"
	"sixfour/internal/readiness"
	"sixfour/internal/rig"
	"sixfour/internal/rig/rigtest"
	"sixfour/transport/access"
)

// wayEnv makes the test program the server of TestWay, at an address and port.
const wayEnv = "SIXFOUR_TEST_BROKER_WAY"

func TestMain(m *testing.M) {
	if at := os.Getenv(wayEnv); at != "" {
		if err := serveWay(at); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// plain is a link of a protocol without any header: a datagram of UDP is an inner packet.
type plain struct {
	conn *net.UDPConn
	to   netip.AddrPort
}

func (l *plain) Send(b []byte) error {
	_, err := l.conn.WriteToUDPAddrPort(b, l.to)
	return err
}

func (l *plain) End(*access.Refusal) {}

// serveWay runs an engine with the tunnel of a broker, and a server of a protocol whose
// clients have one of two prefixes by their ports.
func serveWay(at string) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	log := zap.NewNop()
	if os.Getenv("SIXFOUR_TEST_LOG") != "" {
		log, _ = zap.NewDevelopment()
	}
	clients := access.NewClients()
	b := &config.Broker{Interface: "six0", MTU: 1280, Pool: []netip.Prefix{netip.MustParsePrefix("2001:db8:100::/40")}}
	e, err := engine.New(&config.Config{Broker: *b, Tunnels: []config.Tunnel{mechanism.BrokerTunnel(b, clients.Table, clients)}}, log)
	if err != nil {
		return err
	}
	conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(at)))
	if err != nil {
		return err
	}
	go func() {
		known := map[netip.AddrPort]*access.Attached{}
		var mu sync.Mutex
		buf := make([]byte, 65536)
		for {
			n, from, err := conn.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			mu.Lock()
			a := known[from]
			mu.Unlock()
			if a == nil {
				prefix := netip.MustParsePrefix(fmt.Sprintf("2001:db8:100:%d::/64", from.Port()))
				if a, err = clients.Attach(prefix, netip.Addr{}, &plain{conn, from}); err != nil {
					fmt.Fprintln(os.Stderr, err)
					return
				}
				mu.Lock()
				known[from] = a
				mu.Unlock()
			}
			if r := a.Receive(buf[:n]); r != drop.None {
				fmt.Fprintln(os.Stderr, from, r)
			}
		}
	}()
	return e.Run(ctx, func(s readiness.Summary) { fmt.Printf("ready %v\n", s.Waiting) })
}

// The way of packets, without any of the protocols: what a client sends comes out of the
// interface of an automatic tunnel, and what goes to its prefix reaches its link.
func TestWay(t *testing.T) {
	//	client                    server                           router
	//	203.0.113.20 c ──── s 203.0.113.10, r 2001:db8:1::1 ──── u 2001:db8:1::2
	client, server, router := rigtest.Namespace(t, "client"), rigtest.Namespace(t, "server"), rigtest.Namespace(t, "router")
	must := func(err error) { t.Helper(); rigtest.Must(t, err) }
	must(rig.Veth(client, "c", server, "s", 1500))
	must(rig.Veth(server, "r", router, "u", 1500))
	must(client.AddAddr("c", netip.MustParsePrefix("203.0.113.20/24")))
	must(server.AddAddr("s", netip.MustParsePrefix("203.0.113.10/24")))
	must(server.AddAddr("r", netip.MustParsePrefix("2001:db8:1::1/64")))
	must(router.AddAddr("u", netip.MustParsePrefix("2001:db8:1::2/64")))
	for _, l := range []struct {
		ns  *rig.Namespace
		dev string
	}{{client, "c"}, {server, "s"}, {server, "r"}, {router, "u"}} {
		must(l.ns.LinkUp(l.dev))
	}
	must(server.Forward())
	must(router.AddRoute(netip.MustParsePrefix("2001:db8:100::/40"), netip.MustParseAddr("2001:db8:1::1"), "u"))
	at := netip.MustParseAddrPort("203.0.113.10:7000")
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), wayEnv+"="+at.String())
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	must(err)
	must(server.Start(cmd))
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	ready := make([]byte, 200)
	n, err := out.Read(ready)
	must(err)
	if got := string(ready[:n]); got != "ready []\n" {
		t.Fatalf("the tunnel waits: %s", got)
	}
	first, second := dialWay(t, client, 5001, at), dialWay(t, client, 5002, at)
	dst := netip.MustParseAddr("2001:db8:1::2")
	for range 3 { // also back
		for _, c := range []*net.UDPConn{first, second} {
			from := netip.MustParseAddr(fmt.Sprintf("2001:db8:100:%d::1", netip.MustParseAddrPort(c.LocalAddr().String()).Port()))
			exchange(t, c, echo(from, dst), dst, from)
		}
	}
	// From one client to the other, through the kernel.
	a, b := netip.MustParseAddr("2001:db8:100:5001::1"), netip.MustParseAddr("2001:db8:100:5002::1")
	exchangeWith(t, first, second, echo(a, b), a, b)
	// What a client forges does not arrive, and is answered by nobody.
	_, err = first.Write(echo(b, dst))
	must(err)
	exchange(t, first, echo(a, dst), dst, a)
	must(second.SetReadDeadline(time.Now().Add(200 * time.Millisecond)))
	if n, err := second.Read(make([]byte, 2000)); err == nil {
		t.Errorf("%d bytes for a forged packet", n)
	}
}

func dialWay(t *testing.T, ns *rig.Namespace, port uint16, to netip.AddrPort) *net.UDPConn {
	t.Helper()
	var c *net.UDPConn
	rigtest.Must(t, ns.Do(func() (err error) {
		c, err = net.DialUDP("udp", &net.UDPAddr{Port: int(port)}, net.UDPAddrFromAddrPort(to))
		return err
	}))
	t.Cleanup(func() { c.Close() })
	return c
}

// echo returns an echo request.
func echo(src, dst netip.Addr) []byte {
	b := make([]byte, header.IPv6Len+8, header.IPv6Len+8)
	b[0], b[5], b[6], b[7] = 0x60, 8, header.ICMPv6, 64
	copy(b[8:], src.AsSlice())
	copy(b[24:], dst.AsSlice())
	b[40] = icmp.EchoRequest6
	b[45], b[47] = 7, 1
	sum := header.Sum(b[40:], uint32(header.PseudoSum(src.AsSlice(), dst.AsSlice(), 8, header.ICMPv6)))
	b[42], b[43] = byte(^sum>>8), byte(^sum)
	return b
}

// exchange sends a packet, and waits for one with the given addresses.
func exchange(t *testing.T, c *net.UDPConn, packet []byte, src, dst netip.Addr) {
	t.Helper()
	exchangeWith(t, c, c, packet, src, dst)
}

func exchangeWith(t *testing.T, from, to *net.UDPConn, packet []byte, src, dst netip.Addr) {
	t.Helper()
	b := make([]byte, 2000)
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); {
		_, err := from.Write(packet)
		rigtest.Must(t, err)
		for {
			rigtest.Must(t, to.SetReadDeadline(time.Now().Add(500*time.Millisecond)))
			n, err := to.Read(b)
			if err != nil {
				break
			}
			if ip := header.IPv6(b[:n]); n >= header.IPv6Len && ip.Src() == src && ip.Dst() == dst {
				return
			}
		}
	}
	t.Fatalf("no packet from %v to %v", src, dst)
}
