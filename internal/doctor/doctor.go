// Package doctor checks everything that a tunnel needs, on this host and on the path to
// each peer. For each thing it says whether it is in order and, if not, how to correct it.
// It does not need a daemon, and changes nothing.
package doctor

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"
)

// Verdict is the result of a check.
type Verdict string

// The verdicts. A check is skipped if it is not possible or not relevant.
const (
	Pass Verdict = "PASS"
	Fail Verdict = "FAIL"
	Skip Verdict = "SKIP"
)

// finding is the outcome of a check: one sentence and, if something is wrong, the command or
// configuration line that corrects it.
type finding struct {
	verdict Verdict
	text    string
	mend    string
}

func pass(format string, args ...any) finding {
	return finding{Pass, fmt.Sprintf(format, args...), ""}
}

func skip(format string, args ...any) finding {
	return finding{Skip, fmt.Sprintf(format, args...), ""}
}

func fail(mend, format string, args ...any) finding {
	return finding{Fail, fmt.Sprintf(format, args...), mend}
}

// but returns a copy of the finding with a remedy.
func (f finding) but(mend string) finding {
	f.mend = mend
	return f
}

// Result is the result of one check of one subject.
type Result struct {
	Check   string  `json:"check"`   // its ID
	Subject Subject `json:"subject"` // what was checked
	Tunnel  string  `json:"tunnel,omitempty"`
	Peer    string  `json:"peer,omitempty"` // its name, or its outer address if it has none
	Verdict Verdict `json:"verdict"`
	Finding string  `json:"finding"`
	Mend    string  `json:"mend,omitempty"` // the command or line that corrects it
}

// Report is the results for the host, for each tunnel with its peers, and for the gateway,
// if there is one.
type Report struct {
	Checks  []Result `json:"checks"`
	Passed  int      `json:"passed"`
	Failed  int      `json:"failed"`
	Skipped int      `json:"skipped"`
	// Unseen is how many peers were not checked because there are too many.
	Unseen int `json:"unseen_peers,omitempty"`
}

// Options selects what to check.
type Options struct {
	Config string // path; "": that of the running daemon, or else the default
	Socket string // control socket; "": the configured one, or else the default
	// Names are the tunnels, or peers as TUNNEL/PEER, to check; empty: all tunnels, with
	// the first peers of each.
	Names []string
	Paths Paths
}

// Paths are the locations of system files; the zero value means the usual ones.
type Paths struct {
	Config  string   // /etc/sixfour.toml
	Socket  string   // /run/sixfour/control.sock
	Tun     string   // /dev/net/tun
	Modules string   // /sys/module
	Proc    string   // /proc
	Units   []string // directories of systemd units
}

// orDefault fills in the usual locations.
func (p Paths) orDefault() Paths {
	for _, d := range []struct {
		path *string
		at   string
	}{
		{&p.Config, "/etc/sixfour.toml"}, {&p.Socket, "/run/sixfour/control.sock"},
		{&p.Tun, "/dev/net/tun"}, {&p.Modules, "/sys/module"}, {&p.Proc, "/proc"},
	} {
		if *d.path == "" {
			*d.path = d.at
		}
	}
	if p.Units == nil {
		p.Units = unitDirs
	}
	return p
}

// modules returns the directory in which the kernel lists its modules.
func (p Paths) modules() fs.FS { return os.DirFS(p.Modules) }

const (
	// MaxPeers is how many peers of a tunnel are checked if none is named.
	MaxPeers = 20
	// atOnce is how many peers are checked concurrently: most of the time is spent waiting
	// for answers that do not come.
	atOnce = 8
	// checkLimit is the timeout of a check.
	checkLimit = 20 * time.Second
)

// Run runs all checks. An error means that a name selects nothing.
func Run(ctx context.Context, o Options) (*Report, error) {
	o.Paths = o.Paths.orDefault()
	h := newHost(o)
	defer h.close()
	r := &Report{}
	for _, c := range hostChecks {
		r.add(c.Check, "", "", attempt(ctx, h, c.run))
	}
	tunnels, err := h.tunnels(o.Names)
	if err != nil {
		return nil, err
	}
	for _, t := range tunnels {
		for _, c := range tunnelChecks {
			f := attempt(ctx, t, c.run)
			if f.verdict == Fail {
				t.failed = append(t.failed, c.ID)
			}
			r.add(c.Check, t.cfg.Name, "", f)
		}
		r.Unseen += t.unseen
		for i, findings := range t.lookAtPeers(ctx) {
			for j, f := range findings {
				r.add(peerChecks[j].Check, t.cfg.Name, t.peers[i].label(), f)
			}
		}
	}
	if g := h.gateway(); g != nil && len(o.Names) == 0 {
		g.noteFailed(r)
		for _, c := range gatewayChecks {
			r.add(c.Check, "", "", attempt(ctx, g, c.run))
		}
	}
	return r, ctx.Err()
}

// lookAtPeers runs all checks of all peers, several peers at a time.
func (t *tunnel) lookAtPeers(ctx context.Context) [][]finding {
	all := make([][]finding, len(t.peers))
	slots := make(chan struct{}, atOnce)
	var wg sync.WaitGroup
	for i, p := range t.peers {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			all[i] = p.look(ctx)
		})
	}
	wg.Wait()
	return all
}

// look runs all checks of a peer.
func (p *peer) look(ctx context.Context) []finding {
	findings := make([]finding, 0, len(peerChecks))
	for _, c := range peerChecks {
		f := attempt(ctx, p, c.run)
		if f.verdict == Fail {
			p.failed = append(p.failed, c.ID)
		}
		findings = append(findings, f)
	}
	p.close()
	p.reconsider(findings)
	return findings
}

// lacks returns why something is not tried: another check failed without which it cannot
// work; "": none failed.
func (p *peer) lacks(needed ...string) string {
	for _, id := range needed {
		if slices.Contains(p.failed, id) {
			return fmt.Sprintf("the check %s fails", id)
		}
	}
	return ""
}

// attempt runs a check. A check that panics or does not end affects only itself: it works
// on a copy of the subject, which replaces the subject only if the check ends in time.
func attempt[S any](ctx context.Context, subject *S, check func(*S, context.Context) finding) finding {
	ctx, cancel := context.WithTimeout(ctx, checkLimit)
	defer cancel()
	work := *subject
	done, broken := make(chan finding, 1), make(chan finding, 1)
	go func() {
		defer func() {
			if r := recover(); r != nil {
				broken <- skip("the check broke down, which is a mistake in this program: %v at %s", r, where(debug.Stack()))
			}
		}()
		done <- check(&work, ctx)
	}()
	select {
	case f := <-done:
		*subject = work
		return f
	case f := <-broken:
		return f
	case <-ctx.Done():
		return skip("not known: the check did not end within %v", checkLimit)
	}
}

// where returns the place in a stack trace where a panic began: the first line after those
// of the runtime.
func where(stack []byte) string {
	lines := strings.Split(string(stack), "\n")
	at := slices.IndexFunc(lines, func(l string) bool { return strings.HasPrefix(l, "panic(") })
	if at < 0 || at+3 >= len(lines) {
		return "an unknown place"
	}
	place, _, _ := strings.Cut(strings.TrimSpace(lines[at+3]), " ")
	return filepath.Base(place)
}

func (r *Report) add(c Check, tunnel, peer string, f finding) {
	r.Checks = append(r.Checks, Result{c.ID, c.Subject, tunnel, peer, f.verdict, f.text, f.mend})
	switch f.verdict {
	case Pass:
		r.Passed++
	case Fail:
		r.Failed++
	default:
		r.Skipped++
	}
}
