// Package ports keeps the outer sockets of the daemon: it opens those that are needed,
// with a receiving goroutine for each, closes the others, replaces those that fail, and
// passes descriptors on to the next process. It knows nothing of peers and tunnels.
package ports

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

	"sixfour/encap/header"
	"sixfour/transport"
)

// Key identifies a port, which may have several shards.
type Key struct {
	Protocol byte           // IP protocol
	Local    netip.AddrPort // the port is 0 but for UDP

	// For UDP: the mark of its packets, and the only interface (transport.Options). A raw
	// port has none: each of its senders has its own.
	Mark   uint32
	Device int

	// For a port with connections (transport.SessionPort), which is one of UDP, too: what
	// all its connections have in common. Sockets know its type, which can be compared with
	// ==. Nil: the port has none.
	Session any

	// For a multicast group in Local: our address, and in Device the interface that joins
	// the group. An interface that is made again has another index, and is in no group.
	At netip.Addr
}

// Raw returns the key of the raw port for an IP protocol at an address.
func Raw(protocol byte, local netip.Addr) Key {
	return Key{Protocol: protocol, Local: netip.AddrPortFrom(local, 0)}
}

// IsICMP reports whether ICMP messages are received at the port.
func (k Key) IsICMP() bool { return k.Protocol == header.ICMP || k.Protocol == header.ICMPv6 }

// IsRaw reports whether packets of a tunnel are received at a raw port. The kernel does not
// know that somebody receives them, and may answer with ICMP errors.
func (k Key) IsRaw() bool { return !k.IsICMP() && k.Protocol != header.UDP }

// String describes the port for logs.
func (k Key) String() string {
	if k.Session != nil {
		return fmt.Sprintf("for connections at %v", k.Local)
	}
	switch k.Protocol {
	case header.UDP:
		return fmt.Sprintf("for UDP at %v", k.Local)
	case header.ICMP, header.ICMPv6:
		return fmt.Sprintf("for ICMP errors at %v", k.Local.Addr())
	}
	return fmt.Sprintf("for protocol %d at %v", k.Protocol, k.Local.Addr())
}

// Need describes how a port is needed.
type Need struct {
	// Shards is the number of receiving goroutines; 0 is 1. A port that is open with
	// several shards is not opened again for another number of several shards, and not
	// with one for more: packets would be lost. One of UDP stays as it is: each of its
	// shards has all packets of a remote address, in their order.
	Shards int
	ICMP   []int // types of ICMP to receive; nil: all
	Keep   bool  // the next process adopts the port

	Peers []transport.SessionPeer // for a port with connections: all its peers
}

func (n Need) shards() int { return max(n.Shards, 1) }

// Config is what a Set needs.
type Config struct {
	Log *zap.Logger

	// Read receives what arrives at a shard of a port until the port is closed. Each call
	// has a goroutine of its own. If the port fails for good, Read returns, and has
	// Replace called.
	Read func(k Key, shard int, p transport.Port)

	Segments *transport.Segments // of raw ports for tunnels; nil: none
	Kept     *Kept               // nil: nothing is passed on
	Sockets  Sockets             // nil: those of package transport
}

// Set is a set of ports. Its methods must not be called concurrently.
type Set struct {
	Config
	ports   map[Key]*entry
	failed  map[Key]error // why a port that is needed could not be opened
	ahead   map[Key]chan opened
	readers sync.WaitGroup
}

// entry is an open port.
type entry struct {
	shards  []transport.Port
	reading bool // there are goroutines that receive
	users   int  // Senders that send through the port
	kept    bool // the descriptors are stored
	peers   []transport.SessionPeer
}

// connect gives a port with connections its peers.
func (e *entry) connect(peers []transport.SessionPeer) error {
	p, ok := e.shards[0].(transport.SessionPort)
	if !ok || slices.Equal(e.peers, peers) {
		return nil
	}
	if err := p.SetPeers(peers); err != nil {
		return err
	}
	e.peers = slices.Clone(peers)
	return nil
}

// New returns a set without ports.
func New(c Config) *Set {
	if c.Kept == nil {
		c.Kept = NewKept(nil, nil, c.Log)
	}
	if c.Sockets == nil {
		c.Sockets = Kernel{}
	}
	return &Set{Config: c, ports: make(map[Key]*entry), failed: make(map[Key]error), ahead: make(map[Key]chan opened)}
}

