package bypass

import (
	"errors"
	"fmt"
	"time"

	nfnetlink "github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

const (
	// pause is the least time between two values of Changed: programs may change sets all the time.
	pause = time.Second
	// pollEvery is how often the tables of iptables are compared, about which there are no messages.
	pollEvery = 10 * time.Second
)

// groups are the multicast groups of netlink about what Why depends on. A kernel without
// nftables has none of its messages.
var groups = []struct {
	family   int
	groups   []uint32
	optional bool
}{
	{unix.NETLINK_ROUTE, []uint32{unix.RTNLGRP_LINK, unix.RTNLGRP_TC}, false},
	{unix.NETLINK_NETFILTER, []uint32{unix.NFNLGRP_NFTABLES}, true},
}

// follow starts to follow changes.
func (w *Watch) follow() error {
	happened := make(chan struct{}, 1)
	for _, g := range groups {
		conn, err := nfnetlink.Dial(g.family, nil)
		if g.optional && errors.Is(err, unix.EPROTONOSUPPORT) {
			continue
		}
		if err != nil {
			return fmt.Errorf("follow changes of the packet filter: %w", err)
		}
		w.events = append(w.events, conn)
		for _, n := range g.groups {
			if err := conn.JoinGroup(n); err != nil {
				return fmt.Errorf("follow changes of the packet filter: join group %d: %w", n, err)
			}
		}
		w.running.Go(func() { w.hear(conn, happened) })
	}
	w.running.Go(func() { w.announce(happened) })
	return nil
}

// hear reports the messages of a connection until it is closed.
func (w *Watch) hear(conn *nfnetlink.Conn, happened chan<- struct{}) {
	for {
		if _, err := conn.Receive(); err != nil && !errors.Is(err, unix.ENOBUFS) { // messages were lost, which are changes, too
			select {
			case <-w.done:
				return
			case <-time.After(w.pause):
			}
		}
		select {
		case happened <- struct{}{}:
		default:
		}
	}
}

// announce makes the next Why read the rules again after changes, and says so in Changed.
func (w *Watch) announce(happened <-chan struct{}) {
	tick := time.NewTicker(w.pollEvery)
	defer tick.Stop()
	for {
		select {
		case <-w.done:
			return
		case <-happened:
		case <-tick.C:
			if !w.legacyChanged() {
				continue
			}
		}
		w.mu.Lock()
		w.stale = true
		w.mu.Unlock()
		select {
		case w.changed <- struct{}{}:
		default:
		}
		select {
		case <-w.done:
			return
		case <-time.After(w.pause):
		}
	}
}

// legacyChanged reports whether the tables of iptables are others than those that were read.
func (w *Watch) legacyChanged() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.stale {
		return w.fault != nil
	}
	for _, l := range w.legacy {
		if l.differs() {
			return true
		}
	}
	return false
}
