package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sixfour/internal/api"
	"sixfour/internal/control/client"
	"sixfour/internal/leases"
	"sixfour/internal/rig"
	"sixfour/internal/session/heartbeat"
	"sixfour/internal/store"
)

// brokered is the network of the broker's tests:
//
//	client                        server                                router
//	203.0.113.20/24 vb ──── va 203.0.113.10/24, up 2001:db8:1::1/64 ──── down 2001:db8:1::2/64
//
// The pool 2001:db8:100::/40 and the endpoints 2001:db8:ff::/48 are routed to the server.
type brokered struct {
	client, server, router *rig.Namespace
	dir, store             string
}

var routerAddr = netip.MustParseAddr("2001:db8:1::2")

func newBrokered(t *testing.T) brokered {
	t.Helper()
	h := newHosts(t, 1500)
	n := brokered{client: h.b, server: h.a, router: newNamespace(t, "router"), dir: t.TempDir()}
	n.store = filepath.Join(n.dir, "broker.db")
	must(t, rig.Veth(n.server, "up", n.router, "down", 1500))
	must(t, n.server.AddAddr("up", netip.MustParsePrefix("2001:db8:1::1/64")))
	must(t, n.router.AddAddr("down", netip.PrefixFrom(routerAddr, 64)))
	must(t, n.server.LinkUp("up"))
	must(t, n.router.LinkUp("down"))
	must(t, n.server.Forward())
	for _, p := range []string{"2001:db8:100::/40", "2001:db8:ff::/48"} {
		must(t, n.router.AddRoute(netip.MustParsePrefix(p), netip.MustParseAddr("2001:db8:1::1"), "down"))
	}
	return n
}

// config returns the configuration of the broker, with listeners at the server's address.
func (n *brokered) config(lines string, protocols ...string) string {
	c := fmt.Sprintf("[broker]\nstore = %q\npool = [\"2001:db8:100::/40\"]\nendpoints = \"2001:db8:ff::/48\"\n%s\n", n.store, lines)
	for _, p := range protocols {
		c += fmt.Sprintf("[[broker.listen]]\nprotocol = %q\naddress = \"203.0.113.10\"\n", p)
		if p == "tic" {
			c += "required = false\n"
		}
	}
	return c
}

// account adds an account to the store, which no daemon uses, and gives it a lease.
func (n *brokered) account(t *testing.T, name, secret string) leases.Lease {
	t.Helper()
	return n.accountIn(t, netip.MustParsePrefix("2001:db8:100::/40"), 64, name, secret)
}

// accountIn is account with a pool and the length of prefixes.
func (n *brokered) accountIn(t *testing.T, pool netip.Prefix, bits int, name, secret string) leases.Lease {
	t.Helper()
	s, err := store.OpenBolt(n.store)
	must(t, err)
	defer s.Close()
	b, err := leases.Open(t.Context(), leases.Config{
		Store: s, Server: "test", Pool: []netip.Prefix{pool}, PrefixLength: bits, MaxPrefixLength: bits,
		Endpoints: netip.MustParsePrefix("2001:db8:ff::/48"), MTU: 1280,
	})
	must(t, err)
	defer b.Close()
	_, err = b.Add(t.Context(), leases.Account{Name: name, Secret: secret, Type: "heartbeat", Enabled: true})
	must(t, err)
	l, err := b.Assign(t.Context(), name, 0)
	must(t, err)
	return l
}

// routes returns the IPv6 routes of a namespace through a device.
func routes(t *testing.T, ns *rig.Namespace, dev string) string {
	t.Helper()
	cmd := exec.Command("ip", "-6", "route", "show", "dev", dev)
	var out strings.Builder
	cmd.Stdout = &out
	must(t, ns.Start(cmd))
	must(t, cmd.Wait())
	return out.String()
}

// until waits for a condition.
func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	eventually(t, what, func() error {
		if !is() {
			return errors.New("not yet")
		}
		return nil
	})
}

// beats sends heartbeats from the client until it is stopped.
func (n *brokered) beats(t *testing.T, l leases.Lease, secret string) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	c := heartbeat.NewClient(heartbeat.ClientConfig{
		Server:   func() (netip.AddrPort, bool) { return netip.MustParseAddrPort("203.0.113.10:3740"), true },
		Identity: l.Endpoint.Client, Secret: secret, Sender: true, Every: time.Second,
	})
	go func() {
		defer close(done)
		_ = n.client.Do(func() error { c.Run(ctx); return nil })
	}()
	return func() { cancel(); <-done }
}