// Need opens the ports that are needed and not open, starts to receive, and closes all
// others. It reports whether all needed ports are open, except for those of ICMP that the process
// may not open: call it again later if not.
func (s *Set) Need(needed map[Key]Need) (complete bool) {
	complete = true
	for k, n := range needed {
		if e := s.ports[k]; e != nil && len(e.shards) > 1 && n.shards() == 1 && k.Protocol != header.UDP {
			s.drop(k)
		}
		e, err := s.open(k, n)
		if err == nil {
			err = e.connect(n.Peers)
		}
		s.note(k, err)
		if err != nil {
			complete = complete && isForbidden(k, err)
			continue
		}
		s.start(k, e)
	}
	for k := range s.failed {
		if _, ok := needed[k]; !ok {
			delete(s.failed, k)
		}
	}
	for k := range s.ports {
		if _, ok := needed[k]; !ok {
			s.drop(k)
		}
	}
	return complete
}

// isForbidden reports whether the process lacks CAP_NET_RAW for ICMP errors, so that it
// carries packets without them.
func isForbidden(k Key, err error) bool { return k.IsICMP() && errors.Is(err, unix.EPERM) }

// note records why a port could not be opened, and logs it if that is new.
func (s *Set) note(k Key, err error) {
	if err == nil {
		delete(s.failed, k)
		return
	}
	switch before := s.failed[k]; {
	case before != nil && before.Error() == err.Error():
	case isForbidden(k, err):
		s.Log.Warn("without CAP_NET_RAW, ICMP errors about packets of tunnels are not read: only probes find path MTUs and failures", zap.Error(err))
	default:
		s.Log.Warn("cannot open a socket to receive packets: trying again", zap.Error(err))
	}
	s.failed[k] = err
}

// open returns a port, and opens it if it is not open: it adopts inherited descriptors,
// or uses what was opened ahead, or opens sockets.
func (s *Set) open(k Key, n Need) (*entry, error) {
	if e := s.ports[k]; e != nil {
		return e, nil
	}
	freed := s.dropMarked(k)
	shards, adopted := s.adopt(k, n), true
	if shards == nil {
		shards, adopted = s.takeAhead(k, n), false
	}
	if shards == nil {
		var err error
		shards, err = s.listen(k, n)
		for tries := 0; freed && tries < 20 && errors.Is(err, unix.EADDRINUSE); tries++ {
			time.Sleep(5 * time.Millisecond) // the store closes its copies in its own time
			shards, err = s.listen(k, n)
		}
		if err != nil {
			return nil, err
		}
	}
	e := &entry{shards: shards, kept: n.Keep}
	s.ports[k] = e
	if n.Keep && !adopted {
		for i, p := range shards {
			s.Kept.Save(name(k, i, len(shards)), p)
		}
	}
	return e, nil
}

// dropMarked closes and releases the ports of UDP at the same address and port with another
// mark, which are of a former configuration if nothing sends through them: the port could
// not be opened otherwise. It reports whether there were any.
func (s *Set) dropMarked(k Key) (any bool) {
	if k.Protocol != header.UDP || k.Session != nil {
		return false
	}
	for other, e := range s.ports {
		if other.Protocol == header.UDP && other.Local == k.Local && other.Mark != k.Mark && e.users == 0 {
			s.drop(other)
			any = true
		}
	}
	return s.Kept.dropMarked(k) || any
}

// listen opens the sockets of a port.
func (s *Set) listen(k Key, n Need) (shards []transport.Port, err error) {
	for i := range n.shards() {
		p, err := s.Sockets.Listen(k, transport.Shard{Index: i, Count: n.shards()}, s.options(k, n))
		if err != nil {
			closeAll(shards)
			return nil, err
		}
		shards = append(shards, p)
	}
	return shards, nil
}

// options returns the options of the sockets of a port.
func (s *Set) options(k Key, n Need) transport.Options {
	o := transport.Options{ICMP: n.ICMP, Mark: k.Mark}
	switch {
	case k.Session != nil:
		o.Device = k.Device
	case k.Protocol == header.UDP:
		o.Headers = true
		if k.At.IsValid() {
			o.Join, o.JoinOn = k.Local.Addr(), k.Device
		} else {
			o.Device = k.Device
		}
	case k.At.IsValid():
		o.Join, o.JoinOn, o.Segments = k.Local.Addr(), k.Device, s.Segments
	case n.ICMP == nil:
		o.Segments = s.Segments
	}
	return o
}

