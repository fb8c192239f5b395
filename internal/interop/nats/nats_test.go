package nats

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"sixfour/internal/rig"
	"sixfour/internal/rig/rigtest"
)

// The programs that are tested: sixfourd and sixfourctl.
var program, doctor string

func TestMain(m *testing.M) {
	for _, name := range []string{"miredo", "miredo-server", "nft"} {
		if _, err := exec.LookPath(name); err != nil {
			fmt.Fprintln(os.Stderr, "the tests of Teredo need miredo, miredo-server and nft: apt-get install miredo miredo-server nftables:", err)
			os.Exit(1)
		}
	}
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "sixfour-miredo")
		if err == nil {
			defer os.RemoveAll(dir)
			program, err = rig.Build(dir, "sixfour/cmd/sixfourd")
		}
		if err == nil {
			doctor, err = rig.Build(dir, "sixfour/cmd/sixfourctl")
		}
		if err == nil {
			err = flag.Set("test.parallel", "8") // they wait most of their time
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return m.Run()
	}())
}

const patience = 25 * time.Second

// eventually calls f until it returns nil.
func eventually(t *testing.T, what string, f func() error) {
	t.Helper()
	var err error
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if err = f(); err == nil {
			return
		}
	}
	t.Fatalf("%s: %v", what, err)
}

// internet is the network of all tests. i is a router; a and b are hosts behind the NATs na
// and nb, or have an address outside; h is a native host behind the relay r.
//
//	s 198.51.100.120, .121 ── i ── r 198.51.100.9 ── h 2001:db8:ff::80
//	                          │
//	    na 203.0.113.5 ───────┴─────── nb 203.0.113.13
//	a 10.0.0.5 ──┘                       └── b 10.0.1.5
type internet struct {
	t                *testing.T
	i, s, r, h, a, b *rig.Namespace
	boxes            map[string]*rig.Namespace // the NATs, by the name of the host
}

// program or role: who plays it.
type who string

const (
	ours   who = "sixfour"
	theirs who = "miredo"
)

var native = netip.MustParseAddr("2001:db8:ff::80")

func newInternet(t *testing.T, natA, natB string) *internet {
	t.Helper()
	n := &internet{t: t, boxes: make(map[string]*rig.Namespace)}
	for name, ns := range map[string]**rig.Namespace{"i": &n.i, "s": &n.s, "r": &n.r, "h": &n.h, "a": &n.a, "b": &n.b} {
		*ns = rigtest.Namespace(t, name)
	}
	for _, ns := range []*rig.Namespace{n.i, n.s, n.r} {
		rigtest.Must(t, ns.Forward())
	}
	n.wire(n.i, "is", n.s, "s0", []string{"198.51.100.113/28", "2001:db8:1::1/64"}, []string{"198.51.100.120/28", "198.51.100.121/28", "2001:db8:1::2/64"})
	n.wire(n.i, "ir", n.r, "r0", []string{"198.51.100.10/29", "2001:db8:2::1/64"}, []string{"198.51.100.9/29", "2001:db8:2::2/64"})
	n.wire(n.r, "rh", n.h, "h0", []string{"2001:db8:ff::1/64"}, []string{"2001:db8:ff::80/64"})
	n.route(n.s, "0.0.0.0/0", "198.51.100.113", "s0")
	n.route(n.s, "::/0", "2001:db8:1::1", "s0")
	n.route(n.r, "0.0.0.0/0", "198.51.100.10", "r0")
	n.route(n.r, "::/0", "2001:db8:2::1", "r0")
	n.route(n.i, "2001:db8:ff::/64", "2001:db8:2::2", "ir")
	n.route(n.h, "::/0", "2001:db8:ff::1", "h0")
	n.site(n.a, "a", natA, "203.0.113.5/29", "203.0.113.1", "10.0.0.5/24", "10.0.0.1")
	n.site(n.b, "b", natB, "203.0.113.13/29", "203.0.113.9", "10.0.1.5/24", "10.0.1.1")
	return n
}

func (n *internet) wire(x *rig.Namespace, dx string, y *rig.Namespace, dy string, ax, ay []string) {
	n.t.Helper()
	rigtest.Must(n.t, rig.Veth(x, dx, y, dy, 1500))
	for _, end := range []struct {
		ns   *rig.Namespace
		dev  string
		list []string
	}{{x, dx, ax}, {y, dy, ay}} {
		for _, a := range end.list {
			rigtest.Must(n.t, end.ns.AddAddr(end.dev, netip.MustParsePrefix(a)))
		}
		rigtest.Must(n.t, end.ns.LinkUp(end.dev))
	}
}

