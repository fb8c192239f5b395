package e2e

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sixfour/encap/header"
	"sixfour/internal/api"
	"sixfour/internal/ctl"
	"sixfour/internal/rig"
)

// uplinks is the network of tests with two paths:
//
//	namespace a                                namespace b
//	203.0.113.10/24  va ──────────────────── vb  203.0.113.20/24
//	198.51.100.10/24 wa ──────────────────── wb  198.51.100.20/24
func newUplinks(t *testing.T) hosts {
	t.Helper()
	h := newHosts(t, 1500)
	must(t, rig.Veth(h.a, "wa", h.b, "wb", 1500))
	must(t, h.a.AddAddr("wa", netip.MustParsePrefix("198.51.100.10/24")))
	must(t, h.b.AddAddr("wb", netip.MustParsePrefix("198.51.100.20/24")))
	must(t, h.a.LinkUp("wa"))
	must(t, h.b.LinkUp("wb"))
	return h
}

// twoPaths are lines of a configuration with two paths.
func twoPaths(self, other int) string {
	return fmt.Sprintf("keepalive = \"1s\"\ndead_after = 2\nselect = \"preferred\"\n[[tunnel.path]]\n[[tunnel.path]]\nlocal = \"198.51.100.%d0\"\nremote = \"198.51.100.%d0\"\n", self, other)
}

// notUp stands for any phase but up: a peer that has never answered a probe becomes suspect
// only, where one that has becomes down.
const notUp api.Phase = "not up"

// usesPath waits until packets use only the path of the given index, and the states of all
// paths are as given.
func (d *daemon) usesPath(t *testing.T, used int, phases ...api.Phase) {
	t.Helper()
	eventually(t, fmt.Sprintf("packets use path %d", used+1), func() error {
		_, s := d.status(t)
		if len(s.Paths) != len(phases) {
			return fmt.Errorf("paths: %+v", s.Paths)
		}
		for i, p := range s.Paths {
			if p.Used != (i == used) || p.State.Phase != phases[i] && (phases[i] != notUp || p.State.Phase == api.Up) {
				return fmt.Errorf("path %d is used: %v, and %s", i+1, p.Used, p.State.Phase)
			}
		}
		return nil
	})
}

// control returns the output of sixfourctl for the daemon.
func (d *daemon) control(t *testing.T, args ...string) string {
	t.Helper()
	var out strings.Builder
	cmd := ctl.Root()
	cmd.SetOut(&out)
	cmd.SetArgs(append(args, "--socket", d.socket))
	must(t, cmd.ExecuteContext(t.Context()))
	return out.String()
}

// With select = "preferred", packets go the second way while the first is down, without an
// answer or without a link, and back when it has been up for a while. No packet is lost when
// they go back.
func TestPreferredPath(t *testing.T) {
	t.Parallel()
	h := newUplinks(t)
	a := start(t, h.a, configA(twoPaths(1, 2)))
	b := start(t, h.b, configB(twoPaths(2, 1)))
	a.usesPath(t, 0, api.Up, api.Up)
	b.usesPath(t, 0, api.Up, api.Up)
	pings(t, h.a, inB, rig.PingOptions{})

	macs := map[*rig.Namespace]net.HardwareAddr{}
	for _, n := range []*rig.Namespace{h.a, h.b} {
		mac, err := n.MAC("v" + n.Name())
		must(t, err)
		macs[n] = mac
	}
	silence := func(on bool) {
		t.Helper()
		toA, toB := macs[h.a], macs[h.b]
		if on { // to a station that is not on the link
			toA, toB = net.HardwareAddr{2, 0, 0, 0, 0, 1}, net.HardwareAddr{2, 0, 0, 0, 0, 2}
		}
		must(t, h.a.AddNeighbour("va", outerB, toB))
		must(t, h.b.AddNeighbour("vb", outerA, toA))
	}
	silence(true)
	a.usesPath(t, 1, notUp, api.Up)
	b.usesPath(t, 1, notUp, api.Up)
	_, before := a.status(t)
	pings(t, h.a, inB, rig.PingOptions{Count: 20})
	_, after := a.status(t)
	if n := after.Paths[1].Out.Packets - before.Paths[1].Out.Packets; n < 20 {
		t.Errorf("the second path has carried %d packets, want 20 at least", n)
	}
	shown := regexp.MustCompile(`(?s)six0 +1 +- .*\n +not used for \S+: .*six0 +2 +100% +none +198\.51\.100\.10 +198\.51\.100\.20 +up .*\n +used for `)
	if table := a.control(t, "paths", "six0"); !shown.MatchString(table) {
		t.Errorf("sixfourctl paths shows\n%s", table)
	}

	done := make(chan rig.PingResult)
	silence(false)
	go func() {
		res, err := rig.Ping(t.Context(), h.a, inB, rig.PingOptions{Count: 700, Interval: 20 * time.Millisecond, Timeout: 2 * time.Second})
		if err != nil {
			t.Error(err)
		}
		done <- res
	}()
	a.usesPath(t, 0, api.Up, api.Up)
	b.usesPath(t, 0, api.Up, api.Up)
	if res := <-done; res.Received != res.Sent || res.Sent == 0 {
		t.Errorf("on the way back: %+v", res)
	}

	must(t, h.b.LinkDown("vb"))
	a.usesPath(t, 1, notUp, api.Up)
	pings(t, h.a, inB, rig.PingOptions{})
	must(t, h.b.LinkUp("vb"))
	must(t, h.b.AddNeighbour("vb", outerA, macs[h.a]))
	a.usesPath(t, 0, api.Up, api.Up)
	pings(t, h.a, inB, rig.PingOptions{})
}

