package e2e

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sixfour/encap/header"
	"sixfour/encap/mape"
	"sixfour/internal/api"
	"sixfour/internal/rig"
)

// sharing is two customer edges with one IPv4 address, and what is behind them:
//
//	lan1 (192.168.0.2) ── edge1 ──┐
//	                              │ IPv6 only ── relay ── internet (198.51.100.2)
//	lan2 (192.168.0.2) ── edge2 ──┘
type sharing struct {
	lan, edge       [2]*rig.Namespace
	relay, internet *rig.Namespace
}

var (
	sharedAddress = netip.MustParseAddr("192.0.2.18")
	sharedPorts   = [2]mape.Ports{{Offset: 6, PSIDLen: 8, PSID: 0x34}, {Offset: 6, PSIDLen: 8, PSID: 0x35}}
	// The addresses of the edges, from RFC 7597 appendix A for the first one.
	edgeAddresses = [2]string{"2001:db8:12:3400:0:c000:212:34", "2001:db8:12:3500:0:c000:212:35"}
	edgePrefixes  = [2]string{"2001:db8:12:3400::/56", "2001:db8:12:3500::/56"}
	onInternet    = netip.MustParseAddr("198.51.100.2")
)

const (
	relay6    = "2001:db8:ffff::1"
	mapRules  = `rules = [{ ipv6 = "2001:db8::/40", ipv4 = "192.0.2.0/24", ea_bits = 16%s }]` + "\n"
	bindingOf = `{ ipv4 = "192.0.2.18", offset = 6, psid_len = 8, psid = %d, ipv6 = %q }`
)

func newSharing(t *testing.T) *sharing {
	t.Helper()
	n := &sharing{relay: newNamespace(t, "relay"), internet: newNamespace(t, "internet")}
	prefix := netip.MustParsePrefix
	must(t, rig.Veth(n.relay, "inet0", n.internet, "e0", 1500))
	must(t, n.relay.AddAddr("inet0", prefix("198.51.100.1/24")))
	must(t, n.internet.AddAddr("e0", prefix("198.51.100.2/24")))
	must(t, n.internet.AddRoute(prefix("192.0.2.0/24"), netip.MustParseAddr("198.51.100.1"), ""))
	must(t, n.relay.Forward())
	must(t, n.relay.AddAddr("lo", prefix(relay6+"/128")))
	for i := range 2 {
		n.lan[i], n.edge[i] = newNamespace(t, fmt.Sprintf("lan%d", i+1)), newNamespace(t, fmt.Sprintf("edge%d", i+1))
		must(t, rig.Veth(n.lan[i], "e0", n.edge[i], "lan0", 1500))
		must(t, n.lan[i].AddAddr("e0", prefix("192.168.0.2/24")))
		must(t, n.edge[i].AddAddr("lan0", prefix("192.168.0.1/24")))
		must(t, n.lan[i].AddRoute(prefix("0.0.0.0/0"), netip.MustParseAddr("192.168.0.1"), ""))
		wan := fmt.Sprintf("cust%d", i+1)
		must(t, rig.Veth(n.edge[i], "wan0", n.relay, wan, 1500))
		must(t, n.edge[i].AddAddr("wan0", prefix(edgeAddresses[i]+"/64")))
		gateway := netip.MustParseAddr(edgeAddresses[i]).Prev()
		must(t, n.relay.AddAddr(wan, netip.PrefixFrom(gateway, 64)))
		must(t, n.edge[i].AddRoute(prefix("::/0"), gateway, ""))
		must(t, n.edge[i].Forward())
	}
	return n
}

// lines of a tunnel for each role; %d and %s as in their use.
type sharingMode struct {
	name, relay string
	edge        func(i int) string
}

var sharingModes = []sharingMode{
	{"map_e", "role = \"br\"\n" + fmt.Sprintf(mapRules, ""), func(i int) string {
		return fmt.Sprintf("role = \"ce\"\nprefix = %q\nborder_relay = %q\n"+mapRules, edgePrefixes[i], relay6, "")
	}},
	{"map_e mesh", "role = \"br\"\n" + fmt.Sprintf(mapRules, ", forwarding = true"), func(i int) string {
		return fmt.Sprintf("role = \"ce\"\nprefix = %q\nborder_relay = %q\n"+mapRules, edgePrefixes[i], relay6, ", forwarding = true")
	}},
	{"lw4o6", fmt.Sprintf("role = \"aftr\"\nbindings = ["+bindingOf+", "+bindingOf+"]\n", 0x34, edgeAddresses[0], 0x35, edgeAddresses[1]), func(i int) string {
		return fmt.Sprintf("role = \"b4\"\nborder_relay = %q\nbindings = ["+bindingOf+"]\n", relay6, sharedPorts[i].PSID, edgeAddresses[i])
	}},
}

