// Package demo shows the main job on one machine: two network namespaces stand
// for two servers, and two daemons carry IPv4 in IPv6 in IPv4 between them.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"sixfour/internal/api"
	"sixfour/internal/control/client"
	"sixfour/internal/decode"
	"sixfour/internal/rig"
	"sixfour/internal/trusted"
)

// Result is what was measured.
type Result struct {
	RTT6           time.Duration     `json:"rtt_ipv6_layer_ns"` // median, of the IPv6 layer
	RTT4           time.Duration     `json:"rtt_stack_ns"`      // median, through both layers
	TCPBitsPerSec  float64           `json:"tcp_bits_per_second"`
	UDPPacketsPerS float64           `json:"udp_64_byte_packets_per_second"`
	UDPLost        int64             `json:"udp_lost"`
	TunnelMTU      int               `json:"tunnel_mtu"`
	Drops          map[string]uint64 `json:"drops"`
}

const (
	loadTime = 3 * time.Second
	pings    = 100
	// ready is how long a daemon has to get there.
	ready = 5 * time.Second
)

var (
	outer = [2]netip.Addr{netip.MustParseAddr("203.0.113.10"), netip.MustParseAddr("203.0.113.20")}
	mid   = [2]netip.Addr{netip.MustParseAddr("fc00::1"), netip.MustParseAddr("fc00::2")}
	inner = [2]netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")}
)

const drawing = `
   namespace A                                             namespace B
   10.0.0.1      your IPv4 packets, interface six0             10.0.0.2
      |                                                           |
   fc00::1   - - - - -  IPv6, next header 4  - - - - - - - -   fc00::2
      |                                                           |
   203.0.113.10  ======== IPv4, protocol 41 ========  203.0.113.20
      va ---------------------- veth pair ---------------------- vb
`

const configuration = `[control]
socket = %q

[[tunnel]]
name    = "six0"
mode    = "4in6in4"
local   = "%v"
remote  = "%v"
local6  = "%v"
remote6 = "%v"
address = ["%v/30", "%v/64"]
`

// demo is one run.
type demo struct {
	w       io.Writer
	program string // sixfourd
	dir     string
	began   time.Time
	ns      [2]*rig.Namespace
	daemons []*exec.Cmd
	sockets [2]string
	result  Result
}

// Run runs the demonstration and tells what it does on w. Program is the path
// of sixfourd. It cleans up, whether it succeeds or not.
func Run(ctx context.Context, w io.Writer, program string) (res Result, err error) {
	dir, err := tempDir()
	if err != nil {
		return res, err
	}
	d := &demo{w: w, program: program, dir: dir, began: time.Now()}
	defer d.cleanUp()
	err = d.steps(ctx, []step{
		{"two namespaces, joined by a veth pair", d.network},
		{"a daemon in each", d.start},
		{"ping the IPv6 layer: fc00::2", d.ping6},
		{"ping through the whole stack: 10.0.0.2", d.ping4},
		{"one packet on the wire, layer by layer", d.packet},
		{fmt.Sprintf("TCP for %v", loadTime), d.tcp},
		{fmt.Sprintf("UDP for %v: datagrams of 64 bytes, as many as possible", loadTime), d.udp},
		{"what the daemons report", d.status},
	})
	return d.result, err
}

// step is a part of a demonstration.
type step struct {
	what string
	do   func(context.Context) error
}

// steps shows one step after the other.
func (d *demo) steps(ctx context.Context, steps []step) error {
	for _, s := range steps {
		fmt.Fprintf(d.w, "\n[%4.1f s] %s\n", time.Since(d.began).Seconds(), s.what)
		if err := s.do(ctx); err != nil {
			return fmt.Errorf("%s: %w", s.what, err)
		}
	}
	return nil
}