// Reloads add a path, put it in front, and remove it. They change the tunnel in place: no
// packet is lost, and the counts of the path that stays and of the tunnel go on.
func TestReloadOfPaths(t *testing.T) {
	t.Parallel()
	const life, first = "keepalive = \"1s\"\ndead_after = 2\n", "[[tunnel.path]]\n"
	second := func(self, other int) string {
		return fmt.Sprintf("[[tunnel.path]]\nlocal = \"198.51.100.%d0\"\nremote = \"198.51.100.%d0\"\n", self, other)
	}
	both := func(self, other int) string { return life + first + second(self, other) }
	h := newUplinks(t)
	a := start(t, h.a, configA(life+first))
	b := start(t, h.b, configB(life+first))
	pings(t, h.a, inB, rig.PingOptions{})

	ctx, stop := context.WithCancel(t.Context())
	done := make(chan rig.PingResult)
	go func() {
		var all rig.PingResult
		for ctx.Err() == nil {
			res, err := rig.Ping(t.Context(), h.a, inB, rig.PingOptions{Count: 50, Interval: 10 * time.Millisecond, Timeout: 2 * time.Second})
			if err != nil {
				t.Error(err)
			}
			all.Sent, all.Received = all.Sent+res.Sent, all.Received+res.Received
		}
		done <- all
	}()
	var before api.TunnelStatus
	inPlace := func(step, ofA, ofB string) {
		t.Helper()
		for d, config := range map[*daemon]string{a: configA(ofA), b: configB(ofB)} {
			d.mustReload(t, config)
		}
		_, now := a.status(t)
		if now.Out.Packets < before.Out.Packets || now.In.Packets < before.In.Packets {
			t.Errorf("%s: the counts were %+v and %+v, now %+v and %+v", step, before.In, before.Out, now.In, now.Out)
		}
		before = now
	}
	_, before = a.status(t)
	atStart := before.Out.Packets
	inPlace("a second path", both(1, 2), both(2, 1))
	a.usesPath(t, 0, api.Up, api.Up)
	b.usesPath(t, 0, api.Up, api.Up)
	if _, s := a.status(t); s.Paths[0].Out.Packets < atStart || s.Paths[1].Out.Packets > s.Paths[0].Out.Packets {
		t.Errorf("%d packets at the start, then the paths have %+v", atStart, s.Paths)
	}
	inPlace("the second one first", life+second(1, 2)+first, both(2, 1))
	a.usesPath(t, 0, api.Up, api.Up)
	if _, s := a.status(t); s.Paths[1].Out.Packets < atStart {
		t.Errorf("%d packets at the start, then the paths have %+v", atStart, s.Paths)
	}
	inPlace("the second one second", both(1, 2), both(2, 1))
	a.usesPath(t, 0, api.Up, api.Up)
	inPlace("one path", life+first, life+first)
	if _, s := a.status(t); len(s.Paths) > 0 {
		t.Errorf("paths: %+v", s.Paths)
	}
	stop()
	if res := <-done; res.Received != res.Sent || res.Sent == 0 {
		t.Errorf("packets were lost: %+v", res)
	}
	s, _ := a.status(t)
	if s.Tunnels[0].Repairs != nil {
		t.Errorf("repairs: %v", s.Tunnels[0].Repairs)
	}
}

