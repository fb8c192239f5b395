// Package tunif keeps the TUN interface of a tunnel: it opens the interface, runs the
// goroutines that send what is read from it, restores what other programs remove from it, and
// passes its queues to the next process.
package tunif

import (
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"sixfour/internal/datapath"
	"sixfour/internal/iface"
	"sixfour/internal/netns"
	"sixfour/internal/report"
)

// Interface is the TUN interface of a tunnel, while there is one. The control loop owns it;
// any goroutine may read Index, and call Touch and CountOverflow.
type Interface struct {
	Index atomic.Int64 // in its namespace; 0: it was never made
	Link  *iface.Link  // nil: there is no interface

	tunnel *datapath.Tunnel
	report *report.Tunnel
	note   func(text string) // records an error of all paths

	gone     atomic.Pointer[iface.Link] // the last link that was found to be gone
	touched  atomic.Bool                // it was changed from outside
	overflow overflow

	down      bool // administratively down
	opening   opening
	restoring restoring
	warned    struct{ state, mtu string } // the last warnings
	wg        sync.WaitGroup              // for the goroutines that use the device
}

// New returns the interface of a tunnel, which is not made yet. The function note records an
// error of the interface as that of all paths.
func New(t *datapath.Tunnel, r *report.Tunnel, note func(text string)) *Interface {
	return &Interface{tunnel: t, report: r, note: note}
}

// open makes the interface and starts the goroutines that use it. It calls lost at most
// once, from another goroutine, when the interface is gone.
func (i *Interface) open(s iface.Settings, lost func()) error {
	i.tunnel.MTU.Store(int64(s.MTU))
	link, err := iface.Open(s)
	if err != nil {
		return err
	}
	i.Link, i.down = link, false
	i.Index.Store(int64(link.Index()))
	i.overflow.watch(link)
	i.tunnel.Device.Store(link.Device)
	i.tunnel.Reply.Through(i.tunnel.Deliver)
	if got, want := link.Device.Offload(), s.Offload; got < want {
		i.tunnel.Log.Info("the kernel offers fewer offloads than wanted: packets cost more processor time", zap.Stringer("offload", got), zap.Stringer("wanted", want))
	}
	var once sync.Once
	for queue, q := range link.Device.Queues() {
		out := datapath.NewOutbound(i.tunnel, q, queue)
		i.wg.Go(func() {
			out.Run()
			once.Do(func() {
				i.gone.Store(link)
				lost()
			})
		})
	}
	return nil
}

// IsGone reports whether a goroutine that uses the interface has found it gone.
func (i *Interface) IsGone() bool { return i.Link != nil && i.gone.Load() == i.Link }

// Check checks the interface after a change from outside, and restores what the kernel
// removed while it was down.
//
// The interface's goroutines also find that it is gone, but not while they wait for room
// in a socket.
func (i *Interface) Check() (gone bool) {
	if i.Link == nil || !i.touched.Swap(false) {
		return false
	}
	up, err := i.Link.IsUp()
	if errors.Is(err, iface.ErrGone) {
		return true
	}
	now := time.Now()
	if err == nil && up && now.Before(i.restoring.next) {
		i.touched.Store(true) // check again at that time
	} else if err == nil && up {
		var r iface.Restored
		r, err = i.Link.Restore()
		i.restored(r, now)
		if err == nil {
			err = i.Link.RouteConflict()
		}
		if err == nil {
			i.warned.state = ""
		}
	}
	switch {
	case err != nil:
		i.troubled(&i.warned.state, err)
		i.touched.Store(true)
		if next := now.Add(lookSoon); i.restoring.next.Before(next) {
			i.restoring.next = next
		}
	case !up && !i.down:
		i.tunnel.Log.Warn("the interface is down: packets are lost until it is up again (ip link set " + i.tunnel.Name + " up)")
	case up && i.down:
		i.tunnel.Log.Info("the interface is up again")
	}
	i.down = err == nil && !up
	return false
}

// lookSoon is the time after which an interface is checked again if restoring it failed.
const lookSoon = 5 * time.Second

// troubled reports a fault of the interface, unless the last warning was the same.
func (i *Interface) troubled(last *string, err error) {
	if err.Error() == *last {
		return
	}
	*last = err.Error()
	i.tunnel.Log.Warn("cannot restore the interface", zap.Error(err))
	i.note("interface " + i.tunnel.Name + ": " + err.Error())
}

// Close removes the interface, closes the senders, and waits for the goroutines that use
// them. No peer may have a path any more.
func (i *Interface) Close(senders interface{ Close() }) {
	if i.Link == nil {
		return
	}
	i.tunnel.Device.Store(nil)
	i.overflow.end(i.tunnel)
	if err := i.Link.Close(); err != nil {
		i.tunnel.Log.Warn("cannot close the interface", zap.Error(err))
	}
	senders.Close() // a goroutine that uses the device may be blocked in a socket
	i.wg.Wait()
	i.tunnel.Reply.Close()
	i.Link = nil
}

// NamespaceLost returns an error if the namespace of the interface, with a name, does not exist
// any more, or is another one by now. Known are the namespaces that were identified already.
func (i *Interface) NamespaceLost(name string, known netns.IDs) error {
	id, err := known.Identify(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return err
	case err == nil && id != i.Link.Namespace():
		return fmt.Errorf("network namespace %s: it was deleted and made again", name)
	}
	return nil
}

// Present returns the index of the interface; 0: there is none now.
func (i *Interface) Present() int {
	if i.Link == nil {
		return 0
	}
	return i.Link.Index()
}

// Touch makes Check look at the interface: it was changed from outside.
func (i *Interface) Touch() { i.touched.Store(true) }

// SetMTU sets the MTU of the tunnel, and of the interface if there is one.
func (i *Interface) SetMTU(mtu int) {
	if i.Link != nil && int64(mtu) != i.tunnel.MTU.Load() {
		if err := i.Link.SetMTU(mtu); err != nil {
			i.troubled(&i.warned.mtu, err)
			return
		}
	}
	i.tunnel.MTU.Store(int64(mtu))
}

// SetRouteProgram gives the routes into the interface a BPF program, by its descriptor; 0: none.
func (i *Interface) SetRouteProgram(descriptor int) {
	if i.Link == nil {
		return
	}
	if err := i.Link.SetRouteProgram(descriptor); err != nil {
		i.tunnel.Log.Warn("packets are sent by the process though the kernel could: the routes have no program", zap.Error(err))
	}
}

// CountOverflow counts the packets for which the queues of the interface had no room since
// the last call.
func (i *Interface) CountOverflow() { i.overflow.look(i.tunnel) }

// IsDown reports whether the interface is administratively down.
func (i *Interface) IsDown() bool { return i.down }
