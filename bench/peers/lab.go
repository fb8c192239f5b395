package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"sixfour/internal/rig"
)

// For the two ends of every lab: their addresses on the wire and in the tunnel, and the
// tunnel's interface if its program lets us choose the name.
var (
	ends  = [2]string{"a", "b"}
	outer = [2]netip.Addr{netip.MustParseAddr("10.99.0.1"), netip.MustParseAddr("10.99.0.2")}
	inner = [2]netip.Addr{netip.MustParseAddr("10.77.0.1"), netip.MustParseAddr("10.77.0.2")}
)

const (
	outerBits, innerBits = 24, 30
	wire                 = "wire"
	wireMTU              = 1500
	tunnel               = "t0"
	tunnelMTU            = 1420 // WireGuard's usual MTU, which all peers support
)

// lab is the environment of one peer: two namespaces joined by a veth pair, its daemons,
// and a directory for their files. Each turn has a new one, so that nothing remains from
// an earlier turn.
type lab struct {
	dir      string
	programs string // the directory of programs that were built once for all turns
	ns       [2]*rig.Namespace
	daemons  []*daemon
	undo     []func()
}

func newLab(programs string) (*lab, error) {
	l := &lab{programs: programs}
	err := l.open()
	if err != nil {
		l.close()
		return nil, err
	}
	return l, nil
}

func (l *lab) open() (err error) {
	if l.dir, err = os.MkdirTemp(l.programs, "turn"); err != nil {
		return err
	}
	l.undo = append(l.undo, func() { _ = os.RemoveAll(l.dir) })
	for i, name := range ends {
		if l.ns[i], err = rig.New(name); err != nil {
			return err
		}
		l.undo = append(l.undo, l.ns[i].Close)
	}
	if err := rig.Veth(l.ns[0], wire, l.ns[1], wire, wireMTU); err != nil {
		return err
	}
	for i := range ends {
		if err := l.ns[i].AddAddr(wire, netip.PrefixFrom(outer[i], outerBits)); err != nil {
			return err
		}
	}
	return nil
}

// close first stops the daemons, and then undoes everything else in the reverse order.
func (l *lab) close() {
	for _, d := range l.daemons {
		d.terminate()
	}
	for _, d := range l.daemons {
		d.wait()
	}
	for len(l.undo) > 0 {
		last := len(l.undo) - 1
		l.undo[last]()
		l.undo = l.undo[:last]
	}
}

// ends returns the ends between which a peer carries packets.
func (l *lab) ends(p peer) (a, b end) {
	at := inner
	if p.up == nil {
		at = outer
	}
	return end{l.ns[0], at[0]}, end{l.ns[1], at[1]}
}

// path returns the path of a file of the lab.
func (l *lab) path(name string) string { return filepath.Join(l.dir, name) }

func (l *lab) write(name, content string) (string, error) {
	path := l.path(name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return "", err
	}
	return path, os.WriteFile(path, []byte(content), 0o600)
}

// start starts a daemon at end i.
func (l *lab) start(i int, program string, args ...string) error {
	d, err := startDaemon(l.ns[i], l.path(fmt.Sprintf("log-%s", ends[i])), program, args...)
	if err == nil {
		l.daemons = append(l.daemons, d)
	}
	return err
}

// broken returns an error with the last output if a daemon has ended.
func (l *lab) broken() error {
	for _, d := range l.daemons {
		if err := d.ended(); err != nil {
			return err
		}
	}
	return nil
}

// patience is how long a daemon may take to make its interface, or a tunnel to carry its
// first packet.
const patience = 10 * time.Second

// await waits until a device exists.
func (l *lab) await(ctx context.Context, i int, dev string) error {
	return l.retry(ctx, func() error { _, err := l.ns[i].MTU(dev); return err })
}

// reach waits until the address answers a ping from the first end.
func (l *lab) reach(ctx context.Context, to netip.Addr) error {
	return l.retry(ctx, func() error {
		r, err := rig.Ping(ctx, l.ns[0], to, rig.PingOptions{Timeout: 200 * time.Millisecond})
		if err == nil && r.Received == 0 {
			err = fmt.Errorf("%v does not answer", to)
			if len(r.ICMP) > 0 {
				err = fmt.Errorf("%w: %v", err, r.ICMP[0])
			}
		}
		return err
	})
}

// retry repeats f until it succeeds, too much time has passed, or a daemon ends.
func (l *lab) retry(ctx context.Context, f func() error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		err := f()
		if err == nil {
			return nil
		}
		if broken := l.broken(); broken != nil {
			return broken
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("after %v: %w", patience, err), l.said())
		}
	}
}

// said returns the daemons' last output as an error.
func (l *lab) said() error {
	var lines []string
	for _, d := range l.daemons {
		if tail := d.tail(); tail != "" {
			lines = append(lines, tail)
		}
	}
	if len(lines) == 0 {
		return nil
	}
	return errors.New(strings.Join(lines, "; "))
}

// configure sets what daemons have not set on their interfaces: the MTU, the address,
// and the state.
func (l *lab) configure(ctx context.Context, devs [2]string) error {
	for i, dev := range devs {
		if err := l.await(ctx, i, dev); err != nil {
			return err
		}
		if err := l.ns[i].SetMTU(dev, tunnelMTU); err != nil {
			return err
		}
		if err := l.ns[i].AddAddr(dev, netip.PrefixFrom(inner[i], innerBits)); err != nil {
			return err
		}
		if err := l.ns[i].LinkUp(dev); err != nil {
			return err
		}
	}
	return nil
}
