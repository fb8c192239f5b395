package main

import (
	"fmt"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"sixfour/internal/readiness"
	"sixfour/internal/systemd"
	"sixfour/internal/text"
)

// report is the line that "systemctl status" shows: the state of the tunnels, and the
// result of the last reload.
type report struct {
	mu      sync.Mutex
	tunnels string
	waiting bool   // some tunnels were waiting
	metrics string // why metrics cannot be served; "": they can, or are not configured
	reload  string // "": there was no reload
}

// line changes the report, and returns it as a line.
func (r *report) line(change func(*report)) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	change(r)
	var parts []string
	for _, part := range []string{text.Cut(r.reload, maxReload), r.metrics, r.tunnels} {
		if part != "" {
			parts = append(parts, part)
		}
	}
	return systemd.Status("%s", strings.Join(parts, "; "))
}

const (
	maxReload = 500 // bytes of the status line for the result of a reload
	maxNamed  = 5   // tunnels that the status line names
)

// describe returns the state of the tunnels as one line.
func describe(s readiness.Summary) string {
	count := fmt.Sprintf("%d tunnels", s.Tunnels)
	if s.Tunnels == 1 {
		count = "1 tunnel"
	}
	if len(s.Waiting) == 0 {
		return count + ", ready to carry packets"
	}
	named := s.Waiting[:min(len(s.Waiting), maxNamed)]
	waits := make([]string, len(named))
	for i, w := range named {
		waits[i] = w.Tunnel + " waits for " + w.For
	}
	line := count + ", waiting: " + strings.Join(waits, "; ")
	if more := len(s.Waiting) - len(named); more > 0 {
		line += fmt.Sprintf("; and %d more", more)
	}
	return line
}

// reportState reports the state of the tunnels: to the log, and to the service manager. The
// first report means that the daemon is ready: the configuration is in effect, and each
// tunnel either can carry packets or is named.
func (p *process) reportState(s readiness.Summary) {
	fields := []zap.Field{zap.Int("tunnels", s.Tunnels)}
	if len(s.Waiting) > 0 {
		names := make([]string, len(s.Waiting))
		for i, w := range s.Waiting {
			names[i] = w.Tunnel
		}
		fields = append(fields, zap.Strings("waiting", names))
	}
	waited := false
	status := p.report.line(func(r *report) {
		waited = r.waiting
		r.tunnels, r.waiting = describe(s), len(s.Waiting) > 0
	})
	if !p.ready.Swap(true) {
		p.log.Info("ready", fields...)
		p.notify(systemd.Ready, status)
		return
	}
	if waited && len(s.Waiting) == 0 {
		p.log.Info("every tunnel can carry packets now", fields...)
	}
	p.notify(status)
}

// heartbeat sends the heartbeat to the service manager while the control loop works. During the
// start and a reload it also extends the time that they may take (TimeoutStartSec= applies
// to ExecReload=, too). The control loop calls it for each peer.
func (p *process) heartbeat() {
	const each, more = 10 * time.Second, time.Minute
	ready := p.ready.Load()
	alive, starting := ready && p.watchdog > 0, !ready || p.reloading.Load()
	interval := each
	if alive {
		interval = p.watchdog / 4
	}
	if starting {
		interval = min(interval, each)
	}
	now := time.Now()
	if !alive && !starting || now.Sub(p.lastBeat) <= interval {
		return
	}
	var states []string
	if alive {
		states = append(states, systemd.Alive)
	}
	if starting {
		states = append(states, systemd.Starting(more))
	}
	p.notify(states...)
	p.lastBeat = now
}
