package names

import (
	"context"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// movePause is how long a remote stays at least at each address after all addresses
	// of its name were tried; it doubles with each round.
	movePause    = 10 * time.Second
	maxMovePause = time.Minute
)

// Remote is the remote end of a path that may be given by a name. The zero value has no name
// and no address. One goroutine owns it; any goroutine may call Doubt and HasAlternatives.
type Remote struct {
	doubt   atomic.Pointer[chan struct{}] // nil: no name is followed
	several atomic.Bool                   // the name has more than one address

	*named // nil: there was no name so far
}

// named is what is known of a name.
type named struct {
	stop    context.CancelFunc // stops following the name; nil: it is not followed
	looked  bool               // the first look-up has finished
	addrs   []netip.Addr       // addresses of the name, in the order of RFC 6724
	current netip.Addr         // the address in use
	moves   int                // changes to another address since the path was last up
	next    time.Time          // earliest time of the next change
}

// begin makes room for what is known of a name.
func (r *Remote) begin() {
	if r.named == nil {
		r.named = new(named)
	}
}

// Follow starts a goroutine of wg that looks up a name until ctx ends or Stop is called, as
// Resolver.Follow does. The name that was followed before is not followed any more.
func (r *Remote) Follow(ctx context.Context, wg *sync.WaitGroup, with *Resolver, network, name string, found func(context.Context, []netip.Addr)) {
	r.Stop()
	r.begin()
	ctx, r.stop = context.WithCancel(ctx)
	doubt := make(chan struct{}, 1)
	r.doubt.Store(&doubt)
	wg.Go(func() { with.Follow(ctx, network, name, doubt, found) })
}

// Stop stops following the name. The address in use stays the same.
func (r *Remote) Stop() {
	if r.named != nil && r.stop != nil {
		r.stop()
		r.stop = nil
		r.doubt.Store(nil)
	}
}

// Forget forgets the addresses of a former name.
func (r *Remote) Forget() {
	if r.named != nil {
		*r.named = named{stop: r.stop}
	}
	r.several.Store(false)
}

// Doubt is called when the address in use seems wrong: if it came from a name, the peer may
// have moved, and the name is looked up soon (mechanisms 2.7).
func (r *Remote) Doubt() {
	d := r.doubt.Load()
	if d == nil { // not a name
		return
	}
	select {
	case *d <- struct{}{}:
	default: // already requested
	}
}

// HasAlternatives reports whether the name has more than one address.
func (r *Remote) HasAlternatives() bool { return r.several.Load() }

// Looked reports whether the first look-up of the name has finished.
func (r *Remote) Looked() bool { return r.named != nil && r.looked }

// Addr returns the address in use; invalid: none is known.
func (r *Remote) Addr() netip.Addr {
	if r.named == nil {
		return netip.Addr{}
	}
	return r.current
}

// Learn sets the addresses of the name; an empty list means that the first look-up failed. A
// name may have several addresses in any order: the present one stays in use if the name
// still has it. Learn reports whether the path must be evaluated, and returns the address
// that was replaced; invalid: none.
func (r *Remote) Learn(addrs []netip.Addr) (before netip.Addr, changed bool) {
	r.begin()
	first := !r.looked
	r.looked = true
	if len(addrs) == 0 {
		return netip.Addr{}, first
	}
	r.addrs = addrs
	r.several.Store(len(addrs) > 1)
	if slices.Contains(addrs, r.current) {
		return netip.Addr{}, false
	}
	before, r.current = r.current, addrs[0]
	return before, true
}

// Reached records that the path was up at the address in use.
func (r *Remote) Reached() {
	if r.named != nil {
		r.moves, r.next = 0, time.Time{}
	}
}

// Due returns the earliest time at which LeaveDead may be called; zero: it may be called at
// once.
func (r *Remote) Due() time.Time {
	if r.named == nil {
		return time.Time{}
	}
	return r.next
}

// LeaveDead makes the next address for which isUsable is true the one in use, because there
// is no answer from the present one. After all addresses were tried, the remote stays longer
// at each. It returns false if there is no such address.
func (r *Remote) LeaveDead(now time.Time, isUsable func(netip.Addr) bool) bool {
	if !r.Move(isUsable) {
		return false
	}
	r.moves++
	if rounds := r.moves / len(r.addrs); rounds > 0 {
		r.next = now.Add(min(movePause<<min(rounds-1, 8), maxMovePause))
	}
	return true
}

// Move makes the next address for which isUsable is true the one in use. It returns false if
// there is no such address. When it calls isUsable, Addr returns the address in question.
func (r *Remote) Move(isUsable func(netip.Addr) bool) bool {
	if r.named == nil {
		return false
	}
	before := r.current
	at := slices.Index(r.addrs, before) // -1: start with the first
	for i := range r.addrs {
		r.current = r.addrs[(at+1+i)%len(r.addrs)]
		if r.current != before && isUsable(r.current) {
			return true
		}
	}
	r.current = before
	return false
}
