//go:build interop

package interop

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"sixfour/internal/rig"
)

// end is one end of a tunnel: it sends to the other one.
type end interface {
	name() string
	mtu(ctx context.Context, dev string) (int, error)
	ping(ctx context.Context, to netip.Addr, o rig.PingOptions) (rig.PingResult, error)
	tcp(ctx context.Context, to netip.Addr, bytes int64) (rig.Transfer, error)
	udp(ctx context.Context, to netip.Addr, sizes []int, o rig.UDPOptions) ([]rig.Datagram, error)
}

// daemonEnd is the namespace with the daemon's interface.
type daemonEnd struct{ ns *rig.Namespace }

func (daemonEnd) name() string { return "sixfourd" }

func (e daemonEnd) mtu(_ context.Context, dev string) (int, error) { return e.ns.MTU(dev) }

func (e daemonEnd) ping(ctx context.Context, to netip.Addr, o rig.PingOptions) (rig.PingResult, error) {
	return rig.Ping(ctx, e.ns, to, o)
}

func (e daemonEnd) tcp(ctx context.Context, to netip.Addr, bytes int64) (rig.Transfer, error) {
	return rig.SendTCP(ctx, e.ns, netip.AddrPortFrom(to, guestPort), bytes)
}

func (e daemonEnd) udp(ctx context.Context, to netip.Addr, sizes []int, o rig.UDPOptions) ([]rig.Datagram, error) {
	return rig.SendUDP(ctx, e.ns, netip.AddrPortFrom(to, guestPort), sizes, o)
}

// kernelEnd is the emulated machine, with the kernel's tunnel devices. Packets from it are
// received in a namespace here, by servers that run as long as the call.
type kernelEnd struct{ ns *rig.Namespace }

func (kernelEnd) name() string { return "kernel" }

// mtu returns the device's MTU, or the one that a router has announced, if that is less.
func (kernelEnd) mtu(ctx context.Context, dev string) (int, error) {
	out, err := lab.vm.Run(ctx, "cat /sys/class/net/"+dev+"/mtu /proc/sys/net/ipv6/conf/"+dev+"/mtu")
	if err != nil {
		return 0, err
	}
	var link, announced int
	_, err = fmt.Sscan(out, &link, &announced)
	return min(link, announced), err
}

// guest runs the traffic program in the machine; request is its Request.
func guest(ctx context.Context, op string, request map[string]any, result any) error {
	b, err := json.Marshal(request)
	if err != nil {
		return err
	}
	out, err := lab.vm.Run(ctx, "guest "+op+" '"+string(b)+"'")
	if err != nil {
		return err
	}
	return json.Unmarshal([]byte(out), result)
}

func (kernelEnd) ping(ctx context.Context, to netip.Addr, o rig.PingOptions) (r rig.PingResult, err error) {
	err = guest(ctx, "ping", map[string]any{"To": netip.AddrPortFrom(to, 0), "Ping": o}, &r)
	return r, err
}

func (e kernelEnd) tcp(ctx context.Context, to netip.Addr, bytes int64) (r rig.Transfer, err error) {
	l, err := e.ns.ListenTCP(netip.AddrPortFrom(to, 0))
	if err != nil {
		return r, err
	}
	err = whileServing(ctx, func(ctx context.Context) error { return rig.ServeTCP(ctx, l) }, func() error {
		return guest(ctx, "tcp", map[string]any{"To": l.Addr().String(), "Bytes": bytes}, &r)
	})
	return r, err
}

func (e kernelEnd) udp(ctx context.Context, to netip.Addr, sizes []int, o rig.UDPOptions) (r []rig.Datagram, err error) {
	c, err := e.ns.ListenUDP(netip.AddrPortFrom(to, 0))
	if err != nil {
		return r, err
	}
	err = whileServing(ctx, func(ctx context.Context) error { return rig.ServeUDP(ctx, c) }, func() error {
		return guest(ctx, "udp", map[string]any{"To": c.LocalAddr().String(), "Sizes": sizes, "UDP": o}, &r)
	})
	return r, err
}

