package engine

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"syscall"
	"time"

	"sixfour/encap/drop"
	"sixfour/encap/icmp"
	"sixfour/internal/api"
	"sixfour/internal/datapath"
)

// troublePause is the least time between two checks of packets that the kernel refuses to
// send: such an error often repeats for every packet.
const troublePause = time.Second

// note records the peer's last error, and adds an event if the error is new.
func (p *path) note(what string) {
	now := time.Now()
	p.mu.Lock()
	news := what != p.trouble.What || now.Sub(p.trouble.At) > outdated
	p.trouble = api.Fault{At: now, What: what}
	p.mu.Unlock()
	if news && p.t.troubles.Allow() {
		p.event(api.EventError, what)
	}
}

// remember records a change as the last error; another event reports it.
func (p *path) remember(what string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.trouble = api.Fault{At: time.Now(), What: what}
}

// outdated is the time after which the same error is reported again.
const outdated = time.Minute

// Limits of events about the errors of one tunnel: an attacker who forges ICMP errors must
// not displace all other events.
const (
	troublesPerSecond = 1
	troublesAtOnce    = 10
)

// noteICMP records an ICMP error that a host on the path sent about a packet of ours.
func (p *path) noteICMP(from netip.Addr, err icmp.Error) {
	p.note(fmt.Sprintf("ICMP error from %v: %v", from, err))
}

// SendFailed records that the kernel refused to send a packet. It ignores packets that are
// too large and a temporary lack of buffers: these are not errors of the peer.
func (p *path) SendFailed(err error) {
	if r := datapath.SendReason(err); r == drop.TooBig || r == drop.NoBuffer {
		return
	}
	now := int64(time.Since(datapath.Epoch)) // monotonic: the wall clock may be set back
	last := p.refused.Load()
	if last != 0 && now-last < int64(troublePause) || !p.refused.CompareAndSwap(last, now) {
		return
	}
	var errno syscall.Errno
	if errors.As(err, &errno) {
		err = errno
	}
	p.note(fmt.Sprintf("packets cannot be sent: %v", err))
}

// Events delivers the last hundred events, and new ones until ctx ends, when the channel is
// closed. A reader that falls more than a thousand events behind misses the oldest of them;
// an event of the kind "lost" then says how many.
func (e *Engine) Events(ctx context.Context) <-chan api.Event { return e.events.Follow(ctx) }

// event adds an event about a peer.
func (p *path) event(kind, text string) {
	if l := p.label(); l != "" {
		text = l + ": " + text
	}
	p.t.events.Add(api.Event{At: time.Now(), Tunnel: p.t.cfg.Name, Peer: p.peer.cfg.Name, Kind: kind, Text: text})
}

// event adds an event about a tunnel.
func (t *tunnel) event(kind, text string) {
	t.events.Add(api.Event{At: time.Now(), Tunnel: t.cfg.Name, Kind: kind, Text: text})
}
