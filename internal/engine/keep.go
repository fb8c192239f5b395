package engine

import (
	"fmt"
	"net/url"
	"strconv"
	"sync"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"sixfour/internal/netcfg"
	"sixfour/transport"
)

// Store keeps descriptors for the process that follows this one.
type Store interface {
	// Store keeps a copy of a descriptor under a name of printable ASCII without a colon.
	Store(name string, fd int) error
	// Remove gives up those of a name.
	Remove(name string) error
}

// kept is what goes from one process to the next: the queues of the interfaces, and
// the sockets at which outer packets arrive. As long as somebody has copies of their
// descriptors, what comes waits in them.
type kept struct {
	store  Store            // nil: there is none
	passed map[string][]int // descriptors by name, that nobody has taken yet
}

// Keep has the engine store the descriptors of what it makes, and take over those that
// were passed to the process, by their names, which become the engine's. What of them
// is of no use it closes. Call it before Run, which then leaves interfaces alone when
// its ctx ends: they are gone with the last copy.
func (e *Engine) Keep(s Store, passed map[string][]int) { e.kept = kept{s, passed} }

// Names of descriptors. A tunnel's name may have any letters in it.
func queueName(tunnel string, queue int) string {
	return "tun/" + url.QueryEscape(tunnel) + "/" + strconv.Itoa(queue)
}

func receiverName(l listener, s transport.Shard) string {
	return fmt.Sprintf("raw/%d/%s/%d/%d", l.protocol, url.QueryEscape(l.local.String()), s.Index, s.Count)
}

// put stores a descriptor. A failure costs packets at a restart, and nothing now.
func (k *kept) put(name string, use func(func(fd int) error) error, log *zap.Logger) {
	if k.store == nil {
		return
	}
	if err := use(func(fd int) error { return k.store.Store(name, fd) }); err != nil {
		log.Warn("a restart will lose packets", zap.String("descriptor", name), zap.Error(err))
	}
}

// remove gives up a descriptor that was stored.
func (k *kept) remove(name string, log *zap.Logger) {
	if k.store == nil {
		return
	}
	if err := k.store.Remove(name); err != nil {
		log.Warn("a descriptor stays with the service manager", zap.String("descriptor", name), zap.Error(err))
	}
}

// take takes the only descriptor of a name; -1: there is none.
func (k *kept) take(name string) int {
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

// queuesOf are the descriptors of a tunnel's queues.
func (k *kept) queuesOf(tunnel string) (fds []int) {
	for i := 0; ; i++ {
		fd := k.take(queueName(tunnel, i))
		if fd < 0 {
			return fds
		}
		fds = append(fds, fd)
	}
}

// closeRest closes what nobody has taken.
func (e *Engine) closeRest() {
	for name, fds := range e.kept.passed {
		e.log.Info("a descriptor that was kept is of no use any more", zap.String("descriptor", name))
		for _, fd := range fds {
			unix.Close(fd)
		}
		e.kept.remove(name, e.log)
	}
	e.kept.passed = nil
}

// openKept makes a tunnel's interface of what was kept of it, if that fits.
func (e *Engine) openKept(t *tunnel, s netcfg.Settings) error {
	s.Kept = e.kept.queuesOf(t.cfg.Name)
	if e.kept.store != nil {
		s.QueueLength = keptQueue
	}
	defer func() {
		for _, fd := range s.Kept {
			unix.Close(fd)
		}
	}()
	if err := t.open(s, e.aLinkIsLost); err != nil {
		if len(s.Kept) > 0 { // an interface that nobody would ever use again
			e.forgetQueues(t)
		}
		return err
	}
	if t.link.Adopted() {
		t.log.Info("the interface of the process before was taken over")
		return nil
	}
	if len(s.Kept) > 0 {
		t.log.Info("the interface of the process before was not made as this one is to be: it was replaced")
		e.forgetQueues(t)
	}
	e.keepQueues(t)
	return nil
}

// discard removes a tunnel's interface, whoever has copies of its descriptors.
func (e *Engine) discard(t *tunnel) {
	if e.kept.store == nil || t.link == nil {
		return
	}
	if err := t.link.Delete(); err != nil {
		t.log.Warn("remove interface", zap.Error(err))
	}
	e.forgetQueues(t)
}

// keepQueues stores the queues of a tunnel's interface.
func (e *Engine) keepQueues(t *tunnel) {
	for i, q := range t.link.Device.Queues() {
		e.kept.put(queueName(t.cfg.Name, i), q.Use, t.log)
	}
}

// forgetQueues gives them up.
func (e *Engine) forgetQueues(t *tunnel) {
	for i := range t.queues {
		e.kept.remove(queueName(t.cfg.Name, i), t.log)
	}
}

// adoptReceivers takes the receivers of a place over, if all are there.
func (e *Engine) adoptReceivers(l listener, shards int) (all []transport.Receiver) {
	for i := range shards {
		fd := e.kept.take(receiverName(l, transport.Shard{Index: i, Count: shards}))
		if fd < 0 {
			break
		}
		rx, err := transport.AdoptRaw(fd, l.local, int(l.protocol), e.segments)
		if err != nil {
			e.log.Warn("packets that waited are lost", zap.Error(err))
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

// keepReceivers stores the receivers of a place. Those of groups are bound to a device
// that may be another by then.
func (e *Engine) keepReceivers(l listener, inbounds []*inbound) {
	for i, in := range inbounds {
		if rx, ok := in.rx.(*transport.RawReceiver); ok && !l.at.IsValid() {
			e.kept.put(receiverName(l, transport.Shard{Index: i, Count: len(inbounds)}), rx.Use, e.log)
		}
	}
}

// forgetReceivers gives them up.
func (e *Engine) forgetReceivers(l listener) {
	for i := range e.inbounds[l] {
		if !l.at.IsValid() {
			e.kept.remove(receiverName(l, transport.Shard{Index: i, Count: len(e.inbounds[l])}), e.log)
		}
	}
}

// keptQueue is how many packets wait in each queue of an interface that outlives the
// process, one that is to be segmented counted as one: without a store it is 500, the
// kernel's number, and a restart takes some 50 ms. More would make packets late
// where the uplink is slow. It cannot be another one while nobody reads only: the
// kernel loses packets when it changes that of an interface that is up.
const keptQueue = 2048

// handOver stops the goroutines that carry packets such that none is lost that has
// come out of a queue or a socket: what is still in them is for the next process.
func (e *Engine) handOver() {
	for _, shards := range e.inbounds {
		for _, in := range shards {
			in.rx.Close()
		}
	}
	// From now on packets come to the sockets, and leave through them.
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

// drainTime is how long the last packets that were read may take to leave.
const drainTime = time.Second

// drain ends the reading of a tunnel's interface, and waits for what was read to be
// sent.
func (t *tunnel) drain() {
	if t.link == nil {
		return
	}
	if err := t.link.Device.Close(); err != nil {
		t.log.Warn("close interface", zap.Error(err))
	}
	sent := make(chan struct{})
	go func() {
		t.wg.Wait()
		close(sent)
	}()
	select {
	case <-sent:
	case <-time.After(drainTime): // an uplink that takes nothing
	}
}
