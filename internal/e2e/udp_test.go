package e2e

import (
	"fmt"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"sixfour/internal/api"
	"sixfour/internal/rig"
)

// in returns the kind in an encapsulation in UDP, which has n bytes of headers.
func (k kind) in(encap string, n int) kind {
	k = k.with(" in "+encap, "[[tunnel.path]]\nencap = \""+encap+"\"\n")
	k.over, k.wire = k.over+n, nil
	return k
}

// Tunnels in UDP, in which every encapsulation and IP version is there.
var kindsInUDP = []kind{
	kind4in4.in("fou", 8), kind4in6.in("gue", 12), kindGRE.in("gre_udp", 8), kindGRE6.in("fou", 8), kind6in6.in("gre_udp", 12),
}

// Path MTU as in TestNarrowModes, in UDP: a router's error is read and relayed, whatever the
// source port is, and the MTU is right to the byte.
func TestNarrowInUDP(t *testing.T) {
	t.Parallel()
	for _, k := range kindsInUDP {
		t.Run(k.name, func(t *testing.T) {
			t.Parallel()
			n, _ := newRouted6(t)
			n.narrow(t, 1400)
			a, b := k.pair(t, n.a, n.b)
			for i, to := range k.toB {
				waitTooBig(t, n.a, to, k.largest(1500, to), 1400-k.over)
				pings(t, n.a, to, rig.PingOptions{Size: k.largest(1400, to), DF: true})
				transfer(t, n.a, n.b, to, 5<<20)
				transfer(t, n.b, n.a, k.toA[i], 5<<20)
				waitTooBig(t, n.b, k.toA[i], k.largest(1500, to), 1400-k.over)
				pings(t, n.a, to, rig.PingOptions{Size: 4000})
			}
			a.waitPathMTU(t, 1400, 1400)
			b.waitPathMTU(t, 1400, 1400)
			if _, s := a.status(t); s.State.TunnelMTU != 1500-k.over || s.ICMP.Received == 0 || s.ICMP.Ignored != 0 {
				t.Errorf("%+v, %+v", s.State, s.ICMP)
			}
		})
	}
}

// The inner sender is told that packets in UDP do not arrive, because the host is gone, its
// port is closed, or the TTL is too small.
func TestUnreachableInUDP(t *testing.T) {
	t.Parallel()
	for _, k := range kindsInUDP {
		for _, c := range []struct {
			name string
			keys string // of a
			fail func(t *testing.T, n routed, b *daemon)
		}{
			{"host", "", func(t *testing.T, n routed, _ *daemon) { must(t, n.b.LinkDown("vb")) }},
			{"port", "", func(t *testing.T, _ routed, b *daemon) { b.end(t, syscall.SIGTERM) }},
			{"TTL", "ttl = 1\n", func(*testing.T, routed, *daemon) {}},
		} {
			t.Run(k.name+", "+c.name, func(t *testing.T) {
				t.Parallel()
				n, _ := newRouted6(t)
				if c.keys != "" && strings.Contains(k.a, over6) {
					c.keys = "hop_limit = 1\n"
				}
				a := start(t, n.a, strings.Replace(k.atA(), "[[tunnel.path]]", c.keys+"[[tunnel.path]]", 1))
				b := start(t, n.b, k.atB())
				if c.keys == "" {
					reachable(t, n.a, k.toB[0])
				}
				c.fail(t, n, b)
				for _, to := range k.toB {
					eventually(t, fmt.Sprintf("the sender of packets to %v is told", to), func() error {
						res, err := rig.Ping(t.Context(), n.a, to, rig.PingOptions{Size: 500, Count: 3, Timeout: 2 * time.Second})
						must(t, err)
						for _, e := range res.ICMP {
							if to.Is4() && e.Type == 3 && e.Code == 1 || to.Is6() && e.Type == 1 && e.Code == 3 {
								return nil
							}
						}
						return fmt.Errorf("%+v", res)
					})
				}
				if _, s := a.status(t); s.ICMP.Received == 0 || s.ICMP.Sent == 0 {
					t.Errorf("%+v", s.ICMP)
				}
			})
		}
	}
}

// newMasqueraded is two hosts of which one is behind a NAT that forgets a flow of UDP after
// three seconds, and that answers nothing itself:
//
//	a 203.0.113.10/24 va ─── na  n  nb ─── vb b 192.168.9.2/24
//	                         203.0.113.20   192.168.9.1/24
func newMasqueraded(t *testing.T) hosts {
	t.Helper()
	h := hosts{newNamespace(t, "a"), newNamespace(t, "b")}
	n := newNamespace(t, "n")
	must(t, rig.Veth(h.a, "va", n, "na", 1500))
	must(t, rig.Veth(n, "nb", h.b, "vb", 1500))
	for _, l := range []struct {
		ns        *rig.Namespace
		dev, addr string
	}{{h.a, "va", "203.0.113.10/24"}, {n, "na", "203.0.113.20/24"}, {n, "nb", "192.168.9.1/24"}, {h.b, "vb", "192.168.9.2/24"}} {
		must(t, l.ns.AddAddr(l.dev, netip.MustParsePrefix(l.addr)))
		must(t, l.ns.LinkUp(l.dev))
	}
	must(t, h.b.AddRoute(netip.MustParsePrefix("0.0.0.0/0"), netip.MustParseAddr("192.168.9.1"), "vb"))
	must(t, n.Forward())
	command(t, n, "nft", `table ip nat {
		chain in { type filter hook input priority 0; policy drop; }
		chain pass { type filter hook forward priority 0; policy drop; iifname "nb" accept; ct state established accept; }
		chain out { type nat hook postrouting priority 100; oifname "na" masquerade; }
	}`)
	for _, s := range []string{"nf_conntrack_udp_timeout", "nf_conntrack_udp_timeout_stream"} {
		must(t, n.Sysctl("net/netfilter/"+s, "3"))
	}
	return h
}

