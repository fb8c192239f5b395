package differential

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"sixfour/internal/rig"
	"sixfour/internal/rig/rigtest"
)

// router is the router of the recordings, with sixfourd for its tunnel, and the
// tester that is everybody else:
//
//	namespace tester          namespace router                 namespace tester
//	                          192.168.1.1/24   203.0.113.1/24
//	lan ───────────────── lan 2001:db8:1::1/64 2001:db8:ffff::1/64 wan ──── wan
//	02:00:00:00:0a:fe         02:…:0a:01 six0  02:…:0b:01      02:00:00:00:0b:fe
//
// The tester's kernel has no address, and so answers nothing.
type router struct {
	ports    [links]*rig.Capture // the tester's, on each link
	seen     chan frame          // what the router sent
	log      rig.Log             // the daemon's
	patience time.Duration       // how long to wait for an answer
	sent     sent
}

// frame is a frame that the router sent.
type frame struct {
	link link
	data []byte
}

// neighbours are the tester's hosts that the router knows. No other address answers: there
// is no host at 192.168.1.77.
var neighbours = map[link][]string{
	lan: {"192.168.1.10", "2001:db8:1::10"},
	wan: {"203.0.113.2", gateway, "2001:db8:ffff::2"},
}

// gateway is the next hop of all other IPv4 destinations, as in the recordings. IPv6 had no
// default route.
const gateway = "203.0.113.254"

// other is a neighbour on the WAN with its own Ethernet address.
const other = "203.0.113.9"

func newRouter(t *testing.T, tunnel string, s site) *router {
	t.Helper()
	r := &router{seen: make(chan frame, 1024), patience: 10 * time.Second, sent: sent{fullSize}}
	tester, ns := newNamespace(t, "tester"), newNamespace(t, "router")
	must(t, ns.Forward())
	for l, addrs := range map[link][]string{
		lan: {"192.168.1.1/24", "2001:db8:1::1/64"},
		wan: {"203.0.113.1/24", "2001:db8:ffff::1/64"},
	} {
		r.connect(t, l, tester, ns, addrs, s)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var readers sync.WaitGroup
	for l := range links {
		readers.Go(func() { r.listen(ctx, t, l) })
	}
	t.Cleanup(func() { cancel(); readers.Wait() })
	must(t, ns.AddRoute(netip.MustParsePrefix("0.0.0.0/0"), netip.MustParseAddr(gateway), "wan"))
	r.startDaemon(t, ns, tunnel)
	return r
}

// connect makes a link between the two.
func (r *router) connect(t *testing.T, l link, tester, ns *rig.Namespace, addrs []string, s site) {
	t.Helper()
	dev, mtu := strings.ToLower(l.String()), 1500
	if l == wan && s.wanMTU != 0 {
		mtu = s.wanMTU
	}
	theirs, ours := net.HardwareAddr{2, 0, 0, 0, 0x0a + byte(l), 0xfe}, net.HardwareAddr{2, 0, 0, 0, 0x0a + byte(l), 0x01}
	must(t, rig.Veth(tester, dev, ns, dev, mtu))
	must(t, tester.SetMAC(dev, theirs))
	must(t, ns.SetMAC(dev, ours))
	for _, a := range addrs {
		must(t, ns.AddAddr(dev, netip.MustParsePrefix(a)))
	}
	for _, a := range neighbours[l] {
		must(t, ns.AddNeighbour(dev, netip.MustParseAddr(a), theirs))
	}
	switch {
	case l == wan:
		must(t, ns.AddNeighbour(dev, netip.MustParseAddr(other), net.HardwareAddr{2, 0, 0, 0, 0x0b, 0xf9}))
	case s.router.IsValid():
		must(t, ns.AddAddr(dev, netip.PrefixFrom(s.router, 64)))
		must(t, ns.AddNeighbour(dev, s.host, theirs))
	}
	c, err := tester.Capture(dev)
	must(t, err)
	t.Cleanup(func() { c.Close() })
	r.ports[l] = c
}

// listen reads the frames that the router sends on one link.
func (r *router) listen(ctx context.Context, t *testing.T, l link) {
	var noisy uint32 // GRE packets that have a sequence number, and are noise
	for {
		f, err := r.ports[l].Next(ctx)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			t.Errorf("%v: %v", l, err)
			return
		}
		if f.Outgoing || f.Type != 0x0800 && f.Type != 0x86dd {
			continue
		}
		if isNoise(f.Data) {
			noisy += sequenced(f.Data, 0)
			continue
		}
		sequenced(f.Data, noisy)
		r.seen <- frame{l, f.Data}
	}
}

func (r *router) startDaemon(t *testing.T, ns *rig.Namespace, tunnel string) {
	t.Helper()
	dir := t.TempDir()
	config := filepath.Join(dir, "sixfour.toml")
	must(t, os.WriteFile(config, fmt.Appendf(nil, "[control]\nsocket = %q\n[[tunnel]]\nname = \"six0\"\nkeepalive = \"0s\"%s\n", filepath.Join(dir, "control.sock"), tunnel), 0o600))
	cmd := exec.Command(program, "-config", config)
	cmd.Stdout, cmd.Stderr = &r.log, &r.log
	must(t, ns.Start(cmd))
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // may have ended by itself
		if err := <-ended; err == nil {
			t.Error("the daemon ended before it was told to")
		}
		for _, bad := range []string{"panic", "DATA RACE", "fatal error"} {
			if strings.Contains(r.log.String(), bad) {
				t.Errorf("%s in the daemon's log", bad)
			}
		}
		if t.Failed() {
			t.Logf("the daemon's log:\n%s", r.log.String())
		}
	})
	for deadline := time.Now().Add(20 * time.Second); !strings.Contains(r.log.String(), "ready"); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the daemon does not become ready")
		}
	}
}

var (
	must         = rigtest.Must
	newNamespace = rigtest.Namespace
)