// A client of heartbeat gets its prefix through the broker: packets pass in both directions, its
// ends of the tunnel answer, and its prefix is in the kernel's routing table as long as it is
// attached. A daemon with nothing but a broker works, and leaves nothing behind when it is
// killed.
func TestBrokerHeartbeat(t *testing.T) {
	t.Parallel()
	n := newBrokered(t)
	lease := n.account(t, "alice", "wonderland")
	a := start(t, n.server, n.config("", "heartbeat"))
	inside := lease.Prefix.Addr().Next()
	start(t, n.client, fmt.Sprintf("[[tunnel]]\nname = \"six0\"\nmode = \"6in4\"\nlocal = \"203.0.113.20\"\nremote = \"203.0.113.10\"\naddress = [\"%v/64\", \"%v/128\"]\nroutes = [\"::/0\"]\nmtu = 1280\n", lease.Endpoint.Client, inside))
	if got := routes(t, n.server, "six0"); strings.Contains(got, lease.Prefix.String()) {
		t.Errorf("the prefix is routed already:\n%s", got)
	}
	stop := n.beats(t, lease, "wonderland")
	defer stop()
	until(t, "the prefix is routed", func() bool { return strings.Contains(routes(t, n.server, "six0"), lease.Prefix.String()) })
	pings(t, n.router, inside, rig.PingOptions{})
	pings(t, n.client, routerAddr, rig.PingOptions{})
	pings(t, n.client, lease.Endpoint.Broker, rig.PingOptions{})
	pings(t, n.router, lease.Endpoint.Client, rig.PingOptions{})
	must(t, a.cmd.Process.Signal(syscall.SIGKILL))
	until(t, "the interface is gone", func() bool {
		links, err := n.server.Handle().LinkByName("six0")
		return err != nil && links == nil
	})
	// Another process serves it again, and takes the route away when the client is gone.
	b := start(t, n.server, n.config("", "heartbeat"))
	until(t, "the prefix is routed again", func() bool { return strings.Contains(routes(t, n.server, "six0"), lease.Prefix.String()) })
	pings(t, n.router, inside, rig.PingOptions{})
	if s, _ := b.status(t); s.Broker == nil || s.Broker.Clients["heartbeat"] != 1 || s.Broker.Leases != 1 || s.Broker.Accounts != 1 || s.Broker.Listeners[0].Error != "" {
		t.Errorf("the status is %+v", s.Broker)
	}
	if code := b.end(t, syscall.SIGTERM); code != 0 {
		t.Errorf("exit status %d", code)
	}
	if _, err := os.Stat(n.store); err != nil {
		t.Error(err)
	}
}

// Clients of several protocols, each in a namespace of its own, reach what is behind the broker,
// and each other.
func TestBrokerProtocols(t *testing.T) {
	t.Parallel()
	n := newBrokered(t)
	secret := filepath.Join(n.dir, "secret")
	must(t, os.WriteFile(secret, []byte("a secret of many letters"), 0o600))
	all := map[string]leases.Lease{}
	for _, p := range []string{"json", "ayiya", "heartbeat", "tsp"} {
		all[p] = n.account(t, p, "a secret of many letters")
	}
	server := start(t, n.server, n.config("", "json", "ayiya", "heartbeat", "tic", "tsp"))
	for i, c := range []struct{ mode, lines string }{
		{"json", "id = \"json\"\nsecret_file = %[1]q\n"},
		{"ayiya", "identity = %[2]q\npassword_file = %[1]q\nroutes = [\"::/0\"]\naddress = [%[3]q]\n"},
		{"heartbeat", "identity = %[2]q\npassword_file = %[1]q\nroutes = [\"::/0\"]\naddress = [%[3]q]\n"},
		{"tsp", "user = \"tsp\"\npassword_file = %[1]q\nauth = \"digest-md5\"\n"},
	} {
		ns, lease := newNamespace(t, c.mode), all[c.mode]
		dev, ours := fmt.Sprintf("vc%d", i), netip.AddrFrom4([4]byte{198, 18, byte(i), 2})
		must(t, rig.Veth(ns, "v", n.server, dev, 1500))
		must(t, ns.AddAddr("v", netip.PrefixFrom(ours, 24)))
		must(t, n.server.AddAddr(dev, netip.PrefixFrom(ours.Prev(), 24)))
		must(t, ns.LinkUp("v"))
		must(t, n.server.LinkUp(dev))
		must(t, ns.AddRoute(netip.MustParsePrefix("203.0.113.0/24"), ours.Prev(), "v"))
		inside := netip.PrefixFrom(lease.Prefix.Addr().Next(), 64).String()
		end := start(t, ns, fmt.Sprintf("[[tunnel]]\nname = \"six0\"\nmode = %q\nserver = \"203.0.113.10\"\n", c.mode)+fmt.Sprintf(c.lines, secret, lease.Endpoint.Client, inside))
		eventually(t, c.mode+" reaches the router", func() error {
			res, err := rig.Ping(t.Context(), ns, routerAddr, rig.PingOptions{Count: 1, Timeout: time.Second})
			if err == nil && res.Received == 0 {
				_, s := end.status(t)
				err = fmt.Errorf("no answer: %+v", s.State)
			}
			return err
		})
		to := lease.Prefix.Addr().Next()
		if c.mode == "tsp" { // the address of the interface is that of the tunnel's end
			to = lease.Endpoint.Client
		}
		eventually(t, "the router reaches "+c.mode, func() error {
			res, err := rig.Ping(t.Context(), n.router, to, rig.PingOptions{Count: 1, Timeout: time.Second})
			if err == nil && res.Received == 0 {
				err = errors.New("no answer")
			}
			return err
		})
	}
	s, _ := server.status(t)
	if s.Broker.Clients["json"] != 1 || s.Broker.Clients["tsp"] != 1 || s.Broker.Clients["ayiya"] != 1 || s.Broker.Clients["heartbeat"] != 1 {
		t.Errorf("the clients are %v", s.Broker.Clients)
	}
}

