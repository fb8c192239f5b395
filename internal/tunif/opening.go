package tunif

import (
	"errors"
	"math"
	"net/netip"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"sixfour/encap/resolve"
	"sixfour/internal/iface"
	"sixfour/internal/netns"
	"sixfour/internal/ports"
	"sixfour/internal/report"
)

// opening is the state of making and completing the interface.
type opening struct {
	next     time.Time      // earliest time of the next attempt
	lacks    string         // why there is no interface, or what it lacks; "": nothing
	whole    bool           // it was complete once: what is missing later stops no packets
	loss     Loss           // why the last one was dropped, until there is another
	numbered []netip.Prefix // addresses when it was made or was last renumbered
}

// Retry is the pause between two attempts to make or complete an interface.
const Retry = time.Second

// Lack records why the interface is missing or incomplete; nil: it is complete.
func (i *Interface) Lack(err error) {
	o := &i.opening
	if err == nil {
		o.lacks, o.whole = "", true
		return
	}
	o.next = time.Now().Add(Retry)
	o.lacks = "its interface: " + strings.ReplaceAll(err.Error(), "\n", "; ")
	var missing *netns.Error
	if errors.As(err, &missing) {
		o.lacks = "its " + missing.Error()
	}
}

// Waits returns what the tunnel waits for before any peer can be reached, or "".
func (i *Interface) Waits() string {
	if i.Link != nil && i.opening.whole {
		return ""
	}
	return i.opening.lacks
}

// Again completes the interface, or makes it with open if there is none, when that is due.
// It reports whether there is an interface that was not there before.
func (i *Interface) Again(open func()) (made bool) {
	o := &i.opening
	if i.Link != nil && o.lacks == "" || time.Now().Before(o.next) {
		return false
	}
	if i.Link != nil {
		if i.Lack(i.Link.AddMissing()); o.lacks == "" {
			i.tunnel.Log.Info("the interface now has all its addresses and routes")
		}
		return false
	}
	open()
	if i.Link == nil {
		return false
	}
	if o.loss != (Loss{}) {
		i.tunnel.Log.Info("the interface was made again")
		i.report.Repaired(o.loss.Repair, o.loss.Text)
		o.loss = Loss{}
	}
	return true
}

// Loss says why an interface can no longer be used.
type Loss struct {
	Waits  string        // what the tunnel waits for
	Repair report.Repair // counted when the interface is back
	Text   string        // of the event at that time
	AtOnce bool          // the next attempt is at once
}

// Lose drops an interface that can no longer be used, and what is stored of it; it will be
// made again. No peer may have a path any more. It closes the senders as Close does.
func (i *Interface) Lose(l Loss, kept *ports.Kept, senders interface{ Close() }) {
	i.Close(senders)
	i.Forget(kept)
	i.opening = opening{lacks: l.Waits, loss: l}
	if !l.AtOnce {
		i.opening.next = time.Now().Add(Retry)
	}
}

// Due returns the time until something is to be done for the interface, or most if that is
// less. A change from outside is left alone for the time least.
func (i *Interface) Due(most, least time.Duration) time.Duration {
	if i.opening.lacks != "" {
		most = min(most, Retry)
	}
	if i.touched.Load() && i.Link != nil {
		most = min(most, max(time.Until(i.restoring.next), least))
	}
	return most
}

// Change gives the interface, which must exist, other addresses and routes as far as that is
// possible now; the rest is added later. It reports whether it could remove the former ones;
// if not, nothing has changed.
func (i *Interface) Change(addresses, routes []netip.Prefix) bool {
	if err := i.Link.RemoveOthers(addresses, routes); err != nil {
		i.troubled(&i.warned.state, err)
		return false
	}
	err := i.Link.AddPossible(addresses, routes)
	if i.Lack(err); err != nil {
		i.troubled(&i.warned.state, err)
	}
	return true
}

// Renumber gives the interface, if there is one, the addresses that follow from our outer
// address, and reports whether they are others than before.
func (i *Interface) Renumber(addresses, routes []netip.Prefix) bool {
	if i.Link == nil || slices.Equal(i.opening.numbered, addresses) || !i.Change(addresses, routes) {
		return false
	}
	i.opening.numbered = addresses
	return true
}

// Complete gives the interface, if there is one, the addresses and routes that it lacks. What was
// missing before is no error.
func (i *Interface) Complete(addresses, routes []netip.Prefix) error {
	if i.Link == nil {
		return nil
	}
	waited := i.Link.Missing() != nil
	err := i.Link.Add(addresses, routes)
	if waited {
		i.Lack(err)
		return nil
	}
	return err
}

// Learn gives the interface, if there is one, the addresses and routes that the routers
// advertised.
func (i *Interface) Learn(l resolve.Learnt) {
	if i.Link == nil {
		return
	}
	now := time.Now()
	var leases []iface.Lease
	if l.Link.IsValid() {
		leases = append(leases, iface.Lease{Prefix: l.Link, Preferred: math.MaxInt64, Valid: math.MaxInt64})
	}
	for _, a := range l.Addresses {
		leases = append(leases, iface.Lease{Prefix: a.Prefix, Preferred: max(0, a.Preferred.Sub(now)), Valid: max(0, a.Valid.Sub(now))})
	}
	if err := i.Link.Learn(leases, l.Default.After(now), l.MTU); err != nil {
		i.tunnel.Log.Warn("cannot apply a router advertisement to the interface", zap.Error(err))
	}
}
