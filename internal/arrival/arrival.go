// Package arrival makes packets arrive at the paths to which they belong: it keeps the table
// of the datapath, the ports and the XDP filters in line with the wires of all paths.
//
// The owner of the paths calls Register when the packets of a path must be received for
// another wire, and then Arrange, which makes all changes together. A path that was
// registered stays so until Displace: packets of a path that cannot send at the moment
// still arrive.
package arrival

import (
	"iter"
	"net/netip"
	"slices"
	"time"

	"go.uber.org/zap"

	"sixfour/internal/datapath"
	"sixfour/internal/netcfg"
	"sixfour/internal/nft"
	"sixfour/internal/ports"
	"sixfour/internal/wiring"
	"sixfour/internal/xdpports"
	"sixfour/transport"
)

// Path is a path whose packets arrive. The Set calls its methods in the calls of its own.
type Path interface {
	// Arrival returns the registration of the path, always the same one.
	Arrival() *Registration
	// HasAddress reports whether the interface of the path's tunnel is to have an address.
	HasAddress(netip.Addr) bool
	// HasName reports whether the remote end is a name. Packets from its former address are
	// then accepted for a while.
	HasName() bool
	// Mark returns the firewall mark of the path's packets.
	Mark() uint32
	// Awaits returns the port that must be open even while the path has no wire, because the
	// peer arrives there or is connected to through it; not ok: there is none. Renew must be
	// called when it changes.
	Awaits(shards int) (k ports.Key, n ports.Need, ok bool)
	// WantsXDP reports whether the path's packets may arrive by AF_XDP.
	WantsXDP() bool
	// Conflicts is called when the packets of the path cannot be told from those of another
	// one, which receives none. The configuration could not show the conflict: names have
	// resolved to one address, or "auto" is the address of another tunnel.
	Conflicts(with *datapath.Path)
	// Parted is called when the path's packets begin to use sockets instead of AF_XDP, for
	// the given time.
	Parted(d time.Duration)
}

// Set is the arrival of the packets of all paths. One goroutine at a time may call its
// methods.
type Set struct {
	Sockets *ports.Set
	XDP     xdpports.Set

	log      *zap.Logger
	plane    *datapath.Plane
	paths    func() iter.Seq[Path]
	receives func(p Path, first bool)
	segments *transport.Segments      // sizes of the segments in packets merged by GRO; nil: not known
	shards   int                      // receivers at each local address
	stale    bool                     // everything must be done again
	moved    []Path                   // paths whose entries in the table are not those that they should have
	needs    map[ports.Key]ports.Need // the ports that were last said to be needed
}

// New returns a Set for the packets of a plane. Paths returns the present paths. Receives is
// called by Arrange when the ports of a path are open after a change of its wire; first
// says that they are open for the first time.
// Sockets opens the ports; nil: those of package transport.
func New(log *zap.Logger, plane *datapath.Plane, sockets ports.Sockets, paths func() iter.Seq[Path], receives func(p Path, first bool)) *Set {
	s := &Set{log: log, plane: plane, paths: paths, receives: receives}
	s.XDP.Log, s.XDP.Plane = log, plane
	var err error
	if s.segments, err = transport.OpenSegments(); err != nil { // without it, merged packets are split as far as possible
		log.Info("cannot find out how the uplink merges packets (GRO)", zap.Error(err))
	}
	s.Sockets = ports.New(ports.Config{Log: log, Read: s.read, Segments: s.segments, Sockets: sockets})
	plane.Table.Store(datapath.NewTable(0))
	return s
}

// NeedShards makes the ports that are opened from now on have at least n shards.
func (s *Set) NeedShards(n int) { s.shards = max(s.shards, n) }

// OpenAhead starts to open ports that will be needed. Keys returns them for a number of
// shards.
func (s *Set) OpenAhead(keys ...func(shards int) iter.Seq2[ports.Key, ports.Need]) {
	needed := make(map[ports.Key]ports.Need)
	for _, of := range keys {
		addNeeds(needed, of(s.shards))
	}
	s.Sockets.OpenAhead(needed)
}

// Renew makes Arrange do everything again for all paths.
func (s *Set) Renew() { s.stale = true }

// IsComplete reports whether the last Arrange has opened all ports that are needed, and Renew
// was not called since.
func (s *Set) IsComplete() bool { return !s.stale }

// Arrange updates the table and the receivers to the paths: to those that have changed or,
// after Renew, to all.
func (s *Set) Arrange() {
	now, moved := time.Now(), s.moved
	s.moved = nil
	table := s.plane.Table.Load()
	switch {
	case s.stale, table == nil, !table.Fits(len(moved)):
		s.stale = false
		s.plane.Table.Store(s.newTable(now))
		moved = slices.Collect(s.registered())
	case len(moved) == 0:
		return
	default:
		for _, p := range moved {
			place(p, table, now)
		}
		if s.hasPorts(moved) {
			s.receive(moved)
			return
		}
	}
	s.needs = s.needed()
	if !s.Sockets.Need(s.needs) {
		s.stale = true // opening is tried again, and the tunnels wait for it
	}
	s.takeXDP()
	s.receive(moved)
}

// newTable builds the table for all paths.
func (s *Set) newTable(now time.Time) *datapath.Table {
	n := 0
	for range s.registered() {
		n++
	}
	t := datapath.NewTable(n)
	for p := range s.registered() {
		r := p.Arrival()
		r.end, r.formerEnd = nil, nil
		place(p, t, now)
	}
	return t
}

