package e2e

import (
	"fmt"
	"net/netip"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"sixfour/internal/api"
	"sixfour/internal/rig"
)

// newBehindNAT is two hosts of which one is behind a 1:1 NAT, as on many clouds:
//
//	a 203.0.113.10/24 va ─── na  n  nb ─── vb b 192.168.9.2/24
//	                         203.0.113.20   192.168.9.1/24
func newBehindNAT(t *testing.T) hosts {
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
		chain in { type nat hook prerouting priority -100; iifname "na" ip daddr 203.0.113.20 dnat to 192.168.9.2; }
		chain out { type nat hook postrouting priority 100; oifname "na" ip saddr 192.168.9.2 snat to 203.0.113.20; }
	}`)
	return h
}

// command runs a program in a namespace.
func command(t *testing.T, ns *rig.Namespace, name string, args ...string) {
	t.Helper()
	cmd := exec.Command(name, args...)
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	must(t, ns.Start(cmd))
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%v: %v\n%s", cmd, err, out.String())
	}
}

// A peer behind a 1:1 NAT is up because it answers through the tunnel, whatever its inner
// address is. An operator's pings and the search for the path MTU are answered, too. The
// end behind the NAT is up as well, by keepalives that are returned to it.
func TestBehindNAT(t *testing.T) {
	const a, b = "local = \"203.0.113.10\"\nremote = \"203.0.113.20\"\n", "local = \"192.168.9.2\"\nremote = \"203.0.113.10\"\n"
	for _, k := range []struct{ mode, a, b string }{
		{"6in4", "address = [\"fc00::1/64\"]\n", "address = [\"fc00::2/64\"]\n"},
		{"6in4", "address = [\"fc00::1:1/64\"]\n", "address = [\"fc00::77/64\"]\n"},                      // only all nodes (ff02::1) finds it
		{"6in4", "address = [\"fc00::1/128\"]\nprobe = \"fc00::77\"\n", "address = [\"fc00::77/64\"]\n"}, // named
		{"4in4", "address = [\"10.0.0.7/24\"]\n", "address = [\"10.0.0.1/24\"]\n"},                       // by its subnet
		{"4in4", "address = [\"10.0.0.7/24\"]\nprobe = \"10.9.9.9\"\n", "address = [\"10.9.9.9/32\"]\n"}, // named, in none
		{"gre", "address = [\"10.0.0.7/32\"]\n", "address = [\"10.0.0.9/32\"]\n"},                        // by keepalives alone
		{"gre", "address = [\"10.0.0.7/32\"]\nkey = 5\n", "address = [\"10.0.0.9/32\"]\nkey = 5\n"},      // with a key
	} {
		t.Run(k.mode, func(t *testing.T) {
			t.Parallel()
			h := newBehindNAT(t)
			end := func(lines string) string {
				lines = fmt.Sprintf("[[tunnel]]\nname = \"six0\"\nmode = %q\n", k.mode) + lines + often + "\n"
				if k.mode == "4in4" {
					lines += "routes = [\"10.0.0.0/8\"]\n"
				}
				return lines
			}
			atB, atA := start(t, h.b, end(b+k.b)), start(t, h.a, end(a+k.a))
			atA.phase(t, api.Up)
			atA.waitInnerAnswer(t)
			if k.mode == "gre" {
				atA.waitKeepalive(t) // those of b are returned to it
				atB.waitKeepalive(t)
			}
			if k.mode != "4in4" {
				atB.waitInnerAnswer(t)
			}
			replies, err := atA.ask(t, api.PingRequest{Peer: "six0", Count: 1})
			if err != nil || len(replies) != 1 || replies[0].Lost {
				t.Errorf("%+v, %v", replies, err)
			}
			if k.mode == "6in4" {
				eventually(t, "the path's MTU is asked for", func() error {
					if _, s := atA.status(t); s.Probes.Answered == 0 {
						return fmt.Errorf("%+v", s.Probes)
					}
					return nil
				})
			}
		})
	}
}

// A peer that answers no probes, but has sent packets, may be idle: it is not down. When an
// ICMP error reports that the host is gone, it is down.
func TestIdlePeer(t *testing.T) {
	t.Parallel()
	h := newBehindNAT(t)
	must(t, h.b.Sysctl("net/ipv6/icmp/echo_ignore_all", "1"))
	const a, b = "local = \"203.0.113.10\"\nremote = \"203.0.113.20\"\n", "local = \"192.168.9.2\"\nremote = \"203.0.113.10\"\n"
	const six = "[[tunnel]]\nname = \"six0\"\nmode = \"6in4\"\n"
	atB := start(t, h.b, six+b+"address = [\"fc00::2/64\"]\nkeepalive = \"0s\"\n")
	atA := start(t, h.a, six+a+"address = [\"fc00::1/64\"]\n"+often+"\n")
	reachable(t, h.b, in6A)
	atA.phase(t, api.Up)
	var s api.TunnelStatus
	eventually(t, "it has lost more probes than those that make a peer down", func() error {
		if _, s = atA.status(t); s.State.Phase != api.Suspect || s.Liveness.Missed < 4 {
			return fmt.Errorf("%+v", s.Liveness)
		}
		return nil
	})
	if s.State.Phase != api.Suspect || s.LastDown != nil && s.LastDown.Until.IsZero() || !strings.Contains(s.State.Detail, "it has never answered") {
		t.Errorf("%+v, %+v", s.State, s.LastDown)
	}
	atB.end(t, syscall.SIGKILL)
	atA.phase(t, api.Down)
}