// Two daemons exchange packets over UDP, and nothing with protocol 4, 41 or 47, in each
// encapsulation, over both IP versions outside, with and without a checksum, and between
// different ports.
func TestInUDP(t *testing.T) {
	const fou, gue, greUDP = "[[tunnel.path]]\nencap = \"fou\"\n", "[[tunnel.path]]\nencap = \"gue\"\n", "[[tunnel.path]]\nencap = \"gre_udp\"\n"
	both := []netip.Addr{inB, in6B}
	for _, c := range []udpCase{
		{"fou 4in6in4", configA(fou), configB(fou), both, [2]bool{}},
		{"fou 6in4 between other ports", plainA(fou + "port = 5001\nlocal_port = 5002\n"), plainB(fou + "port = 5002\nlocal_port = 5001\n"), []netip.Addr{in6B}, [2]bool{}},
		{"fou 4in4 with a checksum one way", kind4in4.atA() + fou + "checksum = false\n", kind4in4.atB() + fou, kind4in4.toB, [2]bool{true, false}},
		{"fou 4in6", kind4in6.atA() + fou + "checksum = false\n", kind4in6.atB() + fou + "checksum = false\n", kind4in6.toB, [2]bool{}},
		{"fou 6in6", kind6in6.atA() + fou, kind6in6.atB() + fou, kind6in6.toB, [2]bool{}},
		{"fou gre", kindGRE.atA() + "key = 7\n" + fou, kindGRE.atB() + "key = 7\n" + fou, kindGRE.toB, [2]bool{}},
		{"fou gre6", kindGRE6.atA() + fou, kindGRE6.atB() + fou, kindGRE6.toB, [2]bool{}},
		{"gue 4in6in4", configA(gue), configB(gue), both, [2]bool{}},
		{"gue 6in4", plainA(gue), plainB(gue), []netip.Addr{in6B}, [2]bool{}},
		{"gue 4in6", kind4in6.atA() + gue, kind4in6.atB() + gue, kind4in6.toB, [2]bool{}},
		{"gue gre with everything", kindGRE.atA() + "key = 7\nchecksum = true\nsequence = true\n" + gue, kindGRE.atB() + "key = 7\nchecksum = true\nsequence = true\n" + gue, kindGRE.toB, [2]bool{}},
		{"gre_udp 4in6in4", configA(greUDP), configB(greUDP), both, [2]bool{}},
		{"gre_udp 6in4", plainA(greUDP), plainB(greUDP), []netip.Addr{in6B}, [2]bool{}},
		{"gre_udp 4in6", kind4in6.atA() + greUDP, kind4in6.atB() + greUDP, kind4in6.toB, [2]bool{}},
		{"gre_udp gre", kindGRE.atA() + greUDP, kindGRE.atB() + greUDP, kindGRE.toB, [2]bool{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			h := newHosts6(t)
			a := start(t, h.a, c.a)
			start(t, h.b, c.b)
			wire, err := h.b.Capture("vb")
			must(t, err)
			t.Cleanup(func() { wire.Close() })
			for _, to := range c.to {
				reachable(t, h.a, to)
				pings(t, h.a, to, rig.PingOptions{Count: 5, Size: 1200})
				pings(t, h.a, to, rig.PingOptions{Count: 5, Size: 3000})
			}
			frames, err := wire.Waiting()
			must(t, err)
			udp := 0
			for _, f := range frames {
				switch protocol, _ := outerProtocol(f.Packet()); protocol {
				case header.UDP:
					udp++
					c.checkChecksum(t, f.Packet())
				case header.ProtoIPv4, header.ProtoIPv6, header.GRE:
					t.Fatalf("protocol %d is on the wire: %x", protocol, f.Packet())
				}
			}
			if udp < 20 {
				t.Errorf("%d of %d packets on the wire are UDP", udp, len(frames))
			}
			transfer(t, h.a, h.b, c.to[0], 4<<20)
			if _, s := a.status(t); s.Out.Packets < 100 || s.State.Phase != api.Up {
				t.Errorf("%+v", s)
			}
		})
	}
}

// A reload that changes fwmark opens the port of UDP again at once, although the service
// manager has a copy of the former socket.
func TestFOUMark(t *testing.T) {
	t.Parallel()
	const path = "[[tunnel.path]]\nencap = \"fou\"\n"
	h := newHosts(t, 1500)
	a := managed(t, newManager(t), h.a, configA(path))
	start(t, h.b, configB(path))
	reachable(t, h.a, inB)
	for mark := range 3 {
		a.mustReload(t, configA(fmt.Sprintf("fwmark = %d", 7+mark), path))
		pings(t, h.a, inB, rig.PingOptions{})
	}
	if log := a.log.String(); strings.Contains(log, unix.EADDRINUSE.Error()) {
		t.Errorf("the former socket has the port:\n%s", log)
	}
}

// udpCase is a case of TestInUDP.
type udpCase struct {
	name, a, b string // configurations
	to         []netip.Addr
	none       [2]bool // a, b send without checksum
}

