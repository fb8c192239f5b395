package engine

import (
	"errors"
	"fmt"
	"net/netip"
	"syscall"
	"time"

	"sixfour/encap/drop"
	"sixfour/encap/icmp"
	"sixfour/internal/api"
)

// troublePause is the least time between two events about the same trouble, and
// between two looks at packets that the kernel refuses: what goes wrong does so for
// each packet.
const troublePause = time.Second

// epoch is a moment from which others are counted.
var epoch = time.Now()

// note notes what went wrong last, and tells of it if it is news.
func (p *peer) note(what string) {
	now := time.Now()
	p.mu.Lock()
	news := what != p.trouble.What || now.Sub(p.trouble.At) > outdated
	p.trouble = api.Trouble{At: now, What: what}
	p.mu.Unlock()
	if news && p.t.troubles.Allow() {
		p.event(api.EventError, what)
	}
}

// remember notes what has changed, of which there is another event.
func (p *peer) remember(what string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.trouble = api.Trouble{At: time.Now(), What: what}
}

// outdated is after how long the same trouble is told of again.
const outdated = time.Minute

// Of a tunnel's troubles so many are told of: whoever forges ICMP errors shall not
// wipe out all other events.
const (
	troublesPerSecond = 1
	troublesAtOnce    = 10
)

// noteICMP notes an error that somebody on the way has sent about a packet of ours.
func (p *peer) noteICMP(from netip.Addr, err icmp.Error) {
	p.note(fmt.Sprintf("%v said: %v", from, err))
}

// noteSend notes that the kernel did not take a packet. That one is too large, or
// there is no room just now, is no trouble of the peer's.
func (p *peer) noteSend(err error) {
	if r := sendReason(err); r == drop.TooBig || r == drop.NoBuffer {
		return
	}
	now := int64(time.Since(epoch)) // a clock on the wall may be set back
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
