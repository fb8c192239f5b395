// Package report keeps what status, events and the log say of tunnels and of the paths to
// their peers: the state of each path, its last error and outage, and what the daemon
// repaired.
package report

import (
	"net/netip"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"golang.org/x/time/rate"

	"sixfour/internal/api"
	"sixfour/internal/events"
)

// Repair is a kind of fault that the daemon repairs.
type Repair int

// What the daemon repairs by itself.
const (
	Interface Repair = iota // it was deleted
	Address                 // an address of the interface was removed, or the outer address has changed
	Route                   // a route through the interface was removed, or the outer route has changed
	Socket                  // a socket had failed
	Name                    // a name has another address now
	Panic                   // panic in a goroutine of the tunnel, which continues with new state
	Namespace               // the namespace was deleted and made again
	repairs
)

var repairNames = [repairs]string{"interface", "address", "route", "socket", "name", "panic", "namespace"}

// Tunnel reports on a tunnel. Any goroutine may call its methods, except for those that are
// for the control loop.
type Tunnel struct {
	Events *events.Log // nil: events are not recorded; it must not change while a method runs

	name string
	hub  bool
	log  *zap.Logger

	noXDP    string                 // last logged reason why packets do not leave through AF_XDP; used by the control loop only
	noKernel atomic.Pointer[string] // the same for the kernel

	repairs        [repairs]atomic.Uint64
	troubles       *rate.Limiter // limits events about errors
	falls, returns *rate.Limiter // limit log lines about peers that stop or resume answering

	// Used by the control loop only.
	waiting   int       // paths that began to wait since the last full evaluation
	lastRoute lastRoute // last change that was counted, so that it counts once for all paths
}

const (
	// Limits of events about the errors of one tunnel: an attacker who forges ICMP errors
	// must not displace all other events.
	troublesPerSecond = 1
	troublesAtOnce    = 10
	// Limits of how many of a hub's peers are logged that fail or return at the same time.
	lifeLogs     = 10
	lifeLogPause = 10 * time.Second
	// waitingLogs limits how many of a hub's peers are logged that begin to wait at the
	// same time: when the uplink fails, there may be thousands.
	waitingLogs = 10
)

// NewTunnel returns what reports on a tunnel. A hub may have thousands of peers, so that less
// is logged about each.
func NewTunnel(name string, hub bool, log *zap.Logger) *Tunnel {
	life := func() *rate.Limiter { return rate.NewLimiter(rate.Every(lifeLogPause), lifeLogs) }
	return &Tunnel{
		name: name, hub: hub, log: log,
		troubles: rate.NewLimiter(troublesPerSecond, troublesAtOnce), falls: life(), returns: life(),
	}
}

// Event adds an event about the tunnel.
func (t *Tunnel) Event(kind, text string) {
	t.Events.Add(api.Event{At: time.Now(), Tunnel: t.name, Kind: kind, Text: text})
}

// Resolved logs the addresses of a name, if they are known.
func (t *Tunnel) Resolved(log *zap.Logger, name string, addrs []netip.Addr) {
	if len(addrs) > 0 {
		log.Log(t.Level(), "resolved", zap.String("name", name), zap.Stringers("addresses", addrs))
	}
}

// Repaired counts and reports a repair.
func (t *Tunnel) Repaired(r Repair, text string) {
	t.Count(r)
	t.Event(api.EventRepair, text)
}

// Count counts a repair that is reported otherwise.
func (t *Tunnel) Count(r Repair) { t.repairs[r].Add(1) }

// Panicked counts and reports a panic while doing something for the tunnel.
func (t *Tunnel) Panicked(doing string) {
	t.Count(Panic)
	if t.troubles.Allow() {
		t.Event(api.EventError, "panic: a bug in sixfourd while "+doing+"; the log has the stack")
	}
}

// Repairs returns the non-zero counts of repairs by name; nil: none.
func (t *Tunnel) Repairs() map[string]uint64 {
	var m map[string]uint64
	for r, name := range repairNames {
		if n := t.repairs[r].Load(); n > 0 {
			if m == nil {
				m = make(map[string]uint64)
			}
			m[name] = n
		}
	}
	return m
}

// Level returns the log level of ordinary state changes of a peer.
func (t *Tunnel) Level() zapcore.Level {
	if t.hub {
		return zap.DebugLevel
	}
	return zap.InfoLevel
}

// LimitWaiting begins a full evaluation of all paths, for which the number of log lines about
// paths that begin to wait is limited. The control loop calls it.
func (t *Tunnel) LimitWaiting() { t.waiting = 0 }

// waitingLevel returns the log level for one more waiting path.
func (t *Tunnel) waitingLevel() zapcore.Level {
	t.waiting++
	if t.waiting > waitingLogs {
		return zap.DebugLevel
	}
	return zap.WarnLevel
}

// FallLevel returns the log level for one more peer that has failed: one, or less if a hub
// has too many of them.
func (t *Tunnel) FallLevel(one zapcore.Level) zapcore.Level { return t.lifeLevel(t.falls, one) }

func (t *Tunnel) lifeLevel(limit *rate.Limiter, one zapcore.Level) zapcore.Level {
	if t.hub && !limit.Allow() {
		return zap.DebugLevel
	}
	return one
}