func (n *internet) route(ns *rig.Namespace, to, via, dev string) {
	n.t.Helper()
	rigtest.Must(n.t, ns.AddRoute(netip.MustParsePrefix(to), netip.MustParseAddr(via), dev))
}

// The rules of NATs, for one host behind each. Without input policy drop a packet to a port
// without a mapping would get an entry in the table of connections, and the host another port.
var nats = map[string]string{
	"port-restricted": `table ip nat {
		chain out { type nat hook postrouting priority 100; oifname "out" masquerade; }
	}`,
	"symmetric": `table ip nat {
		chain out { type nat hook postrouting priority 100; oifname "out" masquerade fully-random; }
	}`,
	"full cone": `table ip nat {
		chain in { type nat hook prerouting priority -100; fib daddr type local meta l4proto udp dnat to HOST; }
		chain out { type nat hook postrouting priority 100; ip saddr 10.0.0.0/8 masquerade; }
	}`,
	"restricted": `table ip nat {
		set known { type ipv4_addr; flags dynamic,timeout; timeout 5m; }
		chain note { type filter hook forward priority 0; iifname "in" update @known { ip daddr }; }
		chain in { type nat hook prerouting priority -100; iifname "out" ip saddr @known meta l4proto udp dnat to HOST; }
		chain out { type nat hook postrouting priority 100; oifname "out" masquerade; }
	}`,
}

// site connects a host to the router, through a NAT or, with none, directly.
func (n *internet) site(host *rig.Namespace, name, nat, outside, gateway, inside, natInside string) {
	n.t.Helper()
	bits := outside[strings.Index(outside, "/"):]
	if nat == "none" {
		n.wire(n.i, "i"+name, host, "h0", []string{gateway + bits}, []string{outside})
		n.route(host, "0.0.0.0/0", gateway, "h0")
		return
	}
	box := rigtest.Namespace(n.t, "n"+name)
	n.boxes[name] = box
	rigtest.Must(n.t, box.Forward())
	n.wire(n.i, "i"+name, box, "out", []string{gateway + bits}, []string{outside})
	n.wire(box, "in", host, "h0", []string{natInside + "/24"}, []string{inside})
	n.route(box, "0.0.0.0/0", gateway, "out")
	n.route(host, "0.0.0.0/0", natInside, "h0")
	rules := strings.ReplaceAll(nats[nat], "HOST", strings.TrimSuffix(inside, "/24"))
	n.command(box, "nft", rules+`
	table ip filter {
		chain input { type filter hook input priority 0; policy drop; }
	}`)
}

func (n *internet) command(ns *rig.Namespace, name string, args ...string) {
	n.t.Helper()
	cmd := exec.Command(name, args...)
	var out rig.Log
	cmd.Stdout, cmd.Stderr = &out, &out
	rigtest.Must(n.t, ns.Start(cmd))
	if err := cmd.Wait(); err != nil {
		n.t.Fatalf("%v: %v\n%s", cmd, err, out.String())
	}
}

// run starts a program that runs until the test ends, or until stop.
func (n *internet) run(ns *rig.Namespace, name string, args ...string) (stop func()) {
	n.t.Helper()
	cmd, out := exec.Command(name, args...), new(rig.Log)
	cmd.Stdout, cmd.Stderr, cmd.WaitDelay = out, out, time.Second // children have the output, too
	rigtest.Must(n.t, ns.Start(cmd))
	done := make(chan struct{})
	go func() { cmd.Wait(); close(done) }() //nolint:errcheck // it is killed
	stop = func() {
		cmd.Process.Signal(syscall.SIGTERM) //nolint:errcheck // it may have ended
		select {
		case <-done:
		case <-time.After(3 * time.Second):
			cmd.Process.Kill() //nolint:errcheck // it may have ended
			<-done
		}
	}
	n.t.Cleanup(func() {
		stop()
		if n.t.Failed() {
			n.t.Logf("%s in %s:\n%s", filepath.Base(name), ns.Name(), out.String())
		}
		if strings.Contains(out.String(), "panic") {
			n.t.Errorf("panic of %s in %s:\n%s", name, ns.Name(), out.String())
		}
	})
	return stop
}

