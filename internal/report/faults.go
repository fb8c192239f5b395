package report

import (
	"errors"
	"fmt"
	"net/netip"
	"syscall"
	"time"

	"sixfour/encap/drop"
	"sixfour/encap/icmp"
	"sixfour/internal/api"
	"sixfour/internal/datapath"

	"go.uber.org/zap"
)

// troublePause is the least time between two checks of packets that the kernel refuses to
// send: such an error often repeats for every packet.
const troublePause = time.Second

// Note records the peer's last error, and adds an event if the error is new.
func (p *Path) Note(what string) {
	now := time.Now()
	p.mu.Lock()
	news := p.trouble == nil || what != p.trouble.What || now.Sub(p.trouble.At) > outdated
	p.trouble = &api.Fault{At: now, What: what}
	p.mu.Unlock()
	if news && p.t.troubles.Allow() {
		p.Event(api.EventError, what)
	}
}

// Remember records a change as the last error; another event reports it.
func (p *Path) Remember(what string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.trouble = &api.Fault{At: time.Now(), What: what}
}

// Moved reports that the peer's packets go to another address of its name, and why.
func (p *Path) Moved(name string, from, to netip.Addr, why string) {
	p.Remember(fmt.Sprintf("%v %s: the next address of %s, %v, is used now", from, why, name, to))
	p.logAt(p.t.FallLevel(zap.InfoLevel), "using the next address of the name", zap.String("name", name),
		zap.Stringer("address", to), zap.Stringer("before", from), zap.String("why", why))
}

// outdated is the time after which the same error is reported again.
const outdated = time.Minute

// NoteICMP records an ICMP error that a host on the path sent about a packet of ours.
func (p *Path) NoteICMP(from netip.Addr, err icmp.Error) {
	p.Note(fmt.Sprintf("ICMP error from %v: %v", from, err))
}

// SendFailed records that the kernel refused to send a packet. It ignores packets that are
// too large and a temporary lack of buffers: these are not errors of the peer. It reports
// whether it has recorded the error: one a second.
func (p *Path) SendFailed(err error) bool {
	if r := datapath.SendReason(err); r == drop.TooBig || r == drop.NoBuffer {
		return false
	}
	now := int64(time.Since(datapath.Epoch)) // monotonic: the wall clock may be set back
	last := p.refused.Load()
	if last != 0 && now-last < int64(troublePause) || !p.refused.CompareAndSwap(last, now) {
		return false
	}
	var errno syscall.Errno
	if errors.As(err, &errno) {
		err = errno
	}
	p.Note(fmt.Sprintf("packets cannot be sent: %v", err))
	return true
}

// lastRoute is the local address and the interface by which a peer was last reached. The
// control loop owns it.
type lastRoute struct {
	known  bool
	local  netip.Addr
	device int
}

// Follows counts and reports that a path uses another local address or interface than the
// last path. A change for all peers of a tunnel counts once. The
// control loop calls it.
func (p *Path) Follows(wire *datapath.Wire) {
	was, now := p.lastRoute, lastRoute{true, wire.Outer().Local, wire.Hop.Device}
	p.lastRoute = now
	if !was.known || was == now {
		return
	}
	first := now != p.t.lastRoute
	p.t.lastRoute = now
	text, what := fmt.Sprintf("packets are now sent from %v, before from %v", now.local, was.local), Address
	if now.local == was.local {
		text, what = "packets now leave through another interface", Route
	}
	if first {
		p.Repaired(what, text)
	}
	p.Remember(text)
}
