package ports

import (
	"fmt"
	"net/url"
	"strings"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"sixfour/encap/header"
)

// Store stores descriptors for the next process, as a service manager does.
type Store interface {
	// Store stores a copy of a descriptor under a name of printable ASCII without a colon.
	Store(name string, fd int) error
	// Remove releases the descriptors stored under a name.
	Remove(name string) error
}

// Kept is the descriptors that one process passes to the next, by name. While a copy of a
// descriptor is open, arriving packets wait in its queue.
type Kept struct {
	store  Store            // nil: there is none
	passed map[string][]int // inherited and not taken yet
	log    *zap.Logger
}

// NewKept returns the descriptors that the previous process passed on, which it owns, and
// a store for the next process. A nil store stores nothing.
func NewKept(store Store, passed map[string][]int, log *zap.Logger) *Kept {
	return &Kept{store: store, passed: passed, log: log}
}

// Stores reports whether there is a store.
func (k *Kept) Stores() bool { return k.store != nil }

// Descriptor is something with a descriptor, which stays open until f returns.
type Descriptor interface {
	Use(f func(fd int) error) error
}

// Save stores the descriptor of d, if it is a Descriptor. A failure has no effect until a
// restart, which then loses packets.
func (k *Kept) Save(name string, d any) {
	of, ok := d.(Descriptor)
	if k.store == nil || !ok {
		return
	}
	if err := of.Use(func(fd int) error { return k.store.Store(name, fd) }); err != nil {
		k.log.Warn("the service manager did not store a descriptor: a restart will lose packets", zap.String("descriptor", name), zap.Error(err))
	}
}

// Remove releases a stored descriptor.
func (k *Kept) Remove(name string) {
	if k.store == nil {
		return
	}
	if err := k.store.Remove(name); err != nil {
		k.log.Warn("the service manager did not release a stored descriptor", zap.String("descriptor", name), zap.Error(err))
	}
}

// Has reports whether a descriptor was inherited and not taken yet.
func (k *Kept) Has(name string) bool { return len(k.passed[name]) > 0 }

// Take returns the inherited descriptor of a name, which then belongs to the caller, and
// closes any others of that name; -1: none.
func (k *Kept) Take(name string) int {
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

// CloseRest closes the inherited descriptors that were not taken, and releases them.
func (k *Kept) CloseRest() {
	for name, fds := range k.passed {
		k.log.Info("closed a stored descriptor that is no longer needed", zap.String("descriptor", name))
		for _, fd := range fds {
			unix.Close(fd)
		}
		k.Remove(name)
	}
	k.passed = nil
}

// dropMarked closes and releases the inherited descriptors of UDP at the address and port of
// k with another mark. It reports whether there were any.
func (k *Kept) dropMarked(of Key) (any bool) {
	at := udpPrefix(of)
	for name, fds := range k.passed {
		if !strings.HasPrefix(name, at) || strings.HasPrefix(name, fmt.Sprintf("%s%d/", at, of.Mark)) {
			continue
		}
		for _, fd := range fds {
			unix.Close(fd)
		}
		delete(k.passed, name)
		k.Remove(name)
		any = true
	}
	return any
}

// udpPrefix begins the names of all descriptors of UDP at the address and port of a key.
func udpPrefix(k Key) string { return "udp/" + url.QueryEscape(k.Local.String()) + "/" }

// name is the name under which the descriptor of a shard is stored.
func name(k Key, shard, shards int) string {
	if k.Protocol == header.UDP {
		return fmt.Sprintf("%s%d/%d/%d/%d", udpPrefix(k), k.Mark, k.Device, shard, shards)
	}
	return fmt.Sprintf("raw/%d/%s/%d/%d", k.Protocol, url.QueryEscape(k.Local.Addr().String()), shard, shards)
}
