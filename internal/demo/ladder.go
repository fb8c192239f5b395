package demo

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"sixfour/internal/api"
	"sixfour/internal/rig"
)

// Ladder is what was measured of a tunnel with several paths.
type Ladder struct {
	Steps     []Step `json:"steps"`
	Sent      int    `json:"sent"`
	Lost      int    `json:"lost"`
	Reordered int    `json:"reordered"` // packets that arrived after a later one
}

// Step is what was measured while the provider dropped the same packets.
type Step struct {
	What   string        `json:"what"`
	Path   int           `json:"path"`      // that packets from A use at the end: 1 is the first
	After  time.Duration `json:"after_ns"`  // from the beginning of the step until they do
	Outage time.Duration `json:"outage_ns"` // the longest time in which no packet arrived
	Sent   int           `json:"sent"`
	Lost   int           `json:"lost"`
	begin  time.Duration // since the traffic began
}

const ladderNetwork = `
   namespace A                   provider                   namespace B
   10.0.0.1         path 1: IPv4, protocol 41               10.0.0.2
      |             path 2: UDP, port 5555 (fou)               |
      |             path 3: HTTPS, port 443                    |
   203.0.113.10 ------------ [ a filter ] ------------ 203.0.113.20
`

const ladderPaths = `
[[tunnel.path]]

[[tunnel.path]]
encap = "fou"
port  = 5555

[[tunnel.path]]
encap       = "https"
secret_file = %q
`

// The lines of the third path that only one end has: A connects to B.
const (
	ladderConnects = `url         = "https://b.example"
ca          = %q
`
	ladderListens = `listen      = true
certificate = %q
key         = %q
`
)

// rungs are names of the paths.
var rungs = [...]string{"protocol 41", "fou", "https"}

const (
	ladderRate = 1000 // packets per second
	// ladderStay is how long a path is shown in use.
	ladderStay = 2 * time.Second
	// ladderDown and ladderUp are the longest times until packets use another path, if that in
	// use has failed, and if a better one works again.
	ladderDown = 15 * time.Second
	ladderUp   = 60 * time.Second
)

// ladder is one run.
type ladder struct {
	demo
	provider *rig.Provider
	flow     *flow
	film     film
	measured Ladder
}

// RunLadder shows which of its paths a tunnel uses while a provider drops some packets. It
// tells what it does on w. Program is the path of sixfourd. It cleans up, whether it succeeds
// or not.
func RunLadder(ctx context.Context, w io.Writer, program string) (res Ladder, err error) {
	dir, err := tempDir()
	if err != nil {
		return res, err
	}
	l := &ladder{demo: demo{w: w, program: program, dir: dir, began: time.Now()}}
	defer l.end()
	err = l.steps(ctx, []step{
		{"two namespaces, joined by a provider's network", l.network},
		{"a daemon in each", l.start},
		l.filtered(fmt.Sprintf("A sends %d packets per second to B", ladderRate), 1, ladderDown),
		l.filtered("the provider drops protocol 41", 2, ladderDown, isProtocol41),
		l.filtered("it drops all UDP, too", 3, ladderDown, isProtocol41, isUDP),
		l.filtered("it drops nothing any more", 1, ladderUp),
		{"what happened", l.report},
	})
	return l.measured, err
}

func (l *ladder) network(context.Context) error {
	err := l.namespaces(func() (err error) {
		l.provider, err = rig.Through(l.ns[0], "va", l.ns[1], "vb", 1500)
		return err
	})
	if err == nil {
		fmt.Fprint(l.w, ladderNetwork)
	}
	return err
}

