// Package xdpports has the devices that are used through AF_XDP: it opens their ports, reads
// what arrives at them, and sets the filters that select these packets.
//
// AF_XDP bypasses the kernel's IP layer, and with it IPsec. So a port is not used for packets
// to which a policy of IPsec applies.
package xdpports

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"sixfour/encap"
	"sixfour/internal/datapath"
	"sixfour/internal/netcfg"
	"sixfour/transport"
	"sixfour/transport/xdp"
)

// Set is the devices that are used through AF_XDP. The zero value has none; Log and Plane
// must be set before Hop is called. One goroutine owns a Set.
type Set struct {
	Log   *zap.Logger
	Plane *datapath.Plane // which handles what arrives

	devices  map[int]*device // by interface index
	readers  sync.WaitGroup  // the goroutines that receive through the ports
	policies policies
}

// device is a device with AF_XDP, or the error why it cannot be used.
type device struct {
	*xdp.Port
	err   error
	retry time.Time // earliest next attempt after err
	busy  int       // number of attempts at which another program had the device

	filter   *xdp.Filter         // nil: packets arrive through sockets
	inbounds []*datapath.Inbound // one for each receive queue of the device
	taken    map[Arrival]bool    // set in the filter
}

// policies are this host's IPsec policies, or the error why they are not known.
type policies struct {
	netcfg.Policies
	err error
}

// SetPolicies sets this host's IPsec policies, or the error why they are not known, for Hop.
func (s *Set) SetPolicies(p netcfg.Policies, err error) { s.policies = policies{p, err} }

var (
	errLinkLocal = errors.New("an end is a link-local address")
	errUDP       = errors.New("its packets are UDP, which leaves through a socket of its own")
)

// ErrNoNeighbour means that the hardware address of the next hop is not known yet.
var ErrNoNeighbour = errors.New("is not known yet")

// Hop returns the next hop for packets of an outermost layer, with the given mark, through
// the device of a route. An error says why they must leave through a socket.
func (s *Set) Hop(router *netcfg.Router, l *encap.Layer, mark uint32, route netcfg.Route) (datapath.Hop, error) {
	switch {
	case l.Kind.Properties().Ports.Local != 0:
		return datapath.Hop{}, errUDP
	case l.Local.Zone() != "" || l.Remote.Zone() != "":
		return datapath.Hop{}, errLinkLocal
	}
	if !route.Ethernet {
		return datapath.Hop{}, fmt.Errorf("%s is not an Ethernet device", route.Interface)
	}
	if err := s.mayBypass(l, mark, route); err != nil {
		return datapath.Hop{}, err
	}
	to, ok := router.Neighbour(route)
	if !ok {
		return datapath.Hop{}, fmt.Errorf("the hardware address of %v at %s %w", route.NextHop, route.Interface, ErrNoNeighbour)
	}
	port, err := s.port(route)
	if err != nil {
		return datapath.Hop{}, fmt.Errorf("%s: %w", route.Interface, err)
	}
	return datapath.Hop{Port: port, From: route.Hardware, To: to}, nil
}

// mayBypass returns why packets must not bypass the kernel's IP layer. If the IPsec policies
// are not known, packets must not bypass it.
func (s *Set) mayBypass(l *encap.Layer, mark uint32, route netcfg.Route) error {
	if s.policies.err != nil {
		return s.policies.err
	}
	if why := s.policies.Conflict(netcfg.Outer{
		Local: l.Local, Remote: l.Remote, Protocol: l.Kind.Protocol(), Mark: mark, Device: route.Index,
	}); why != "" {
		return errors.New(why)
	}
	return nil
}

// port returns the port of a route's device, and opens one if there is none that works.
func (s *Set) port(route netcfg.Route) (*xdp.Port, error) {
	d := s.devices[route.Index]
	if d != nil && d.err == nil {
		if !d.Broken() && d.MTU() >= route.MTU {
			return d.Port, nil
		}
		s.close(d)
	}
	if d != nil && d.err != nil && time.Now().Before(d.retry) {
		return nil, d.err
	}
	busy := 0
	if d != nil {
		busy = d.busy
	}
	d = &device{taken: make(map[Arrival]bool), busy: busy}
	if d.Port, d.err = xdp.Open(route.Index, 0, route.MTU); d.err != nil {
		d.again(time.Now())
	} else if err := s.receive(d, route); err != nil {
		s.Log.Info("packets arrive through sockets, not through AF_XDP", zap.String("device", route.Interface), zap.Error(err))
	}
	if s.devices == nil {
		s.devices = make(map[int]*device)
	}
	s.devices[route.Index] = d
	return d.Port, d.err
}

const (
	// busyTries is how often a busy device is retried soon: the kernel needs a moment to
	// release the device of a daemon that has just ended.
	busyTries = 10
	// retrySoon is the pause before such an attempt, and retryLate that before any other.
	retrySoon = time.Second
	retryLate = 30 * time.Second
)

// again sets the time of the next attempt after an error.
func (d *device) again(now time.Time) {
	wait := retryLate
	if d.busy < busyTries && errors.Is(d.err, unix.EBUSY) {
		wait = retrySoon
		d.busy++
	}
	d.retry = now.Add(wait)
}