// checkChecksum checks whether a UDP packet has a checksum.
func (c *udpCase) checkChecksum(t *testing.T, pkt []byte) {
	t.Helper()
	want, at := true, header.IPv6Len
	if header.Version(pkt) == 4 {
		ip := header.IPv4(pkt)
		at = ip.HeaderLen()
		from := 1
		if ip.Src() == outerA {
			from = 0
		}
		want = !c.none[from]
	}
	if got := pkt[at+6]|pkt[at+7] != 0; got != want {
		t.Errorf("has a checksum: %v, want %v: %x", got, want, pkt[:at+header.UDPLen])
	}
}

// outerProtocol returns the protocol of an IP packet, and whether it is one.
func outerProtocol(pkt []byte) (byte, bool) {
	switch {
	case len(pkt) >= header.IPv4Len && header.Version(pkt) == 4:
		return header.IPv4(pkt).Protocol(), true
	case len(pkt) >= header.IPv6Len && header.Version(pkt) == 6:
		up, ok := header.FindUpper(header.IPv6(pkt))
		return up.Protocol, ok
	}
	return 0, false
}

// A reload gives a tunnel a second path, and takes it away: packets pass each time, and what
// the second path has carried still counts. Without probes, packets return to the first path,
// too.
func TestPathsReloaded(t *testing.T) {
	t.Parallel()
	h := newUplinks(t)
	const quiet = "keepalive = \"0s\"\n"
	second := func(self, other int) string {
		return fmt.Sprintf("[[tunnel.path]]\n[[tunnel.path]]\nlocal = \"198.51.100.%d0\"\nremote = \"198.51.100.%d0\"\n", self, other)
	}
	a := start(t, h.a, configA(quiet))
	b := start(t, h.b, configB(quiet))
	reachable(t, h.a, inB)
	var past uint64 // packets on paths that were removed
	for range 2 {
		a.mustReload(t, configA(quiet, second(1, 2)))
		b.mustReload(t, configB(quiet, second(2, 1)))
		a.usesPath(t, 0, api.Up, api.Up)
		reachable(t, h.a, inB)

		must(t, h.a.LinkDown("va"))
		a.usesPath(t, 1, notUp, api.Up)
		must(t, h.b.LinkDown("vb"))
		b.usesPath(t, 1, notUp, api.Up)
		reachable(t, h.a, inB)
		must(t, h.a.LinkUp("va"))
		must(t, h.b.LinkUp("vb"))
		a.usesPath(t, 0, api.Up, api.Up)
		reachable(t, h.a, inB)
		_, s := a.status(t)
		if n := s.Paths[0].Out.Packets + s.Paths[1].Out.Packets; n+past != s.Out.Packets {
			t.Errorf("the paths have carried %d packets, those removed %d, and all together %d", n, past, s.Out.Packets)
		}
		if past += s.Paths[1].Out.Packets; past == 0 {
			t.Error("the second path has carried nothing")
		}

		a.mustReload(t, configA(quiet))
		b.mustReload(t, configB(quiet))
		reachable(t, h.a, inB)
	}
}

// Of each path it is measured whether congestion marks reach the peer. One that removes them
// is reported, and the other one is not.
func TestMarksOfPaths(t *testing.T) {
	t.Parallel()
	for name, lines := range map[string]func(self, other int) string{
		"protocol 41": twoPaths,
		"fou": func(self, other int) string {
			return strings.ReplaceAll(twoPaths(self, other), "[[tunnel.path]]\n", "[[tunnel.path]]\nencap = \"fou\"\n")
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newUplinks(t)
			a := start(t, h.a, configA(lines(1, 2)))
			command(t, h.b, "nft", "table ip f { chain c { type filter hook prerouting priority -300; ip saddr 203.0.113.10 ip ecn set not-ect; }; }")
			b := start(t, h.b, configB(lines(2, 1)))
			marks := func(d *daemon, want ...api.Marks) {
				t.Helper()
				eventually(t, fmt.Sprintf("marks are %v", want), func() error {
					_, s := d.status(t)
					for i, w := range want {
						if len(s.Paths) != len(want) || s.Paths[i].Liveness.Marks != w {
							return fmt.Errorf("%+v", s.Paths)
						}
					}
					return nil
				})
			}
			marks(a, api.MarksRemoved, api.MarksKept)
			marks(b, api.MarksKept, api.MarksKept)
			a.wait(t, "ECN congestion marks do not reach the peer")
			if table := a.control(t, "paths"); strings.Count(table, "ECN congestion marks do not reach the peer") != 1 {
				t.Errorf("sixfourctl paths shows\n%s", table)
			}
			command(t, h.b, "nft", "delete table ip f")
			marks(a, api.MarksKept, api.MarksKept)
		})
	}
}
