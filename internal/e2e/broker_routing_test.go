package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"sixfour/internal/api"
	"sixfour/internal/control/client"
	"sixfour/internal/rig"
)

// run starts a program in a namespace, which ends with the test.
func run(t *testing.T, ns *rig.Namespace, name string, args ...string) {
	t.Helper()
	path, err := exec.LookPath(name)
	must(t, err)
	cmd := exec.Command(path, args...)
	var log rig.Log
	cmd.Stdout, cmd.Stderr = &log, &log
	must(t, ns.Start(cmd))
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = cmd.Wait()
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGKILL)
		<-done
		if t.Failed() {
			t.Logf("%s in %s:\n%s", name, ns.Name(), log.String())
		}
	})
}

// A routing daemon takes the routes of attached clients out of the kernel, and tells them to a
// neighbour, which has them as long as the clients are attached.
func TestBrokerRouting(t *testing.T) {
	t.Parallel()
	for name, begin := range map[string]func(*testing.T, brokered, func(string, string) string){"bird": withBird, "frr": withFRR} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newBrokered(t)
			lease := n.account(t, "alice", "wonderland")
			write := func(name, text string) string {
				path := filepath.Join(n.dir, name)
				must(t, os.WriteFile(path, []byte(text), 0o644))
				return path
			}
			begin(t, n, write)
			run(t, n.router, "bird", "-f", "-c", write("router.conf", `router id 192.0.2.2;
protocol device { scan time 1; }
protocol kernel { ipv6 { import none; export all; }; }
protocol bgp { local 2001:db8:1::2 as 65002; neighbor 2001:db8:1::1 as 65001; connect delay time 1; connect retry time 1; ipv6 { import all; export none; }; }
`), "-s", filepath.Join(n.dir, "router.ctl"))
			d := start(t, n.server, n.config("", "heartbeat"))
			defer n.beats(t, lease, "wonderland")()
			has := func() bool {
				return strings.Contains(routes(t, n.router, "down"), fmt.Sprintf("%v via ", lease.Prefix))
			}
			until(t, "the router knows the client's prefix", has)
			must(t, client.New(d.socket).Broker(t.Context(), api.BrokerRequest{Do: api.AccountDisable, Account: "alice"}, func([]byte) error { return nil }))
			until(t, "the router knows it no more", func() bool { return !has() })
		})
	}
}

// withBird runs BIRD 2 on the broker's host.
func withBird(t *testing.T, n brokered, write func(name, text string) string) {
	run(t, n.server, "bird", "-f", "-c", write("server.conf", `router id 192.0.2.1;
protocol device { scan time 1; }
protocol kernel clients { ipv6 { import all; export none; }; learn; scan time 1; }
protocol bgp { local 2001:db8:1::1 as 65001; neighbor 2001:db8:1::2 as 65002; connect delay time 1; connect retry time 1; ipv6 { import none; export where proto = "clients"; next hop self; }; }
`), "-s", filepath.Join(n.dir, "server.ctl"))
}

// withFRR runs FRR on the broker's host.
func withFRR(t *testing.T, n brokered, _ func(name, text string) string) {
	dir, err := os.MkdirTemp("", "sixfour-frr") // its daemons have a user of their own
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	who, err := user.Lookup("frr")
	must(t, err)
	uid, err := strconv.Atoi(who.Uid)
	must(t, err)
	gid, err := strconv.Atoi(who.Gid)
	must(t, err)
	must(t, os.Chown(dir, uid, gid))
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		must(t, os.WriteFile(path, []byte(text), 0o644))
		must(t, os.Chown(path, uid, gid))
		return path
	}
	zserv := filepath.Join(dir, "zserv.api")
	common := func(name, text string) []string {
		return []string{"-f", write(name+".conf", text), "-i", filepath.Join(dir, name+".pid"), "-z", zserv, "--vty_socket", dir, "-P", "0", "--log", "stdout"}
	}
	run(t, n.server, "/usr/lib/frr/zebra", common("zebra", "hostname server\n")...)
	run(t, n.server, "/usr/lib/frr/bgpd", common("bgpd", `router bgp 65001
 bgp router-id 192.0.2.1
 no bgp ebgp-requires-policy
 no bgp default ipv4-unicast
 neighbor 2001:db8:1::2 remote-as 65002
 neighbor 2001:db8:1::2 timers connect 1
 address-family ipv6 unicast
  redistribute kernel
  neighbor 2001:db8:1::2 activate
 exit-address-family
`)...)
}