// NextRetry returns the earliest time after now at which a device that cannot be used is to
// be tried again; zero: there is none. A device whose time has passed is not needed any more.
func (s *Set) NextRetry(now time.Time) (next time.Time) {
	for _, d := range s.devices {
		if d.err != nil && d.retry.After(now) && (next.IsZero() || d.retry.Before(next)) {
			next = d.retry
		}
	}
	return next
}

// receive starts to receive packets through a port, and through further ports for the
// device's other receive queues.
func (s *Set) receive(d *device, route netcfg.Route) (err error) {
	if d.filter, err = xdp.Attach(route.Index, d.MTU()); err != nil {
		return err
	}
	for queue := range route.Queues {
		rx := d.Port
		if queue > 0 {
			if rx = s.openQueue(route, queue); rx == nil {
				break
			}
		}
		in := s.Plane.NewInbound(datapath.Place{Queue: queue}, s.Log.Named("in").With(zap.String("device", route.Interface)), rx)
		d.inbounds = append(d.inbounds, in)
		s.readers.Go(in.Run)
		if err := d.filter.Serve(queue, rx); err != nil { // the queue passes its packets to the kernel
			s.Log.Warn("cannot use AF_XDP on a receive queue", zap.String("device", route.Interface), zap.Int("queue", queue), zap.Error(err))
		}
	}
	return nil
}

// openQueue opens a port for one more receive queue. If it returns nil, the queue's packets
// go to the socket, as they do if the queue does not exist.
func (s *Set) openQueue(route netcfg.Route, queue int) *xdp.Port {
	p, err := xdp.Open(route.Index, queue, route.MTU)
	if err != nil {
		s.Log.Debug("cannot use AF_XDP on a receive queue", zap.String("device", route.Interface), zap.Int("queue", queue), zap.Error(err))
		return nil
	}
	return p
}

// Replace closes the port to which a receiver that fails belongs, and returns it; nil: there
// is none.
func (s *Set) Replace(rx transport.Receiver) *xdp.Port {
	for index, d := range s.devices {
		if d.err == nil && slices.ContainsFunc(d.inbounds, func(in *datapath.Inbound) bool { return in.Rx == rx }) {
			s.close(d)
			delete(s.devices, index)
			return d.Port
		}
	}
	return nil
}

// CloseUnused closes the ports for which used is false.
func (s *Set) CloseUnused(used func(*xdp.Port) bool) {
	maps.DeleteFunc(s.devices, func(_ int, d *device) bool {
		if d.err != nil || used(d.Port) {
			return false
		}
		s.close(d)
		return true
	})
}

// Close closes all ports. From then on packets arrive at the raw sockets and leave through
// them.
func (s *Set) Close() { s.CloseUnused(func(*xdp.Port) bool { return false }) }

// Wait waits until nothing reads from the closed ports any more.
func (s *Set) Wait() { s.readers.Wait() }

// close closes the port of a device and restores the device.
func (s *Set) close(d *device) {
	if d.filter != nil {
		if err := d.filter.Close(); err != nil {
			s.Log.Warn("cannot remove the XDP program", zap.Error(err))
		}
	}
	for _, in := range d.inbounds {
		in.Rx.Close()
	}
	d.Port.Close()
}

// Arrival is the key by which a filter selects packets.
type Arrival struct {
	Remote, Local netip.Addr
	Protocol      byte
}

// ArrivalOf returns the key of the packets that arrive with an outermost layer.
func ArrivalOf(l *encap.Layer) Arrival { return Arrival{l.Remote, l.Local, l.Kind.Protocol()} }

// Wanted says which packets each port must receive, and the logger for a failure of each.
type Wanted map[*xdp.Port]map[Arrival]*zap.Logger

// Add adds packets.
func (w Wanted) Add(p *xdp.Port, a Arrival, log *zap.Logger) {
	if w[p] == nil {
		w[p] = make(map[Arrival]*zap.Logger)
	}
	w[p][a] = log
}

// Take sets the filters so that the ports receive exactly the packets that are wanted. It
// returns a function that reports whether a port receives packets.
func (s *Set) Take(wanted Wanted) (taken func(*xdp.Port, Arrival) bool) {
	now := make(map[*xdp.Port]map[Arrival]bool)
	for _, d := range s.devices {
		if d.err != nil {
			continue
		}
		now[d.Port] = d.taken
		if d.filter == nil {
			continue
		}
		for a := range d.taken {
			if wanted[d.Port][a] == nil {
				d.filter.Pass(a.Remote, a.Local, a.Protocol)
				delete(d.taken, a)
			}
		}
		for a, log := range wanted[d.Port] {
			if d.taken[a] {
				continue
			}
			if err := d.filter.Take(a.Remote, a.Local, a.Protocol); err != nil {
				log.Warn("packets arrive through sockets, not through AF_XDP", zap.Error(err))
				continue
			}
			d.taken[a] = true
		}
	}
	return func(p *xdp.Port, a Arrival) bool { return now[p][a] }
}
