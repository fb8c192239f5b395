package e2e

import (
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"sixfour/internal/api"
	"sixfour/internal/rig"
)

// otherTunnels returns n tunnels to hosts that need not exist.
func otherTunnels(n int, lines string) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "[[tunnel]]\nname = \"crowd%d\"\nmode = \"gre\"\nlocal = \"203.0.113.10\"\nremote = \"10.77.%d.%d\"\naddress = [\"10.78.%d.%d/32\"]\n%s\n",
			i, i>>8, i&255, i>>8, i&255, lines)
	}
	return b.String()
}

// flow sends a test's traffic in one direction at a rate, in super-packets, which cost the
// kernel little.
func flow(t *testing.T, h hosts, rate int, d time.Duration) rig.LoadResult {
	t.Helper()
	r, err := rig.Load(t.Context(), h.a, h.b, netip.AddrPortFrom(inB, 5000),
		rig.LoadOptions{UDP: true, Duration: d, Size: 64, Rate: rate, Segments: 64})
	if err != nil {
		t.Error(err)
	}
	return r
}

// A tunnel that a reload does not change loses no packet of 200,000 a second while 500
// others are added, changed in place, replaced and removed. A machine that is busy with
// other work loses some of so many packets for lack of time: then the rate is reduced until
// none is lost without a reload.
func TestReloadUnderTraffic(t *testing.T) {
	others, rate := 500, 200_000
	if rig.Race {
		others, rate = 50, 20_000
	}
	h := newHosts(t, 1500)
	must(t, h.a.AddRoute(netip.MustParsePrefix("10.77.0.0/16"), outerB, "va"))
	own := configA(`queues = 1`)
	a := start(t, h.a, own)
	start(t, h.b, configB(`queues = 1`))
	reachable(t, h.a, inB)
	steps := []struct{ name, config string }{
		{"added", own + otherTunnels(others, "")},
		{"changed in place", otherTunnels(others, "ttl = 9\nroutes = []\nmtu = 1300") + own},
		{"replaced", own + otherTunnels(others, "offload = \"off\"")},
		{"removed", "# another line\n" + own},
	}
	const control = 2 * time.Second
	var before api.TunnelStatus // before the last round, in which none must be lost
	for ; ; rate /= 2 {
		if rate < 5000 {
			t.Fatal("packets are lost however few they are")
		}
		_, before = a.status(t)
		if r := flow(t, h, rate, control); r.Lost() != 0 || r.Reordered != 0 {
			t.Logf("without a reload, of %d packets a second: %+v", rate, r)
			continue
		}
		done := make(chan time.Duration)
		begun := time.Now()
		go func() {
			defer close(done)
			for _, s := range steps {
				before := time.Now()
				a.mustReload(t, s.config)
				t.Logf("%d tunnels %s: %v", others, s.name, time.Since(before).Round(time.Millisecond))
			}
		}()
		var sum rig.LoadResult
		for going := true; going; {
			r := flow(t, h, rate, control)
			sum.Sent, sum.Received, sum.Reordered = sum.Sent+r.Sent, sum.Received+r.Received, sum.Reordered+r.Reordered
			select {
			case <-done:
				going = false
			default:
			}
		}
		if sum.Lost() == 0 && sum.Reordered == 0 {
			t.Logf("%d packets, %d a second, in %v of reloads: none lost", sum.Received, rate, time.Since(begun).Round(time.Millisecond))
			break
		}
		t.Logf("with reloads, of %d packets a second: %d of %d lost", rate, sum.Lost(), sum.Sent)
	}
	if got := leftovers(t, h.a); len(got) != 1 {
		t.Errorf("there is %v", got)
	}
	s, six0 := a.status(t)
	if len(s.Tunnels) != 1 || !maps.Equal(six0.In.Drops, before.In.Drops) || !maps.Equal(six0.Out.Drops, before.Out.Drops) {
		t.Errorf("%+v", s)
	}
}

// descriptors returns how many descriptors the daemon has open.
func (d *daemon) descriptors(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir(filepath.Join("/proc", fmt.Sprint(d.cmd.Process.Pid), "fd"))
	must(t, err)
	return len(list)
}

// However often the daemon is told to reload, and whatever the file contains then, no
// packet of another tunnel is lost, nothing is left behind, and the last file takes effect.
func TestReloadStorm(t *testing.T) {
	h := newHosts(t, 1500)
	must(t, h.a.AddRoute(netip.MustParsePrefix("10.77.0.0/16"), outerB, "va"))
	own := configA(`queues = 1`)
	few, many, bad := own+otherTunnels(1, ""), own+otherTunnels(8, "routes = [\"10.99.0.0/16\"]"), own+"nonsense"
	many = strings.Replace(many, "routes = [\"10.99.0.0/16\"]", "", 7)
	a := start(t, h.a, own)
	start(t, h.b, configB(`queues = 1`))
	reachable(t, h.a, inB)
	a.mustReload(t, few)
	descriptors := a.descriptors(t)
	done := make(chan rig.LoadResult)
	go func() { done <- flow(t, h, 5000, 5*time.Second) }()
	for i := range 300 { // 100 a second
		a.write(t, []string{few, many, bad}[i%3])
		must(t, a.cmd.Process.Signal(syscall.SIGHUP))
		time.Sleep(10 * time.Millisecond)
	}
	if r := <-done; r.Lost() != 0 || r.Reordered != 0 {
		t.Errorf("%+v", r)
	}
	eventually(t, "the last file", func() error {
		a.write(t, few)
		must(t, a.cmd.Process.Signal(syscall.SIGHUP))
		if s, _ := a.status(t); len(s.Tunnels) != 2 || s.Reloads.Error != "" {
			return fmt.Errorf("%d tunnels, %+v", len(s.Tunnels), s.Reloads)
		}
		if now := a.descriptors(t); now > descriptors {
			return fmt.Errorf("%d descriptors, and before %d", now, descriptors)
		}
		return nil
	})
	if s, _ := a.status(t); s.Reloads.Succeeded == 0 || s.Reloads.Failed == 0 {
		t.Errorf("%+v", s.Reloads)
	}
	pings(t, h.a, inB, rig.PingOptions{})
}
