package engine

import (
	"fmt"
	"net/url"
	"strconv"
	"sync"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"sixfour/internal/datapath"
	"sixfour/internal/iface"
	"sixfour/transport"
)

// Store stores descriptors for the next process, as a service manager does.
type Store interface {
	// Store stores a copy of a descriptor under a name of printable ASCII without a colon.
	Store(name string, fd int) error
	// Remove releases the descriptors stored under a name.
	Remove(name string) error
}

// handover holds what one process passes to the next: the queues of the interfaces, and the
// sockets that receive outer packets. While a copy of a descriptor is open, arriving
// packets wait in its queue.
type handover struct {
	store  Store            // nil: there is none
	passed map[string][]int // inherited descriptors by name that are not adopted yet
}

// Keep makes the engine store the descriptors of what it makes, and adopt those that the
// previous process passed on, given by name. The engine owns these and closes the ones
// that it cannot use. Call Keep before Run. Run then does not remove interfaces when its
// ctx ends: the kernel removes them when the last copy of their descriptors is closed.
func (e *Engine) Keep(s Store, passed map[string][]int) { e.handover = handover{s, passed} }

// queueName is the name under which a queue's descriptor is stored. It escapes the
// tunnel's name, which may contain any characters.
func queueName(tunnel string, queue int) string {
	return "tun/" + url.QueryEscape(tunnel) + "/" + strconv.Itoa(queue)
}

func receiverName(l listener, s transport.Shard) string {
	return fmt.Sprintf("raw/%d/%s/%d/%d", l.protocol, url.QueryEscape(l.local.String()), s.Index, s.Count)
}

// save stores a descriptor. A failure has no effect until a restart, which then loses
// packets.
func (k *handover) save(name string, use func(func(fd int) error) error, log *zap.Logger) {
	if k.store == nil {
		return
	}
	if err := use(func(fd int) error { return k.store.Store(name, fd) }); err != nil {
		log.Warn("the service manager did not store a descriptor: a restart will lose packets", zap.String("descriptor", name), zap.Error(err))
	}
}

// remove releases a stored descriptor.
func (k *handover) remove(name string, log *zap.Logger) {
	if k.store == nil {
		return
	}
	if err := k.store.Remove(name); err != nil {
		log.Warn("the service manager did not release a stored descriptor", zap.String("descriptor", name), zap.Error(err))
	}
}

// take returns the descriptor of a name and closes any others of that name; -1: none.
func (k *handover) take(name string) int {
	fds := k.passed[name]
	if len(fds) == 0 {
		return -1
	}
	for _, more := range fds[1:] {
		unix.Close(more)
	}
	delete(k.passed, name)
	return fds[0]
}

// queuesOf takes the descriptors of a tunnel's queues.
func (k *handover) queuesOf(tunnel string) (fds []int) {
	for i := 0; ; i++ {
		fd := k.take(queueName(tunnel, i))
		if fd < 0 {
			return fds
		}
		fds = append(fds, fd)
	}
}

// closeRest closes the inherited descriptors that were not adopted.
func (e *Engine) closeRest() {
	for name, fds := range e.handover.passed {
		e.log.Info("closed a stored descriptor that is no longer needed", zap.String("descriptor", name))
		for _, fd := range fds {
			unix.Close(fd)
		}
		e.handover.remove(name, e.log)
	}
	e.handover.passed = nil
}

// openKept makes a tunnel's interface from inherited descriptors if they fit, or a new
// one.
func (e *Engine) openKept(t *tunnel, s iface.Settings) error {
	s.Descriptors = e.handover.queuesOf(t.cfg.Name)
	if e.handover.store != nil {
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
	if e.handover.store == nil || t.link == nil {
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
		e.handover.save(queueName(t.cfg.Name, i), q.Use, t.Log)
	}
}

// forgetQueues releases the stored queues of a tunnel's interface.
func (e *Engine) forgetQueues(t *tunnel) {
	for i := range t.Queues {
		e.handover.remove(queueName(t.cfg.Name, i), t.Log)
	}
}

// adoptReceivers adopts the inherited receivers of a listener if all shards are there.
func (e *Engine) adoptReceivers(l listener, shards int) (all []transport.Receiver) {
	for i := range shards {
		fd := e.handover.take(receiverName(l, transport.Shard{Index: i, Count: shards}))
		if fd < 0 {
			break
		}
		rx, err := transport.AdoptRaw(fd, l.local, int(l.protocol), e.segments)
		if err != nil {
			e.log.Warn("cannot take over a socket of the previous process: the packets waiting in it are lost", zap.Error(err))
			unix.Close(fd)
			break
		}
		all = append(all, rx)
	}
	if len(all) == shards {
		return all
	}
	closeAll(all)
	return nil
}

// keepReceivers stores the receivers of a listener. It leaves out those of multicast
// groups: they are bound to a device, which may have changed by the time of adoption.
func (e *Engine) keepReceivers(l listener, inbounds []*datapath.Inbound) {
	for i, in := range inbounds {
		if rx, ok := in.Rx.(*transport.RawPort); ok && !l.at.IsValid() {
			e.handover.save(receiverName(l, transport.Shard{Index: i, Count: len(inbounds)}), rx.Use, e.log)
		}
	}
}

// forgetReceivers releases the stored receivers of a listener.
func (e *Engine) forgetReceivers(l listener) {
	for i := range e.inbounds[l] {
		if !l.at.IsValid() {
			e.handover.remove(receiverName(l, transport.Shard{Index: i, Count: len(e.inbounds[l])}), e.log)
		}
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
	for _, shards := range e.inbounds {
		for _, in := range shards {
			in.Rx.Close()
		}
	}
	// From now on packets arrive at the raw sockets and leave through them.
	for device, p := range e.ports {
		if p.err == nil {
			e.closePort(p)
			delete(e.ports, device)
		}
	}
	e.receivers.Wait()
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