// tempDir is a directory for the daemons' files, which no other user can replace.
func tempDir() (string, error) {
	parent, err := trusted.OpenDir(os.TempDir(), false, trusted.Owners{})
	if err != nil {
		return "", fmt.Errorf("directory for temporary files (TMPDIR): %w", err)
	}
	defer parent.Close()
	return os.MkdirTemp("", "sixfour-demo")
}

func (d *demo) network(context.Context) error {
	err := d.namespaces(func() error { return rig.Veth(d.ns[0], "va", d.ns[1], "vb", 1500) })
	if err == nil {
		fmt.Fprint(d.w, drawing)
	}
	return err
}

// namespaces makes the two namespaces, which join connects.
func (d *demo) namespaces(join func() error) (err error) {
	for i, name := range []string{"A", "B"} {
		if d.ns[i], err = rig.New(name); err != nil {
			return err
		}
	}
	if err := join(); err != nil {
		return err
	}
	for i, dev := range []string{"va", "vb"} {
		if err := d.ns[i].AddAddr(dev, netip.PrefixFrom(outer[i], 24)); err != nil {
			return err
		}
	}
	return nil
}

func (d *demo) start(ctx context.Context) error {
	return d.launch(ctx, [2]string{}, func(t *api.TunnelStatus) bool {
		d.result.TunnelMTU = t.State.TunnelMTU
		return t.State.Phase == api.Up
	})
}

// launch starts the two daemons, with more lines in the configuration of each, and waits until
// the tunnels of both are ready.
func (d *demo) launch(ctx context.Context, lines [2]string, isReady func(*api.TunnelStatus) bool) error {
	for i, name := range []string{"a", "b"} {
		o := 1 - i
		d.sockets[i] = filepath.Join(d.dir, name+".sock")
		text := fmt.Sprintf(configuration, d.sockets[i], outer[i], outer[o], mid[i], mid[o], inner[i], mid[i]) + lines[i]
		if err := d.daemon(d.ns[i], name, text); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, ready)
	defer cancel()
	for i := range d.sockets {
		if err := d.await(ctx, i, isReady); err != nil {
			return fmt.Errorf("a daemon is not ready after %v: its log is printed above (%w)", ready, err)
		}
	}
	return nil
}

// daemon starts a daemon in a namespace, with a configuration, which it prints.
func (d *demo) daemon(ns *rig.Namespace, name, text string) error {
	path := filepath.Join(d.dir, name+".toml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		return err
	}
	fmt.Fprintf(d.w, "  sixfourd -config %s\n%s\n", path, indent(text))
	cmd := exec.Command(d.program, "-config", path, "-log-level", "warn", "-log-format", "console")
	cmd.Stdout, cmd.Stderr = d.w, d.w
	if err := ns.Start(cmd); err != nil {
		return err
	}
	d.daemons = append(d.daemons, cmd)
	return nil
}