func (m sharingMode) tunnel(lines string) string {
	mode, _, _ := strings.Cut(m.name, " ")
	return fmt.Sprintf("[[tunnel]]\nname = \"map0\"\nmode = %q\n%s", mode, lines)
}

// Hosts behind two edges of one IPv4 address use the internet: TCP, UDP, ping and the errors of
// traceroute. No packet leaves the ports of its edge, the edges reach each other's forwarded
// ports, and nothing stays behind.
func TestSharedAddress(t *testing.T) {
	t.Parallel()
	for _, m := range sharingModes {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			n := newSharing(t)
			relay := start(t, n.relay, m.tunnel(m.relay+fmt.Sprintf("local = %q\n", relay6)))
			var edges [2]*daemon
			for i := range edges {
				edges[i] = start(t, n.edge[i], m.tunnel(m.edge(i)))
				reachable(t, n.lan[i], onInternet)
				edges[i].hasShare(t, sharedPorts[i])
				transfer(t, n.lan[i], n.internet, onInternet, 1<<20)
				n.traceroute(t, i)
			}
			n.flows(t)
			n.forwarded(t)
			if m.name == "map_e mesh" {
				relay.end(t, syscall.SIGTERM)
				n.forwarded(t) // directly
				relay = start(t, n.relay, m.tunnel(m.relay+fmt.Sprintf("local = %q\n", relay6)))
			}
			n.forge(t, relay)
			edges[0].end(t, syscall.SIGKILL)
			edges[1].end(t, syscall.SIGTERM)
			for i := range edges {
				if tables := n.nft(t, i, "list tables"); strings.Contains(tables, "sixfour") {
					t.Errorf("edge %d leaves %s", i+1, tables)
				}
			}
		})
	}
}

// hasShare checks what status says of the shared address.
func (d *daemon) hasShare(t *testing.T, p mape.Ports) {
	t.Helper()
	s, _ := d.status(t)
	if s.Gateway == nil || len(s.Gateway.Shares) != 1 {
		t.Fatalf("status has no share: %+v", s.Gateway)
	}
	share := s.Gateway.Shares[0]
	first := ""
	for r := range p.Ranges() {
		first = r.String()
		break
	}
	if share.State != api.GatewayActive || share.Address != sharedAddress.String() || share.PortCount != p.Count() || share.Ports[0] != first {
		t.Errorf("the share is %+v, want %d ports from %s", share, p.Count(), first)
	}
}

// traceroute expects the errors of the edge, the relay and, after the path, the answer.
func (n *sharing) traceroute(t *testing.T, i int) {
	t.Helper()
	for ttl := 1; ttl <= 2; ttl++ {
		eventually(t, fmt.Sprintf("the error of hop %d", ttl), func() error {
			res, err := rig.Ping(t.Context(), n.lan[i], onInternet, rig.PingOptions{TTL: ttl, Timeout: 500 * time.Millisecond})
			if err == nil && len(res.ICMP) == 0 {
				err = fmt.Errorf("%+v", res)
			}
			return err
		})
	}
}

// flows sends many datagrams from both sites, and checks from which ports they arrive.
func (n *sharing) flows(t *testing.T) {
	t.Helper()
	const perSite, sockets = 1000, 20
	var seen [2]map[uint16]bool
	for i := range seen {
		seen[i] = make(map[uint16]bool)
		var servers []*net.UDPConn
		for port := range sockets {
			c, err := n.internet.ListenUDP(netip.AddrPortFrom(onInternet, uint16(100+port)))
			must(t, err)
			defer c.Close()
			servers = append(servers, c)
		}
		must(t, n.lan[i].Do(func() error {
			for k := range perSite {
				c, err := net.Dial("udp4", fmt.Sprintf("%v:%d", onInternet, 100+k%sockets))
				if err != nil {
					return err
				}
				_, err = c.Write([]byte{byte(i)})
				c.Close()
				if err != nil {
					return err
				}
				b := make([]byte, 10)
				s := servers[k%sockets]
				must(t, s.SetReadDeadline(time.Now().Add(patience)))
				_, from, err := s.ReadFromUDPAddrPort(b)
				if err != nil {
					return fmt.Errorf("datagram %d: %w", k, err)
				}
				if from.Addr().Unmap() != sharedAddress || !sharedPorts[i].Has(from.Port()) {
					t.Errorf("a datagram of site %d came from %v", i+1, from)
				}
				seen[i][from.Port()] = true
			}
			return nil
		}))
		for _, s := range servers {
			s.Close()
		}
		if len(seen[i]) < 60 {
			t.Errorf("site %d used only %d ports", i+1, len(seen[i]))
		}
	}
}