// start starts the goroutines that receive from a port.
func (s *Set) start(k Key, e *entry) {
	if e.reading {
		return
	}
	e.reading = true
	for i, p := range e.shards {
		s.readers.Go(func() { s.Read(k, i, p) })
	}
}

// drop closes a port, and releases its stored descriptors.
func (s *Set) drop(k Key) {
	e := s.ports[k]
	delete(s.ports, k)
	if e.kept {
		for i := range e.shards {
			s.Kept.Remove(name(k, i, len(e.shards)))
		}
	}
	closeAll(e.shards)
}

// Replace closes all shards of the port to which p belongs, because p does nothing but
// fail. The next Need opens the port again. Ok is false if p belongs to no open port.
func (s *Set) Replace(p transport.Receiver) (k Key, ok bool) {
	for k, e := range s.ports {
		if slices.ContainsFunc(e.shards, func(q transport.Port) bool { return transport.Receiver(q) == p }) {
			s.drop(k)
			return k, true
		}
	}
	return Key{}, false
}

// Receives reports whether packets are received at a port.
func (s *Set) Receives(k Key) bool {
	e := s.ports[k]
	return e != nil && e.reading
}

// Err returns why a port that is needed is not open; nil: it is, or it is not needed.
func (s *Set) Err(k Key) error { return s.failed[k] }

// Open returns the keys of the open ports, in no order.
func (s *Set) Open() []Key { return slices.Collect(maps.Keys(s.ports)) }

// StopReceiving ends the reception at all ports, and returns when no Read runs. Senders
// stay open, so that packets that were already read from a TUN queue can be sent before
// Close. No other method but Close may be called afterwards.
func (s *Set) StopReceiving() {
	for _, e := range s.ports {
		for _, p := range e.shards {
			if half, ok := p.(interface{ StopReceiving() error }); ok { // of UDP; Close would close its senders
				half.StopReceiving()
			} else {
				p.Close()
			}
		}
	}
	s.readers.Wait()
}

// Close closes all ports, and returns when no Read runs. Stored descriptors stay for the
// next process.
func (s *Set) Close() {
	for k := range s.ahead {
		closeAll((<-s.ahead[k]).shards)
		delete(s.ahead, k)
	}
	for k, e := range s.ports {
		closeAll(e.shards)
		delete(s.ports, k)
	}
	s.readers.Wait()
}

func closeAll(shards []transport.Port) {
	for _, p := range shards {
		p.Close()
	}
}

// adopt makes a port from inherited descriptors if all its shards are there; nil: not.
func (s *Set) adopt(k Key, n Need) (shards []transport.Port) {
	if !n.Keep {
		return nil
	}
	for i := range n.shards() {
		fd := s.Kept.Take(name(k, i, n.shards()))
		if fd < 0 {
			break
		}
		p, err := s.Sockets.Adopt(fd, k, s.options(k, n))
		if err != nil {
			s.Log.Warn("cannot take over a socket of the previous process: the packets waiting in it are lost", zap.Error(err))
			unix.Close(fd)
			break
		}
		shards = append(shards, p)
	}
	if len(shards) == n.shards() {
		return shards
	}
	closeAll(shards)
	return nil
}

// opened is what opening a port ahead gave.
type opened struct{ shards []transport.Port }

// OpenAhead starts to open ports that will be needed, in the background and in the
// network namespace of the process. Opening a raw port takes some milliseconds, most of
// them waiting, and at a restart no packets arrive until ports and interfaces are ready.
// Ports that are inherited are left out. A failure is reported when the port is needed.
func (s *Set) OpenAhead(needed map[Key]Need) {
	for k, n := range needed {
		if n.Keep && s.Kept.Has(name(k, 0, n.shards())) {
			continue
		}
		done := make(chan opened, 1)
		s.ahead[k] = done
		go func() {
			shards, _ := s.listen(k, n)
			done <- opened{shards}
		}()
	}
}

// takeAhead returns the sockets of a port that were opened ahead if their number is
// right; nil: not.
func (s *Set) takeAhead(k Key, n Need) []transport.Port {
	done := s.ahead[k]
	if done == nil {
		return nil
	}
	delete(s.ahead, k)
	got := <-done
	if len(got.shards) != n.shards() {
		closeAll(got.shards)
		return nil
	}
	return got.shards
}

// CloseAhead closes the ports that were opened ahead and not needed.
func (s *Set) CloseAhead() {
	for k, done := range s.ahead {
		closeAll((<-done).shards)
		delete(s.ahead, k)
	}
}