func (l *ladder) start(ctx context.Context) error {
	c, err := rig.NewCertificate("b.example")
	if err != nil {
		return err
	}
	names := [...]string{"secret", "ca.pem", "b.pem", "b.key"}
	for i, content := range [len(names)][]byte{[]byte(rand.Text()), c.CA, c.Cert, c.Key} {
		names[i] = filepath.Join(l.dir, names[i])
		if err := os.WriteFile(names[i], content, 0o600); err != nil {
			return err
		}
	}
	paths := fmt.Sprintf(ladderPaths, names[0])
	lines := [2]string{paths + fmt.Sprintf(ladderConnects, names[1]), paths + fmt.Sprintf(ladderListens, names[2], names[3])}
	return l.launch(ctx, lines, func(t *api.TunnelStatus) bool {
		for _, p := range t.Paths {
			if p.State.Phase != api.Up || p.Liveness.RTT == 0 {
				return false
			}
		}
		return len(t.Paths) == len(rungs)
	})
}

// filter reports whether a provider drops an IPv4 packet, whose header has no options.
type filter func(packet []byte) bool

const (
	protocolByte = 9
	protocol41   = 41
	protocolUDP  = 17
	ipv4Len      = 20
)

func isProtocol41(packet []byte) bool { return packet[protocolByte] == protocol41 }

func isUDP(packet []byte) bool { return packet[protocolByte] == protocolUDP }

// filtered is a step in which the provider drops some packets, at the end of which packets use
// a path.
func (l *ladder) filtered(what string, path int, longest time.Duration, filters ...filter) step {
	return step{what, func(ctx context.Context) error {
		if l.flow == nil {
			to := netip.AddrPortFrom(inner[1], 5003)
			var err error
			if l.flow, err = newFlow(l.ns[0], l.ns[1], to, ladderRate); err != nil {
				return err
			}
			l.film.start(l.sockets[0], l.flow.began)
		}
		s := Step{What: what, Path: path, begin: l.flow.now()}
		l.provider.Drop(func(packet []byte) bool {
			for _, drops := range filters {
				if len(packet) >= ipv4Len && drops(packet) {
					return true
				}
			}
			return false
		})
		wait, cancel := context.WithTimeout(ctx, longest)
		defer cancel()
		var was api.PathStatus // that packets use before
		err := l.await(wait, 0, func(t *api.TunnelStatus) bool {
			if len(l.measured.Steps) > 0 {
				was = t.Paths[l.measured.Steps[len(l.measured.Steps)-1].Path-1]
			}
			return t.Paths[path-1].Used
		})
		if err != nil {
			return fmt.Errorf("packets do not use path %d after %v: %w", path, longest, err)
		}
		s.After = l.flow.now() - s.begin
		if len(l.measured.Steps) > 0 {
			fmt.Fprintf(l.w, "  after %.1f s packets use path %d, %s; path %d: %s\n", s.After.Seconds(), path, rungs[path-1], l.measured.Steps[len(l.measured.Steps)-1].Path, was.Why)
		}
		l.measured.Steps = append(l.measured.Steps, s)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(ladderStay):
			return nil
		}
	}}
}

// report prints what happened.
func (l *ladder) report(context.Context) error {
	l.film.stop()
	l.flow.stop()
	l.measured.Sent, l.measured.Lost, l.measured.Reordered = len(l.flow.sent), l.flow.lost(0, l.flow.ended), l.flow.reordered
	for i := range l.measured.Steps {
		s, end := &l.measured.Steps[i], l.flow.ended
		if i+1 < len(l.measured.Steps) {
			end = l.measured.Steps[i+1].begin
		}
		s.Sent, s.Lost, s.Outage = l.flow.count(s.begin, end), l.flow.lost(s.begin, end), l.flow.outage(s.begin, end)
	}
	l.draw()
	fmt.Fprintf(l.w, "\n  %-40s %7s %7s %18s\n", "", "sent", "lost", "nothing arrived for")
	for _, s := range l.measured.Steps {
		fmt.Fprintf(l.w, "  %-40s %7d %7d %16.2f s\n", s.What, s.Sent, s.Lost, s.Outage.Seconds())
	}
	fmt.Fprintf(l.w, "  %d of %d packets arrived after a later one\n", l.measured.Reordered, l.measured.Sent)
	return nil
}

// end ends the traffic, and cleans up.
func (l *ladder) end() {
	l.film.stop()
	if l.flow != nil {
		l.flow.stop()
	}
	l.cleanUp()
	if l.provider != nil {
		l.provider.Close()
	}
}
