// Package doctor checks everything that a tunnel needs, on this host and on the path to
// each peer. For each thing it says whether it is in order and, if not, how to correct
// it. It does not need a daemon, and changes nothing.
package doctor

import (
	"context"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"sixfour/internal/doctor/finding"
	"sixfour/internal/doctor/subject"
)

// Result is the result of one check of one subject.
type Result struct {
	Check   string          `json:"check"`   // its ID
	Subject Subject         `json:"subject"` // what was checked
	Tunnel  string          `json:"tunnel,omitempty"`
	Peer    string          `json:"peer,omitempty"` // its name, or its outer address if it has none
	Verdict finding.Verdict `json:"verdict"`
	Finding string          `json:"finding"`
	Mend    string          `json:"mend,omitempty"` // the command or line that corrects it
}

// Report is the results for the host, for each tunnel with its peers, and for the
// gateway, if there is one.
type Report struct {
	Checks  []Result `json:"checks"`
	Passed  int      `json:"passed"`
	Failed  int      `json:"failed"`
	Skipped int      `json:"skipped"`
	// Unseen is how many peers were not checked because there are too many.
	Unseen int `json:"unseen_peers,omitempty"`
}

const (
	// maxConcurrent is how many peers are checked concurrently: most of the time is spent
	// waiting for answers that do not come.
	maxConcurrent = 8
	// checkLimit is the timeout of a check.
	checkLimit = 20 * time.Second
)

// Run runs all checks. An error means that a name selects nothing.
func Run(ctx context.Context, o subject.Options) (*Report, error) {
	o.Paths = o.Paths.OrDefault()
	h := subject.NewHost(o)
	defer h.Close()
	r := &Report{}
	for _, c := range hostChecks {
		r.add(c.Check, "", "", attempt(ctx, h, c.run))
	}
	tunnels, err := h.Tunnels(o.Names)
	if err != nil {
		return nil, err
	}
	for _, t := range tunnels {
		for _, c := range tunnelChecks {
			f := attempt(ctx, t, c.run)
			if f.Verdict == finding.Fail {
				t.Failed = append(t.Failed, c.ID)
			}
			r.add(c.Check, t.Config.Name, "", f)
		}
		r.Unseen += t.Omitted
		for i, findings := range checkPeers(ctx, t) {
			for j, f := range findings {
				r.add(peerChecks[j].Check, t.Config.Name, t.Peers[i].Label(), f)
			}
		}
	}
	if n := newNATPath(h); n != nil {
		for _, c := range natChecks {
			r.add(c.Check, n.tunnel, "", attempt(ctx, n, c.run))
		}
	}
	if hasBroker(h) && len(o.Names) == 0 {
		for _, c := range brokerChecks {
			r.add(c.Check, "", "", attempt(ctx, h, c.run))
		}
	}
	if hasMapServer(h) && len(o.Names) == 0 {
		for _, c := range mapServerChecks {
			r.add(c.Check, "", "", attempt(ctx, h, c.run))
		}
	}
	if g := newGateway(h); g != nil && len(o.Names) == 0 {
		g.recordFailed(r)
		for _, c := range gatewayChecks {
			r.add(c.Check, "", "", attempt(ctx, g, c.run))
		}
	}
	return r, ctx.Err()
}

// checkPeers runs all checks of all peers, several peers at a time.
func checkPeers(ctx context.Context, t *subject.Tunnel) [][]finding.Finding {
	all := make([][]finding.Finding, len(t.Peers))
	slots := make(chan struct{}, maxConcurrent)
	var wg sync.WaitGroup
	for i, p := range t.Peers {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			all[i] = checkPeer(ctx, p)
		})
	}
	wg.Wait()
	return all
}

// checkPeer runs all checks of a peer.
func checkPeer(ctx context.Context, p *subject.Peer) []finding.Finding {
	findings := make([]finding.Finding, 0, len(peerChecks))
	for _, c := range peerChecks {
		f := attempt(ctx, p, c.run)
		if f.Verdict == finding.Fail {
			p.Failed = append(p.Failed, c.ID)
		}
		findings = append(findings, f)
	}
	p.Close()
	reconsider(p, findings)
	return findings
}

// attempt runs a check. A check that panics or does not end affects only itself: it works
// on a copy of its subject, which replaces the subject only if the check ends in time.
func attempt[S any](ctx context.Context, about *S, check func(context.Context, *S) finding.Finding) finding.Finding {
	ctx, cancel := context.WithTimeout(ctx, checkLimit)
	defer cancel()
	work := *about
	done, broken := make(chan finding.Finding, 1), make(chan finding.Finding, 1)
	go func() {
		defer func() {
			if r := recover(); r != nil {
				broken <- finding.Skipped("the check panicked, which is a bug in this program: %v at %s", r, where(debug.Stack()))
			}
		}()
		done <- check(ctx, &work)
	}()
	select {
	case f := <-done:
		*about = work
		return f
	case f := <-broken:
		return f
	case <-ctx.Done():
		return finding.Skipped("the check did not end within %v", checkLimit)
	}
}

// where returns the place in a stack trace where a panic began: the first line after
// those of the runtime.
func where(stack []byte) string {
	lines := strings.Split(string(stack), "\n")
	at := slices.IndexFunc(lines, func(l string) bool { return strings.HasPrefix(l, "panic(") })
	if at < 0 || at+3 >= len(lines) {
		return "an unknown place"
	}
	place, _, _ := strings.Cut(strings.TrimSpace(lines[at+3]), " ")
	return filepath.Base(place)
}

func (r *Report) add(c Check, tunnel, peer string, f finding.Finding) {
	r.Checks = append(r.Checks, Result{c.ID, c.Subject, tunnel, peer, f.Verdict, f.Text, f.Remedy})
	switch f.Verdict {
	case finding.Pass:
		r.Passed++
	case finding.Fail:
		r.Failed++
	default:
		r.Skipped++
	}
}

// reconsider corrects findings by the results of other checks: if the peer answers,
// packets pass in both directions.
func reconsider(p *subject.Peer, findings []finding.Finding) {
	passed := func(ids ...string) bool {
		return slices.ContainsFunc(ids, func(id string) bool {
			return findings[slices.IndexFunc(peerChecks, func(c peerCheck) bool { return c.ID == id })].Verdict == finding.Pass
		})
	}
	inner := passed("inner_ipv4", "inner_ipv6")
	if !inner && !passed("answer") {
		return
	}
	for i, c := range peerChecks {
		f := &findings[i]
		switch {
		case f.Verdict != finding.Fail:
		case c.ID == "firewall_out" || c.ID == "firewall_in":
			*f = finding.Skipped("the peer answers, although it seems that %s", f.Text)
		case c.ID == "answer" && inner:
			*f = finding.Skipped("the peer answers no probe of the tunnel, but a ping of its inner address")
		}
	}
}