// forwarded sends datagrams from the first site to a port that the second one forwards to its
// host. Both have the same IPv4 address.
func (n *sharing) forwarded(t *testing.T) {
	t.Helper()
	const port = 1236 // of PSID 0x35
	if !sharedPorts[1].Has(port) {
		t.Fatalf("port %d is not one of the second edge", port)
	}
	n.nft(t, 1, `table ip user {
		chain forwards { type nat hook prerouting priority dstnat; ip daddr 192.0.2.18 udp dport 1236 dnat to 192.168.0.2:7; }
	}`)
	defer n.nft(t, 1, "delete table ip user")
	c, err := n.lan[1].ListenUDP(netip.AddrPortFrom(netip.MustParseAddr("192.168.0.2"), 7))
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); _ = rig.ServeUDP(ctx, c) }()
	defer func() { cancel(); c.Close(); <-ended }()
	eventually(t, "datagrams to the other edge of the address", func() error {
		ds, err := rig.SendUDP(t.Context(), n.lan[0], netip.AddrPortFrom(sharedAddress, port), []int{100, 1400, 4000}, rig.UDPOptions{Timeout: time.Second})
		if err == nil && rig.Intact(ds) != 3 {
			err = fmt.Errorf("%d of 3 came back", rig.Intact(ds))
		}
		return err
	})
}

// forge sends the relay packets from the first edge with the port of the second one, with an
// address of another customer, and without a port.
func (n *sharing) forge(t *testing.T, relay *daemon) {
	t.Helper()
	before := relay.dropped(t, "spoof")
	udp := func(port uint16) []byte {
		b := make([]byte, header.UDPLen+4)
		binary.BigEndian.PutUint16(b, port)
		binary.BigEndian.PutUint16(b[2:], 9)
		binary.BigEndian.PutUint16(b[4:], uint16(len(b)))
		return b
	}
	other := netip.MustParseAddr("192.0.2.19")
	forged := [][]byte{
		ip4(sharedAddress, onInternet, unix.IPPROTO_UDP, udp(1236)),
		ip4(sharedAddress, onInternet, unix.IPPROTO_UDP, udp(80)),
		ip4(other, onInternet, unix.IPPROTO_UDP, udp(1232)),
		ip4(sharedAddress, onInternet, unix.IPPROTO_GRE, make([]byte, 8)),
	}
	must(t, n.edge[0].Do(func() error {
		c, err := net.DialIP("ip6:4", &net.IPAddr{IP: net.ParseIP(edgeAddresses[0])}, &net.IPAddr{IP: net.ParseIP(relay6)})
		if err != nil {
			return err
		}
		defer c.Close()
		for _, p := range forged {
			if _, err := c.Write(p); err != nil {
				return err
			}
		}
		return nil
	}))
	eventually(t, "forged packets are dropped as spoof", func() error {
		if got := relay.dropped(t, "spoof") - before; got != uint64(len(forged)) {
			return fmt.Errorf("%d of %d", got, len(forged))
		}
		return nil
	})
}

// dropped returns how many packets that arrived were dropped for a reason.
func (d *daemon) dropped(t *testing.T, reason string) uint64 {
	t.Helper()
	_, s := d.status(t)
	return s.In.Drops[reason]
}

// nft runs commands of nft in the namespace of an edge, and returns its output.
func (n *sharing) nft(t *testing.T, i int, commands string) string {
	t.Helper()
	cmd := exec.Command("nft", "-f", "-")
	var out strings.Builder
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(commands+"\n"), &out, &out
	must(t, n.edge[i].Start(cmd))
	if err := cmd.Wait(); err != nil {
		t.Fatalf("nft %s: %v\n%s", commands, err, out.String())
	}
	return out.String()
}