func whileServing(ctx context.Context, serve func(context.Context) error, f func() error) error {
	ctx, stop := context.WithCancel(ctx)
	served := make(chan error, 1)
	go func() { served <- serve(ctx) }()
	err := f()
	stop()
	if serr := <-served; serr != nil {
		return fmt.Errorf("%w (%w)", serr, err)
	}
	return err
}

// report prints a line of the report.
func report(t *testing.T, format string, args ...any) {
	t.Helper()
	fmt.Fprintf(t.Output(), format+"\n", args...)
}

// load is the amount that an exchange sends.
type load struct {
	pings    int // number of small ones, and of large ones
	tcpBytes int64
	copies   int // datagrams of each size
}

// With many modes to test, little traffic must be enough for each.
var (
	full  = load{20, 5_000_000, 3}
	brief = load{8, 1_000_000, 1}
)

// The machine is slow: datagrams are sent at a rate that it can process, with long
// timeouts.
const (
	pace     = 20 * time.Millisecond
	patience = 15 * time.Second // for the last answer
)

// exchange sends everything from one end to the other. The MTU of the sending interface
// determines the largest packet.
func exchange(t *testing.T, from, to end, dst netip.Addr, dev string, l load) {
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	mtu, err := from.mtu(ctx, dev)
	if err != nil {
		t.Fatal(err)
	}
	overhead := 28 // of ICMP or UDP, and IPv4
	if dst.Is6() {
		overhead = 48
	}
	way := fmt.Sprintf("%s to %s at %v", from.name(), to.name(), dst)

	for _, o := range []rig.PingOptions{
		{Count: l.pings, Size: 56, Timeout: patience},
		{Count: l.pings, Size: mtu - overhead, DF: true, Timeout: patience},
		{Count: l.pings / 4, Size: 3 * mtu, Timeout: patience},
	} {
		r, err := from.ping(ctx, dst, o)
		what := fmt.Sprintf("ping %s: %d packets of %d bytes", way, r.Sent, o.Size+overhead)
		if o.DF {
			what += " (the MTU), DF set"
		}
		if err != nil || r.Received != o.Count || r.Corrupt+r.Duplicates+len(r.ICMP) > 0 {
			t.Errorf("%s: %+v, %v", what, r, err)
			if r.Received == 0 {
				return // nothing else would arrive either, and waiting for it takes minutes
			}
			continue
		}
		slices.Sort(r.RTTs)
		report(t, "%s, %d lost, median RTT %v", what, r.Sent-r.Received, r.RTTs[len(r.RTTs)/2].Round(10*time.Microsecond))
	}

	tr, err := from.tcp(ctx, dst, l.tcpBytes)
	if err != nil {
		t.Errorf("TCP %s: %v", way, err)
	} else {
		report(t, "TCP  %s: %d bytes, SHA-256 the same at both ends, in %v", way, tr.Bytes, tr.Elapsed.Round(10*time.Millisecond))
	}

	// Sizes around the MTU, and far above it.
	var sizes []int
	for _, s := range []int{rig.MinDatagram, 100, 576, 1000, 1200, mtu - overhead - 1, mtu - overhead, mtu - overhead + 1, 2 * mtu, 4000, 8000, 16000} {
		sizes = append(sizes, slices.Repeat([]int{s}, l.copies)...)
	}
	ds, err := from.udp(ctx, dst, sizes, rig.UDPOptions{Interval: pace, Timeout: patience})
	what := fmt.Sprintf("UDP  %s: %d datagrams of %d to %d bytes", way, len(ds), sizes[0], sizes[len(sizes)-1])
	if err != nil || rig.Intact(ds) != len(sizes) {
		t.Errorf("%s: %v\n%+v", what, err, ds)
	} else {
		report(t, "%s, %d of them larger than the MTU, %d lost, all intact", what, count(sizes, func(s int) bool { return s > mtu-overhead }), len(ds)-rig.Intact(ds))
	}
}

func count[T any](s []T, f func(T) bool) (n int) {
	for _, v := range s {
		if f(v) {
			n++
		}
	}
	return n
}