// await waits until the tunnel of a daemon is in some state.
func (d *demo) await(ctx context.Context, daemon int, is func(*api.TunnelStatus) bool) error {
	for {
		s, err := client.Status(ctx, d.sockets[daemon])
		if err == nil && is(&s.Tunnels[0]) {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func indent(text string) string {
	return "    " + strings.ReplaceAll(strings.TrimSpace(text), "\n", "\n    ")
}

func (d *demo) ping6(ctx context.Context) (err error) {
	d.result.RTT6, err = d.ping(ctx, mid[1])
	return err
}

func (d *demo) ping4(ctx context.Context) (err error) {
	d.result.RTT4, err = d.ping(ctx, inner[1])
	return err
}

// ping returns the median round-trip time.
func (d *demo) ping(ctx context.Context, to netip.Addr) (time.Duration, error) {
	res, err := rig.Ping(ctx, d.ns[0], to, rig.PingOptions{Size: 56, Count: pings})
	if err != nil {
		return 0, err
	}
	if res.Received == 0 {
		return 0, fmt.Errorf("none of %d pings was answered", res.Sent)
	}
	slices.Sort(res.RTTs)
	median := res.RTTs[len(res.RTTs)/2]
	fmt.Fprintf(d.w, "  %d sent, %d received; round trip: minimum %v, median %v, maximum %v\n",
		res.Sent, res.Received, round(res.RTTs[0]), round(median), round(res.RTTs[len(res.RTTs)-1]))
	return median, nil
}

func round(t time.Duration) time.Duration { return t.Round(time.Microsecond) }

// packet pings once more and takes what was on the veth pair apart.
func (d *demo) packet(ctx context.Context) error {
	wire, err := d.ns[1].Capture("vb")
	if err != nil {
		return err
	}
	defer wire.Close()
	ctx, cancel := context.WithTimeout(ctx, ready)
	defer cancel()
	if _, err := rig.Ping(ctx, d.ns[0], inner[1], rig.PingOptions{Size: 56}); err != nil {
		return err
	}
	const ipv4 = 4 // next header
	f, err := wire.Find(ctx, func(f rig.Frame) bool {
		p := f.Packet()
		return len(p) > 26 && p[0] == 0x45 && p[protocolByte] == protocol41 && p[26] == ipv4
	})
	if err != nil {
		return err
	}
	decode.Print(d.w, decode.Layers(f.Data, decode.LinkEthernet))
	return nil
}

func (d *demo) tcp(ctx context.Context) error {
	r, err := rig.Load(ctx, d.ns[0], d.ns[1], netip.AddrPortFrom(inner[1], 5001), rig.LoadOptions{Duration: loadTime})
	if err != nil {
		return err
	}
	d.result.TCPBitsPerSec = 8 * r.BytesPerSecond()
	fmt.Fprintf(d.w, "  %.2f Gbit/s\n", d.result.TCPBitsPerSec/1e9)
	return nil
}

func (d *demo) udp(ctx context.Context) error {
	r, err := rig.Load(ctx, d.ns[0], d.ns[1], netip.AddrPortFrom(inner[1], 5002), rig.LoadOptions{UDP: true, Size: 64, Duration: loadTime})
	if err != nil {
		return err
	}
	d.result.UDPPacketsPerS, d.result.UDPLost = r.PacketsPerSecond(), r.Lost()
	fmt.Fprintf(d.w, "  %.0f packets per second arrived; %d of %d were lost, because they were more than the tunnel can carry\n",
		r.PacketsPerSecond(), r.Lost(), r.Sent)
	return nil
}

func (d *demo) status(ctx context.Context) error {
	d.result.Drops = make(map[string]uint64)
	for i, socket := range d.sockets {
		s, err := client.Status(ctx, socket)
		if err != nil {
			return err
		}
		for _, t := range s.Tunnels {
			fmt.Fprintf(d.w, "  %s: %s %s, MTU %d; out %d packets, in %d packets\n", d.ns[i].Name(), t.Name, t.State.Phase, t.State.TunnelMTU, t.Out.Packets, t.In.Packets)
			for _, drops := range []map[string]uint64{t.In.Drops, t.Out.Drops} {
				for reason, n := range drops {
					d.result.Drops[reason] += n
					fmt.Fprintf(d.w, "     dropped: %s %d (sent faster than the tunnel can carry, or before both ends were up)\n", reason, n)
				}
			}
		}
	}
	return nil
}

// cleanUp ends the daemons, which take their interfaces with them, and gives
// the namespaces up, which take everything else.
func (d *demo) cleanUp() {
	for _, cmd := range d.daemons {
		_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended by itself
	}
	for _, cmd := range d.daemons {
		_ = cmd.Wait()
	}
	for _, ns := range d.ns {
		if ns != nil {
			ns.Close()
		}
	}
	os.RemoveAll(d.dir)
	fmt.Fprintf(d.w, "\n[%4.1f s] cleaned up\n", time.Since(d.began).Seconds())
}
