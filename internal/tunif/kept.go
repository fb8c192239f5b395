package tunif

import (
	"net/url"
	"strconv"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"sixfour/internal/iface"
	"sixfour/internal/ports"
)

// queueName is the name under which a queue's descriptor is stored. It escapes the
// tunnel's name, which may contain any characters.
func queueName(tunnel string, queue int) string {
	return "tun/" + url.QueryEscape(tunnel) + "/" + strconv.Itoa(queue)
}

// inheritedQueues takes the inherited descriptors of a tunnel's queues.
func inheritedQueues(kept *ports.Kept, tunnel string) (fds []int) {
	for i := 0; ; i++ {
		fd := kept.Take(queueName(tunnel, i))
		if fd < 0 {
			return fds
		}
		fds = append(fds, fd)
	}
}

// OpenKept makes the interface from inherited descriptors if they fit, or a new one, and
// stores its queues for the next process. It calls lost at most once, from another goroutine,
// when the interface is gone.
func (i *Interface) OpenKept(kept *ports.Kept, s iface.Settings, lost func()) error {
	i.opening.whole = false
	s.Descriptors = inheritedQueues(kept, i.tunnel.Name)
	if kept.Stores() {
		s.QueueLength = keptQueue
	}
	defer func() {
		for _, fd := range s.Descriptors {
			unix.Close(fd)
		}
	}()
	if err := i.open(s, lost); err != nil {
		if len(s.Descriptors) > 0 { // an interface that cannot be used again
			i.Forget(kept)
		}
		return err
	}
	i.opening.numbered = s.Addresses
	i.Lack(i.Link.Missing())
	if i.Link.Adopted() {
		i.tunnel.Log.Info("took over the interface of the previous process")
		return nil
	}
	if len(s.Descriptors) > 0 {
		i.tunnel.Log.Info("the interface of the previous process does not fit the configuration: replaced")
		i.Forget(kept)
	}
	i.keep(kept)
	return nil
}

// Discard removes the interface even if copies of its descriptors are stored.
func (i *Interface) Discard(kept *ports.Kept) {
	if !kept.Stores() || i.Link == nil {
		return
	}
	if err := i.Link.Delete(); err != nil {
		i.tunnel.Log.Warn("cannot remove the interface", zap.Error(err))
	}
	i.Forget(kept)
}

// keep stores the queues of the interface.
func (i *Interface) keep(kept *ports.Kept) {
	for n, q := range i.Link.Device.Queues() {
		kept.Save(queueName(i.tunnel.Name, n), q)
	}
}

// Forget releases the stored queues of the interface.
func (i *Interface) Forget(kept *ports.Kept) {
	for n := range i.tunnel.Queues {
		kept.Remove(queueName(i.tunnel.Name, n))
	}
}

// keptQueue is the queue length, in packets, of an interface that outlives the process.
// A packet that is still to be segmented counts as one. Without a store the length is
// 500, the kernel's default; a restart takes some 50 ms. A longer queue would delay
// packets where the uplink is slow. The length cannot be increased only for the time of
// the restart: the kernel loses packets when it changes the length of an interface that
// is up.
const keptQueue = 2048

// drainTime limits how long packets that were already read may take to be sent.
const drainTime = time.Second

// Drain stops reading from the interface, and waits until everything read from it
// is sent.
func (i *Interface) Drain() {
	if i.Link == nil {
		return
	}
	if err := i.Link.Device.Close(); err != nil {
		i.tunnel.Log.Warn("cannot close the interface", zap.Error(err))
	}
	sent := make(chan struct{})
	go func() {
		i.wg.Wait()
		close(sent)
	}()
	select {
	case <-sent:
	case <-time.After(drainTime): // the uplink accepts no packets
	}
}