// registered returns the paths for whose packets there is an entry in the table.
func (s *Set) registered() iter.Seq[Path] {
	return func(yield func(Path) bool) {
		for p := range s.paths() {
			if p.Arrival().registered != nil && !yield(p) {
				return
			}
		}
	}
}

// hasPorts reports whether the ports of paths are open already, and nothing else depends on
// how their packets arrive.
func (s *Set) hasPorts(paths []Path) bool {
	for _, p := range paths {
		r := p.Arrival()
		if p.WantsXDP() || r.former != nil || len(datapath.Groups(r.registered.Outer())) > 0 {
			return false
		}
		for k := range wiring.Ports(r.registered, p.Mark(), s.shards) {
			if _, ok := s.needs[k]; !ok {
				return false
			}
		}
	}
	return true
}

// receive starts what waits for packets of paths to be received.
func (s *Set) receive(paths []Path) {
	var last Path // with the same port as many after it
	receives := false
	for _, p := range paths {
		r := p.Arrival()
		if r.registered == nil {
			continue
		}
		if !samePorts(p, last) {
			receives, last = s.Sockets.Receives(portOf(p, r.registered)), p
		}
		if receives {
			s.receives(p, !r.Listening.Swap(true))
		}
	}
}

// samePorts reports whether the packets of a path certainly arrive at the same ports as those
// of another one; nil: there is none.
func samePorts(p, o Path) bool {
	return o != nil && p.Mark() == o.Mark() && wiring.SamePorts(p.Arrival().registered, o.Arrival().registered)
}

// needed returns the ports at which packets must be received, and those of UDP through
// which packets are sent.
func (s *Set) needed() map[ports.Key]ports.Need {
	needed := make(map[ports.Key]ports.Need)
	var last Path // with the same ports as many after it
	for p := range s.registered() {
		if !samePorts(p, last) {
			addNeeds(needed, wiring.Ports(p.Arrival().registered, p.Mark(), s.shards))
			last = p
		}
	}
	for p := range s.paths() {
		if k, n, ok := p.Awaits(s.shards); ok {
			addNeed(needed, k, n)
		}
		r := p.Arrival()
		if w := r.Wire.Load(); w != nil && w != r.registered && wiring.HasPorts(w.Outer().Kind) {
			for k, n := range wiring.Ports(w, p.Mark(), s.shards) { // the first: it only sends
				addNeed(needed, k, n)
				break
			}
		}
	}
	return needed
}

// addNeeds adds ports to those that are needed.
func addNeeds(needed map[ports.Key]ports.Need, more iter.Seq2[ports.Key, ports.Need]) {
	for k, n := range more {
		addNeed(needed, k, n)
	}
}

// addNeed adds a port. It has one shard if any tunnel needs the order of packets kept, and the
// peers of all.
func addNeed(needed map[ports.Key]ports.Need, k ports.Key, n ports.Need) {
	if needed[k].Shards == 1 {
		n.Shards = 1
	}
	n.Peers = append(needed[k].Peers, n.Peers...)
	needed[k] = n
}

// portOf returns the port at which the packets of a wire of a path arrive.
func portOf(p Path, w *datapath.Wire) ports.Key {
	return wiring.Port(w.Outer(), w.Hop.Device, p.Mark())
}

// read receives what arrives at a shard of a port until the port is closed.
func (s *Set) read(k ports.Key, shard int, p transport.Port) {
	local := k.Local.Addr()
	log, zone := zap.Stringer("local", local), datapath.ZoneOf(local)
	if k.IsICMP() {
		s.plane.NewICMP(zone, s.log.Named("icmp").With(log), p).Run()
		return
	}
	s.plane.NewInbound(datapath.Place{Queue: shard, At: k.At, Zone: zone, Socket: true}, s.log.Named("in").With(log), p).Run()
}

// FollowMerging makes the kernel record how it merged received packets (GRO) if packets
// cannot be carried otherwise: merged datagrams cannot be told apart, and the framing's
// checksum in a merged packet is that of its first segment. Summed says that a framing has
// a checksum.
func (s *Set) FollowMerging(summed bool) {
	if s.segments == nil {
		return
	}
	want := summed
	if !want {
		on, err := netcfg.Features(netcfg.MergesDatagrams, netcfg.MergesLists)
		if err != nil {
			s.log.Debug("cannot find out whether the uplink merges datagrams (GRO)", zap.Error(err))
		}
		want = len(on) > 0
	}
	if err := s.segments.Hold(want, time.Now()); err != nil {
		s.log.Warn("cannot find out how the uplink merges packets (GRO)", zap.Error(err))
	}
}

// Unknown returns the ends at which packets are received that the kernel does not know, so
// that it must not answer them.
func (s *Set) Unknown() (ends []nft.Endpoint) {
	for _, k := range s.Sockets.Open() {
		if k.IsRaw() && !k.Local.Addr().IsMulticast() {
			ends = append(ends, nft.Endpoint{Local: k.Local.Addr(), Protocol: k.Protocol})
		}
	}
	return ends
}

// StopReceiving ends the reception everywhere, and returns when nothing is received any more.
// From then on packets arrive at the sockets, for the next process, and leave through them.
func (s *Set) StopReceiving() {
	s.Sockets.StopReceiving()
	s.XDP.Close()
	s.XDP.Wait()
}

// Close closes all ports and waits for their receivers. CloseUnusedXDP must be called before,
// when no path has a wire.
func (s *Set) Close() {
	s.Sockets.Close()
	s.XDP.Wait()
	if s.segments == nil {
		return
	}
	if err := s.segments.Close(); err != nil {
		s.log.Warn("cannot close the socket that records merged packets", zap.Error(err))
	}
}