// daemon starts sixfourd with a tunnel of a mode. Stop ends it before the test does.
func (n *internet) daemon(ns *rig.Namespace, mode, config string) (stop func()) {
	n.t.Helper()
	dir := n.t.TempDir()
	socket, file := filepath.Join(dir, "control.sock"), filepath.Join(dir, "sixfour.toml")
	rigtest.Must(n.t, os.WriteFile(file, []byte(fmt.Sprintf("[control]\nsocket = %q\n[[tunnel]]\nname = \"six0\"\nmode = %q\n%s", socket, mode, config)), 0o600))
	return n.run(ns, program, "-config", file)
}

func (n *internet) miredo(ns *rig.Namespace, name, config string) {
	n.t.Helper()
	dir := n.t.TempDir()
	rigtest.Must(n.t, os.Chmod(dir, 0o755)) // it runs as a user of its own
	file := filepath.Join(dir, "miredo.conf")
	rigtest.Must(n.t, os.WriteFile(file, []byte(config), 0o644))
	n.run(ns, name, "-f", "-c", file, "-p", filepath.Join(dir, "pid"))
}

func (n *internet) server(w who) {
	n.t.Helper()
	if w == theirs {
		n.miredo(n.s, "miredo-server", "ServerBindAddress 198.51.100.120\nServerBindAddress2 198.51.100.121\n")
		return
	}
	n.daemon(n.s, "teredo", "role = \"server\"\nbind = [\"198.51.100.120\", \"198.51.100.121\"]\n")
}

func (n *internet) relay(w who) {
	n.t.Helper()
	if w == theirs {
		n.miredo(n.r, "miredo", "RelayType restricted\nInterfaceName teredo\nBindAddress 198.51.100.9\nBindPort 55380\n")
		return
	}
	n.daemon(n.r, "teredo", "role = \"relay\"\nlocal = \"198.51.100.9\"\nprefix = [\"2001:db8:ff::/64\"]\n")
}

// client starts a client, and returns its address.
func (n *internet) client(w who, ns *rig.Namespace) netip.Addr {
	n.t.Helper()
	dev := "six0"
	if w == theirs {
		dev = "teredo"
		n.miredo(ns, "miredo", "RelayType client\nInterfaceName teredo\nServerAddress 198.51.100.120\nServerAddress2 198.51.100.121\nBindPort 50001\n")
	} else {
		n.daemon(ns, "teredo", "role = \"client\"\nserver = \"198.51.100.120\"\nport = 50001\n")
	}
	return n.address(ns, dev, "2001::/32")
}

// address waits until an interface has an address of a prefix.
func (n *internet) address(ns *rig.Namespace, dev, prefix string) (addr netip.Addr) {
	n.t.Helper()
	eventually(n.t, "there is an address of "+prefix, func() error {
		a, ok := n.hasAddress(ns, dev, prefix)
		if !ok {
			return errors.New("there is none")
		}
		addr = a
		return nil
	})
	return addr
}

// hasAddress returns the address of a prefix that an interface has.
func (n *internet) hasAddress(ns *rig.Namespace, dev, prefix string) (addr netip.Addr, ok bool) {
	n.t.Helper()
	var out strings.Builder
	cmd := exec.Command("ip", "-6", "-o", "addr", "show", "scope", "global", "dev", dev)
	cmd.Stdout = &out
	if err := errors.Join(ns.Start(cmd), cmd.Wait()); err != nil {
		return addr, false // the interface is not there yet
	}
	for _, word := range strings.Fields(out.String()) {
		if p, err := netip.ParsePrefix(word); err == nil && netip.MustParsePrefix(prefix).Contains(p.Addr()) {
			return p.Addr(), true
		}
	}
	return addr, false
}

// reaches waits until a host answers echo requests of another one.
func (n *internet) reaches(from *rig.Namespace, to netip.Addr, what string) {
	n.t.Helper()
	eventually(n.t, what, func() error {
		ctx, cancel := context.WithTimeout(n.t.Context(), 7*time.Second)
		defer cancel()
		res, err := rig.Ping(ctx, from, to, rig.PingOptions{Count: 3, Interval: 300 * time.Millisecond})
		if err == nil && res.Received == 0 {
			err = errors.New("no answer")
		}
		return err
	})
}
