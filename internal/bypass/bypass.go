// Package bypass determines whether outer packets may go past this host's packet filter.
//
// A program at a device carries packets that then pass no rule of netfilter, and packets that
// arrive pass no later filter of the device (package transport/kernel). That is right only
// where all of these would do nothing but count the packets and let them pass. In doubt, a
// rule counts: if it is unknown whether it matches, or what it does. So does a rule that
// accepts established connections only: packets that go past it are not tracked.
//
// It considers nftables, with the rules of iptables-nft, the tables of the older iptables
// and ip6tables, and filters for what arrives at the device. IPsec policies and routing rules
// are those of netcfg.Policies.
package bypass

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sixfour/encap/header"
	"sixfour/internal/firewall"
)

// Flow is the outer packets of a path, in both directions.
type Flow struct {
	Local, Remote         netip.Addr
	Protocol              uint8
	LocalPort, RemotePort uint16 // of UDP
	Mark                  uint32 // of the packets that are sent
	Device                int    // through which they leave and arrive
}

// String returns the packets as a sentence names them.
func (f Flow) String() string {
	if f.Protocol == header.UDP {
		return fmt.Sprintf("UDP between port %d and %v", f.LocalPort, netip.AddrPortFrom(f.Remote, f.RemotePort))
	}
	return fmt.Sprintf("protocol %d between %v and %v", f.Protocol, f.Local, f.Remote)
}

// packet returns the packets of a direction, as package firewall describes them.
func (f Flow) packet(hook firewall.Hook, device string) firewall.Packet {
	p := firewall.Packet{Hook: hook, Source: f.Local, Destination: f.Remote, Protocol: f.Protocol, Device: device, Index: f.Device, Mark: f.Mark}
	from, to := f.LocalPort, f.RemotePort
	if hook == firewall.Input {
		p.Source, p.Destination, from, to = f.Remote, f.Local, to, from
	}
	if f.Protocol == header.UDP {
		p.Payload = binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, from), to)
	}
	return p
}

// Watch knows the rules of the network namespace in which it was made. Any goroutine may call
// its methods.
type Watch struct {
	pause, pollEvery time.Duration

	changed chan struct{}
	done    chan struct{}
	running sync.WaitGroup
	events  []closer

	mu       sync.Mutex // guards the fields below
	stale    bool
	nft      *firewall.Reader
	nftables bool // the kernel has it
	rules    *firewall.Ruleset
	legacy   [2]*legacy // of IPv4 and IPv6
	handle   *netlink.Handle
	devices  map[int]device
	fault    error // why the rules are not known
}

type closer interface{ Close() error }

// device is a device of outer packets.
type device struct {
	name string
	why  string // nothing that arrives may go past its filters
}

// New returns a Watch for the network namespace of the calling thread. What it needs later it
// opens now, where it can: a process may give up its privileges afterwards except
// CAP_NET_ADMIN. Close it after use.
func New() (*Watch, error) { return newWatch(pause, pollEvery) }

// newWatch is New. The pause and the time between two comparisons of the tables of iptables are
// given.
func newWatch(pause, pollEvery time.Duration) (*Watch, error) {
	w := &Watch{pause: pause, pollEvery: pollEvery, changed: make(chan struct{}, 1), done: make(chan struct{}), stale: true}
	var err error
	if w.handle, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	if err := w.openRules(); err != nil {
		w.Close()
		return nil, err
	}
	for i := range w.legacy {
		if w.legacy[i], err = openLegacy(i == 1); err != nil {
			w.Close()
			return nil, err
		}
	}
	if err := w.follow(); err != nil {
		w.Close()
		return nil, err
	}
	return w, nil
}

// Close releases what the Watch holds.
func (w *Watch) Close() {
	close(w.done)
	for _, c := range w.events {
		_ = c.Close() // only read
	}
	w.running.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.handle.Close()
	for _, l := range w.legacy {
		l.close()
	}
	if w.nft != nil {
		_ = w.nft.Close() // only read
	}
}

