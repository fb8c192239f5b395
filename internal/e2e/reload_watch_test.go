package e2e

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"sixfour/internal/api"
	"sixfour/internal/capture"
	"sixfour/internal/control/client"
	"sixfour/internal/rig"
)

// spokes returns a hub with peers of these names, to hosts that need not exist.
func spokes(names string) string {
	var b strings.Builder
	b.WriteString("[[tunnel]]\nname = \"hub0\"\nmode = \"4in4\"\nlocal = \"203.0.113.10\"\naddress = [\"10.79.0.1/16\"]\nkeepalive = \"1s\"\n")
	for _, n := range names {
		fmt.Fprintf(&b, "[[tunnel.peer]]\nname = \"%c\"\nremote = \"10.77.255.%d\"\nallowed = [\"10.79.%d.0/24\"]\n", n, n, n)
	}
	return b.String()
}

// readers send all kinds of requests to a daemon, again and again, until ctx ends. They
// check that it answers, not what it answers.
func (d *daemon) readers(ctx context.Context, t *testing.T, from *rig.Namespace) (all *sync.WaitGroup) {
	all = new(sync.WaitGroup)
	again := func(what func(*client.Client) error) {
		all.Go(func() {
			c := client.New(d.socket)
			for ctx.Err() == nil {
				_ = what(c)
			}
		})
	}
	again(func(c *client.Client) error {
		_, err := c.Status(ctx, "")
		if err != nil && ctx.Err() == nil {
			t.Error(err)
		}
		return err
	})
	for _, peer := range []string{"six0", "crowd1", "hub0/b", "c"} {
		again(func(c *client.Client) error {
			return c.Ping(ctx, api.PingRequest{Peer: peer, Count: 3, Interval: 10 * time.Millisecond, Timeout: 50 * time.Millisecond},
				func(api.PingReply) error { return nil })
		})
	}
	again(func(c *client.Client) error {
		_, err := c.ProbeMTU(ctx, "six0", func(api.MTUProbe) error { return nil })
		return err
	})
	again(func(c *client.Client) error {
		ctx, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
		defer cancel()
		return c.Events(ctx, func(api.Event) error { return nil })
	})
	again(func(c *client.Client) error {
		ctx, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
		defer cancel()
		stream, err := c.Capture(ctx, capture.Request{Tunnel: "crowd0"})
		if err != nil {
			return err
		}
		defer stream.Close()
		_, err = io.Copy(io.Discard, stream)
		return err
	})
	all.Go(func() {
		for ctx.Err() == nil {
			if _, _, err := ask(from, "/metrics"); err != nil {
				t.Error(err)
			}
		}
	})
	return all
}

// Reloads of all kinds, by signal and by the control socket, during many requests: every
// request gets a correct answer soon, a capture of the unchanged tunnel continues, no
// packet of that tunnel is lost, and nothing is left behind.
func TestReloadsDuringRequests(t *testing.T) {
	h := newHosts(t, 1500)
	must(t, h.a.AddRoute(netip.MustParsePrefix("10.77.0.0/16"), outerB, "va"))
	base := listenLine + configA(`queues = 1`)
	files := []string{
		base + otherTunnels(2, ""),
		base + otherTunnels(6, "ttl = 9") + spokes("abc"),
		base + otherTunnels(6, "ttl = 9\noffload = \"off\"") + spokes("bcd"),
		base + "nonsense",
		base + otherTunnels(4, "mtu = 1300\nkeepalive = \"1s\"") + spokes("ab"),
	}
	a := start(t, h.a, base)
	start(t, h.b, configB(`queues = 1`))
	reachable(t, h.a, inB)
	a.mustReload(t, base)
	routines := func() float64 {
		n, _ := scrape(t, h.a, "go_goroutines", nil)
		return n
	}
	descriptors, before := a.descriptors(t), routines()
	rec := a.record(t, capture.Request{Tunnel: "six0", Filter: "icmp"})
	ctx, cancel := context.WithCancel(t.Context())
	all := a.readers(ctx, t, h.a)
	done := make(chan struct{})
	all.Go(func() {
		for going := true; going; {
			if r := flow(t, h, 2000, time.Second); r.Lost() != 0 || r.Reordered != 0 {
				t.Errorf("%+v", r)
			}
			select {
			case <-done:
				going = false
			default:
			}
		}
	})
	c := client.New(a.socket)
	reloads := 200
	if rig.Race {
		reloads = 100
	}
	for i := range reloads {
		a.write(t, files[i%len(files)])
		if i%2 == 0 {
			must(t, a.cmd.Process.Signal(syscall.SIGHUP))
			continue
		}
		if _, err := c.Reload(t.Context()); (err != nil) != strings.HasSuffix(files[i%len(files)], "nonsense") {
			t.Errorf("reload %d: %v", i, err)
		}
	}
	close(done)
	cancel()
	all.Wait()
	a.mustReload(t, base)
	pings(t, h.a, inB, rig.PingOptions{})
	rec.find(t, "the ping that came last", func(s seen) bool { return s.at == "inner" })
	rec.end()
	<-rec.done
	eventually(t, "that nothing stays", func() error {
		if now := a.descriptors(t); now > descriptors {
			return fmt.Errorf("%d descriptors, and before %d", now, descriptors)
		}
		if now := routines(); now > before {
			return fmt.Errorf("%v goroutines, and before %v", now, before)
		}
		return nil
	})
}