// Where a hoster gives a /64 on the link and no route, the broker answers the router's
// neighbour solicitations for attached clients, and for nobody else.
func TestBrokerOnLink(t *testing.T) {
	t.Parallel()
	n := newBrokered(t)
	must(t, n.server.AddAddr("up", netip.MustParsePrefix("2001:db8:5::2/64")))
	must(t, n.router.AddAddr("down", netip.MustParsePrefix("2001:db8:5::1/64")))
	pool := netip.MustParsePrefix("2001:db8:5:0:8000::/65")
	lease, other := n.accountIn(t, pool, 80, "alice", "wonderland"), n.accountIn(t, pool, 80, "bob", "builder")
	config := strings.Replace(n.config("ndp_proxy = \"up\"\nprefix_length = 80", "heartbeat"), "2001:db8:100::/40", pool.String(), 1)
	start(t, n.server, config)
	inside, ofOther := lease.Prefix.Addr().Next(), other.Prefix.Addr().Next()
	start(t, n.client, fmt.Sprintf("[[tunnel]]\nname = \"six0\"\nmode = \"6in4\"\nlocal = \"203.0.113.20\"\nremote = \"203.0.113.10\"\naddress = [\"%v/64\", \"%v/128\", \"%v/128\"]\nroutes = [\"::/0\"]\nmtu = 1280\n", lease.Endpoint.Client, inside, ofOther))
	defer n.beats(t, lease, "wonderland")()
	eventually(t, "the router finds the client", func() error {
		res, err := rig.Ping(t.Context(), n.router, inside, rig.PingOptions{Count: 1, Timeout: time.Second})
		if err == nil && res.Received == 0 {
			err = errors.New("no answer")
		}
		return err
	})
	for _, a := range []netip.Addr{ofOther, netip.MustParseAddr("2001:db8:5::7")} {
		if res, err := rig.Ping(t.Context(), n.router, a, rig.PingOptions{Count: 1, Timeout: time.Second}); err != nil || res.Received != 0 {
			t.Errorf("%v, which is no attached client's, answers: %+v, %v", a, res, err)
		}
		list, err := n.router.Handle().NeighList(0, unix.AF_INET6)
		must(t, err)
		for _, e := range list {
			if ip, _ := netip.AddrFromSlice(e.IP); ip == a && e.HardwareAddr != nil {
				t.Errorf("the router knows %v at %v", a, e.HardwareAddr)
			}
		}
	}
}

// A reload changes listeners and the pool of a broker that runs, and no client loses its
// tunnel. What needs a restart is said.
func TestBrokerReload(t *testing.T) {
	t.Parallel()
	n := newBrokered(t)
	lease := n.account(t, "alice", "wonderland")
	d := start(t, n.server, n.config("", "heartbeat"))
	defer n.beats(t, lease, "wonderland")()
	until(t, "the client is attached", func() bool { s, _ := d.status(t); return s.Broker.Clients["heartbeat"] == 1 })
	free := func() uint64 { s, _ := d.status(t); return s.Broker.FreePrefixes }
	before := free()
	reload := func(config string) api.Plan {
		t.Helper()
		d.write(t, config)
		plan, err := client.New(d.socket).Reload(t.Context())
		must(t, err)
		return plan
	}
	grown := strings.Replace(n.config("", "heartbeat", "ayiya"), `"2001:db8:100::/40"]`, `"2001:db8:100::/40", "2001:db8:200::/40"]`, 1)
	if plan := reload(grown); !slices.Equal(plan.Settings, []string{"broker"}) || len(plan.Restart) != 0 || len(plan.Changed) != 1 || !plan.Changed[0].InPlace {
		t.Errorf("the plan is %+v", plan)
	}
	if now := free(); now != before+1<<24 {
		t.Errorf("%d prefixes are free, before %d", now, before)
	}
	until(t, "ayiya listens", func() bool {
		s, _ := d.status(t)
		return len(s.Broker.Listeners) == 2 && s.Broker.Listeners[1].Error == ""
	})
	if s, _ := d.status(t); s.Broker.Clients["heartbeat"] != 1 || !strings.Contains(routes(t, n.server, "six0"), lease.Prefix.String()) {
		t.Errorf("after the reload: %+v", s.Broker)
	}
	if plan := reload(strings.Replace(grown, "2001:db8:ff::/48", "2001:db8:fe::/48", 1)); !slices.Equal(plan.Restart, []string{"broker"}) {
		t.Errorf("with other endpoints the plan is %+v", plan)
	}
	if plan := reload("\n\n" + grown); len(plan.Restart)+len(plan.Settings)+len(plan.Changed) != 0 {
		t.Errorf("with the same configuration the plan is %+v", plan)
	}
}