// Changed returns a channel that receives a value after the answers of Why may have changed.
func (w *Watch) Changed() <-chan struct{} { return w.changed }

// Why returns why the packets of a flow must not go past the packet filter, or "" if they may.
func (w *Watch) Why(f Flow) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.stale {
		w.stale = false
		w.read()
	}
	if w.fault != nil {
		return w.fault.Error()
	}
	d := w.device(f.Device)
	if w.rules != nil {
		for _, hook := range []firewall.Hook{firewall.Output, firewall.Input} {
			p := f.packet(hook, d.name)
			for _, p.Answer = range []bool{false, true} {
				if e, ok := w.rules.Affects(p); ok {
					return describe(e) + f.String()
				}
			}
		}
	}
	if why := w.legacy[family(f.Local)].why(f, d.name); why != "" {
		return why
	}
	return d.why
}

func family(a netip.Addr) int {
	if a.Is4() {
		return 0
	}
	return 1
}

// describe begins the sentence about an effect.
func describe(e firewall.Effect) string {
	what := fmt.Sprintf("the rule with handle %d", e.Handle)
	if e.Handle == 0 {
		what = "the policy"
	}
	return fmt.Sprintf("nftables: %s of table %s %s, chain %s, may %s ", what, e.Family, e.Table, e.Chain, e.Does)
}

// read reads all rules again. w.mu must be held.
func (w *Watch) read() {
	w.devices, w.rules = make(map[int]device), nil
	err := w.readRules()
	for _, l := range w.legacy {
		err = errors.Join(err, l.read())
	}
	if w.fault = err; err != nil {
		w.stale = true // the next call tries again
	}
}

// readRules reads the rules of nftables. w.mu must be held.
func (w *Watch) readRules() (err error) {
	if err := w.openRules(); err != nil || w.nft == nil {
		return err
	}
	w.rules, err = w.nft.Read()
	switch {
	case err == nil:
		w.nftables = true
	case !w.nftables && isMissing(err):
		w.rules, err = nil, nil
	case err != nil:
		err = fmt.Errorf("the rules of the packet filter are not known: %w", err)
	}
	return err
}

// openRules opens what reads the rules of nftables, unless the kernel has no netfilter.
func (w *Watch) openRules() (err error) {
	if w.nft != nil {
		return nil
	}
	if w.nft, err = firewall.Open(); err != nil {
		w.nft = nil
		if !isMissing(err) {
			return err
		}
	}
	return nil
}

// isMissing reports whether an error means that the kernel has no nftables.
func isMissing(err error) bool {
	for _, missing := range []error{unix.EPROTONOSUPPORT, unix.EAFNOSUPPORT, unix.EOPNOTSUPP, unix.EINVAL} {
		if errors.Is(err, missing) {
			return true
		}
	}
	return false
}

// device returns what is known about a device. w.mu must be held.
func (w *Watch) device(index int) device {
	if d, ok := w.devices[index]; ok {
		return d
	}
	var d device
	if link, err := w.handle.LinkByIndex(index); err != nil {
		d.why = fmt.Sprintf("the device with index %d is not known: %v", index, err)
	} else {
		d.name = link.Attrs().Name
		d.why = w.filters(link)
	}
	w.devices[index] = d
	return d
}

// filters returns a sentence about the filters (tc-filter) for what arrives at a device, or
// "" if there are none.
func (w *Watch) filters(link netlink.Link) string {
	name := link.Attrs().Name
	qdiscs, err := w.handle.QdiscList(link)
	if err != nil {
		return fmt.Sprintf("tc: the queueing disciplines of %s are not known: %v", name, err)
	}
	for _, q := range qdiscs {
		if q.Attrs().Parent != netlink.HANDLE_INGRESS { // also that of clsact
			continue
		}
		filters, err := w.handle.FilterList(link, netlink.HANDLE_MIN_INGRESS)
		if err != nil {
			return fmt.Sprintf("tc: the filters of %s are not known: %v", name, err)
		}
		if len(filters) > 0 {
			return fmt.Sprintf("tc: %s has filters for packets that arrive", name)
		}
	}
	return ""
}
