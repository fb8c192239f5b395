package engine

import (
	"net/url"
	"strconv"
	"sync"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"sixfour/internal/iface"
	"sixfour/internal/ports"
)

// Keep makes the engine store the descriptors of what it makes, and adopt those that the
// previous process passed on, given by name. The engine owns these and closes the ones
// that it cannot use. Call Keep before Run. Run then does not remove interfaces when its
// ctx ends: the kernel removes them when the last copy of their descriptors is closed.
func (e *Engine) Keep(s ports.Store, passed map[string][]int) {
	e.sockets.Kept = ports.NewKept(s, passed, e.log)
}

// queueName is the name under which a queue's descriptor is stored. It escapes the
// tunnel's name, which may contain any characters.
func queueName(tunnel string, queue int) string {
	return "tun/" + url.QueryEscape(tunnel) + "/" + strconv.Itoa(queue)
}

// inheritedQueues takes the inherited descriptors of a tunnel's queues.
func (e *Engine) inheritedQueues(tunnel string) (fds []int) {
	for i := 0; ; i++ {
		fd := e.sockets.Kept.Take(queueName(tunnel, i))
		if fd < 0 {
			return fds
		}
		fds = append(fds, fd)
	}
}

// openKept makes a tunnel's interface from inherited descriptors if they fit, or a new
// one.
func (e *Engine) openKept(t *tunnel, s iface.Settings) error {
	s.Descriptors = e.inheritedQueues(t.cfg.Name)
	if e.sockets.Kept.Stores() {
		s.QueueLength = keptQueue
	}
	defer func() {
		for _, fd := range s.Descriptors {
			unix.Close(fd)
		}
	}()
	if err := t.open(s, e.interfaceGone); err != nil {
		if len(s.Descriptors) > 0 { // an interface that cannot be used again
			e.forgetQueues(t)
		}
		return err
	}
	if t.link.Adopted() {
		t.Log.Info("took over the interface of the previous process")
		return nil
	}
	if len(s.Descriptors) > 0 {
		t.Log.Info("the interface of the previous process does not fit the configuration: replaced")
		e.forgetQueues(t)
	}
	e.keepQueues(t)
	return nil
}

// discard removes a tunnel's interface even if copies of its descriptors are stored.
func (e *Engine) discard(t *tunnel) {
	if !e.sockets.Kept.Stores() || t.link == nil {
		return
	}
	if err := t.link.Delete(); err != nil {
		t.Log.Warn("cannot remove the interface", zap.Error(err))
	}
	e.forgetQueues(t)
}

// keepQueues stores the queues of a tunnel's interface.
func (e *Engine) keepQueues(t *tunnel) {
	for i, q := range t.link.Device.Queues() {
		e.sockets.Kept.Save(queueName(t.cfg.Name, i), q)
	}
}

// forgetQueues releases the stored queues of a tunnel's interface.
func (e *Engine) forgetQueues(t *tunnel) {
	for i := range t.Queues {
		e.sockets.Kept.Remove(queueName(t.cfg.Name, i))
	}
}

// keptQueue is the queue length, in packets, of an interface that outlives the process.
// A packet that is still to be segmented counts as one. Without a store the length is
// 500, the kernel's default; a restart takes some 50 ms. A longer queue would delay
// packets where the uplink is slow. The length cannot be increased only for the time of
// the restart: the kernel loses packets when it changes the length of an interface that
// is up.
const keptQueue = 2048

// handOver stops the goroutines that carry packets without losing a packet that was
// already read from a queue or a socket. Packets still in them are for the next process.
func (e *Engine) handOver() {
	e.sockets.Close()
	e.xdp.Close() // from now on packets arrive at the raw sockets and leave through them
	e.xdp.Wait()
	var all sync.WaitGroup
	for _, t := range e.tunnels {
		all.Go(t.drain)
	}
	all.Wait()
}

// drainTime limits how long packets that were already read may take to be sent.
const drainTime = time.Second

// drain stops reading from a tunnel's interface, and waits until everything read from it
// is sent.
func (t *tunnel) drain() {
	if t.link == nil {
		return
	}
	if err := t.link.Device.Close(); err != nil {
		t.Log.Warn("cannot close the interface", zap.Error(err))
	}
	sent := make(chan struct{})
	go func() {
		t.wg.Wait()
		close(sent)
	}()
	select {
	case <-sent:
	case <-time.After(drainTime): // the uplink accepts no packets
	}
}
