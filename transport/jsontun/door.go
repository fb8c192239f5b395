package jsontun

import (
	"net/netip"
	"slices"
	"sync"

	"sixfour/transport/access"
)

// door limits the connections whose clients are not known yet. The connections of a slow or
// hostile program cannot keep the others out.
type door struct {
	max, maxSource int

	mu    sync.Mutex
	all   []*client // the oldest one first
	count map[netip.Addr]int
}

func newDoor(limit, limitSource int) door {
	return door{max: limit, maxSource: limitSource, count: make(map[netip.Addr]int)}
}

// source returns the address that counts for limits: of IPv6 the first one of a network with
// prefix length 64, as one host can have all addresses of it.
func source(a netip.Addr) netip.Addr {
	if a.Is6() {
		p, _ := a.WithZone("").Prefix(64)
		return p.Addr()
	}
	return a
}

// add takes a connection. If there are too many now, it returns the one to close, which it has
// removed: the oldest one of this source, or else of the source with the most.
func (d *door) add(c *client) (surplus *client) {
	d.mu.Lock()
	defer d.mu.Unlock()
	from := source(c.from.Addr())
	d.all = append(d.all, c)
	d.count[from]++
	switch {
	case d.count[from] > d.maxSource:
	case len(d.all) > d.max:
		for a, n := range d.count {
			if n > d.count[from] {
				from = a
			}
		}
	default:
		return nil
	}
	i := slices.IndexFunc(d.all, func(c *client) bool { return source(c.from.Addr()) == from })
	surplus = d.all[i]
	d.delete(i)
	return surplus
}

// enter takes a connection, and closes another one if there are too many now.
func (d *door) enter(c *client) {
	if surplus := d.add(c); surplus != nil {
		surplus.abort(access.Refuse(access.TooMany, "closed to make room for newer connections"))
	}
}

// remove removes a connection. It returns false if it is not there.
func (d *door) remove(c *client) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	i := slices.Index(d.all, c)
	if i < 0 {
		return false
	}
	d.delete(i)
	return true
}

func (d *door) delete(i int) {
	from := source(d.all[i].from.Addr())
	if d.count[from]--; d.count[from] == 0 {
		delete(d.count, from)
	}
	d.all = slices.Delete(d.all, i, i+1)
}

// deciders run what may wait for the Authority, in a limited number of goroutines.
type deciders struct {
	mu      sync.Mutex
	waiting []func()
	active  int
}

// maxDeciders is how many clients wait for the Authority at the same time. A store writes for
// many together.
const maxDeciders = 256

// run runs f in a goroutine of the server, soon.
func (d *deciders) run(s *Server, f func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.waiting = append(d.waiting, f)
	if d.active == maxDeciders || s.ctx.Err() != nil {
		return
	}
	d.active++
	s.running.Go(func() {
		for {
			d.mu.Lock()
			if len(d.waiting) == 0 || s.ctx.Err() != nil {
				d.active--
				d.mu.Unlock()
				return
			}
			f := d.waiting[0]
			if d.waiting = d.waiting[1:]; len(d.waiting) == 0 {
				d.waiting = nil
			}
			d.mu.Unlock()
			f()
		}
	})
}
