package engine

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"go.uber.org/zap"

	"sixfour/internal/api"
	"sixfour/internal/netcfg"
)

// naming is the state of a remote that is a name.
type naming struct {
	looked bool         // the first look-up has finished
	addrs  []netip.Addr // addresses of the name, sorted
	moves  int          // changes to another address since the peer was last up
	next   time.Time    // earliest time of the next change
}

const (
	// movePause is how long a peer stays at least at each address after all addresses of
	// its name were tried; it doubles with each round.
	movePause    = 10 * time.Second
	maxMovePause = time.Minute
)

// learnName sets the addresses of a peer's name, and reports whether paths must be
// evaluated.
func (p *path) learnName(name string, addrs []netip.Addr) (changed bool) {
	first := !p.naming.looked
	p.naming.looked = true
	if len(addrs) == 0 {
		return first
	}
	p.naming.addrs = addrs
	p.hasAlternatives.Store(len(addrs) > 1)
	if slices.Contains(addrs, p.resolved) {
		return false
	}
	if was := p.resolved; was.IsValid() {
		text := fmt.Sprintf("the name %s now resolves to %v, before to %v", name, addrs[0], was)
		p.repaired(repairName, text)
		p.remember(text)
	}
	p.resolved = addrs[0]
	return true
}

// isLookedUp reports whether the first look-up of the peer's name is still running.
func (p *path) isLookedUp() bool { return p.remote().Name != "" && !p.naming.looked }

// leaveDead moves a peer that is down to the next address of its name. After all addresses
// were tried, it stays longer at each.
func (e *Engine) leaveDead(p *path, now time.Time) {
	if len(p.naming.addrs) < 2 {
		return
	}
	p.mu.Lock()
	down := p.state.Phase == api.Down
	if p.wasUp {
		p.naming.moves, p.naming.next, p.wasUp = 0, time.Time{}, false
	}
	p.mu.Unlock()
	if !down {
		return
	}
	if now.Before(p.naming.next) {
		if e.loop.moveAt.IsZero() || p.naming.next.Before(e.loop.moveAt) {
			e.loop.moveAt = p.naming.next
		}
		return
	}
	dead := p.resolved
	if _, ok := e.otherAddress(p); !ok {
		return
	}
	p.naming.moves++
	if rounds := p.naming.moves / len(p.naming.addrs); rounds > 0 {
		p.naming.next = now.Add(min(movePause<<min(rounds-1, 8), maxMovePause))
	}
	p.reportMove(dead, "does not answer")
}

// leaveUnusable moves a peer to the next address of its name if the present one cannot be
// reached, and returns the route to it.
func (e *Engine) leaveUnusable(p *path, answer netcfg.Answer) netcfg.Answer {
	if len(p.naming.addrs) < 2 || e.isUsable(p, p.resolved, answer) {
		return answer
	}
	before := p.resolved
	why := "cannot be reached"
	if answer.Err == nil {
		why = "is an address of this host itself"
	}
	other, ok := e.otherAddress(p)
	if ok {
		p.reportMove(before, why)
		return other
	}
	return answer
}

// otherAddress makes the next usable address of the peer's name its remote address, and
// returns the route to it; false: there is none.
func (e *Engine) otherAddress(p *path) (netcfg.Answer, bool) {
	addrs, before := p.naming.addrs, p.resolved
	at := slices.Index(addrs, before) // -1: start with the first
	for i := range addrs {
		p.resolved = addrs[(at+1+i)%len(addrs)]
		if p.resolved == before {
			continue
		}
		if a := e.routesTo([]*path{p})[0]; e.isUsable(p, p.resolved, a) {
			return a, true
		}
	}
	p.resolved = before
	return netcfg.Answer{}, false
}

// isUsable reports whether packets to a remote address leave this host.
func (e *Engine) isUsable(p *path, remote netip.Addr, a netcfg.Answer) bool {
	return a.Err == nil && (!a.ToThisHost || e.meets(p, remote, a.Route))
}

// reportMove reports that a peer has left an address of its name.
func (p *path) reportMove(from netip.Addr, why string) {
	text := fmt.Sprintf("%v %s: the next address of %s, %v, is used now", from, why, p.remote().Name, p.resolved)
	p.remember(text)
	p.log().Log(p.t.lifeLevel(p.t.falls, zap.InfoLevel), "using the next address of the name", zap.String("name", p.remote().Name),
		zap.Stringer("address", p.resolved), zap.Stringer("before", from), zap.String("why", why))
}