// Keepalives keep a NAT open for the other end's packets, in each encapsulation whose packets
// leave from the port at which they arrive. Without keepalives it closes.
func TestKeepaliveThroughNAT(t *testing.T) {
	t.Parallel()
	for _, encap := range []string{"fou", "gue", "gre_udp"} {
		for _, keepalive := range []string{"1s", "0s"} {
			t.Run(encap+", keepalive "+keepalive, func(t *testing.T) {
				t.Parallel()
				h := newMasqueraded(t)
				end := func(n int, ends, keepalive string) string {
					return fmt.Sprintf("[[tunnel]]\nname = \"six0\"\nmode = \"6in4\"\n%s\naddress = [\"fc00::%d/64\"]\nkeepalive = %q\n[[tunnel.path]]\nencap = %q\nsource_port = \"local\"\n", ends, n, keepalive, encap)
				}
				start(t, h.a, end(1, "local = \"203.0.113.10\"\nremote = \"203.0.113.20\"", "0s"))
				start(t, h.b, end(2, "local = \"192.168.9.2\"\nremote = \"203.0.113.10\"", keepalive))
				reachable(t, h.b, in6A)
				time.Sleep(8 * time.Second) // the NAT forgets what is idle
				res, err := rig.Ping(t.Context(), h.a, in6B, rig.PingOptions{Count: 3, Timeout: time.Second})
				must(t, err)
				if want := map[string]int{"1s": 3, "0s": 0}[keepalive]; res.Received != want {
					t.Errorf("%d of 3 pings through the NAT are answered, want %d", res.Received, want)
				}
			})
		}
	}
}

// Tunnels in UDP alone need no CAP_NET_RAW: packets of all sizes pass, the path MTU is found by
// probes, inner senders are told of it, and a peer that is gone is down. A tunnel with raw sockets is refused, at the start
// and by a reload.
func TestWithoutRawSockets(t *testing.T) {
	t.Parallel()
	without := []string{"setpriv", "--bounding-set=-net_raw", "--inh-caps=-all", program}
	for _, k := range []kind{kind4in4.in("fou", 8), kind4in6.in("gue", 12), kindGRE.in("fou", 8)} {
		t.Run(k.name, func(t *testing.T) {
			t.Parallel()
			n, _ := newRouted6(t)
			n.narrow(t, 1400)
			config := strings.Replace(k.atA(), "[[tunnel.path]]", often+"\n[[tunnel.path]]", 1)
			a := launchBy(t, n.a, config, nil, without)
			a.wait(t, "ready")
			b := start(t, n.b, k.atB())
			for i, to := range k.toB {
				reachable(t, n.a, to)
				transfer(t, n.a, n.b, to, 2<<20)
				transfer(t, n.b, n.a, k.toA[i], 2<<20)
				waitTooBig(t, n.a, to, k.largest(1500, to), 1400-k.over)
				waitTooBig(t, n.b, k.toA[i], k.largest(1500, to), 1400-k.over)
				pings(t, n.a, to, rig.PingOptions{Size: 4000})
			}
			a.waitPathMTU(t, 1400, 1400, "probe")
			s, _ := a.status(t)
			if s.Sandbox == nil || strings.Join(s.Sandbox.Capabilities, " ") != "cap_net_admin" {
				t.Errorf("%+v", s.Sandbox)
			}
			a.wait(t, "without CAP_NET_RAW, ICMP errors")
			a.mustReload(t, config+"weight = 1\n")
			for _, raw := range []string{strings.Replace(config, "[[tunnel.path]]", "[[tunnel.path]]\n[[tunnel.path]]", 1), config + "source_port = \"flow\"\n"} {
				if r := a.reload(t, raw); !strings.Contains(r.Error, "CAP_NET_RAW") {
					t.Errorf("reload: %+v", r)
				}
			}
			a.write(t, config)
			b.end(t, syscall.SIGTERM)
			a.phase(t, api.Down)
			if code := a.end(t, syscall.SIGTERM); code != 0 {
				t.Errorf("exit status %d", code)
			}
		})
	}
	for name, config := range map[string]string{
		"protocol 4": kind4in4.atA(), "a source port for each flow": kindGRE.in("gre_udp", 8).atA(),
		"no checksum": kind4in4.in("fou", 8).atA() + "checksum = false\n",
	} {
		t.Run(name, func(t *testing.T) {
			d := launchBy(t, newNamespace(t, "a"), config, nil, without)
			if code := d.exit(t); code == 0 || !strings.Contains(d.log.String(), "CAP_NET_RAW") {
				t.Errorf("exit status %d:\n%s", code, d.log.String())
			}
		})
	}
}
