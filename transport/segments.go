package transport

import (
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"sixfour/transport/filter"
)

// Segments finds the sizes of the packets from which the kernel merged a packet. Network
// cards and drivers merge the packets of one inner TCP or UDP flow (GRO), and a raw
// socket does not report how large they were. A packet socket does (PACKET_VNET_HDR). It
// receives the same packets a moment earlier. For those that may be aggregates, and for
// no others, it records how they begin and how large their segments are. Segments may be
// used concurrently.
//
// A packet socket costs some 300 ns for each packet that this host receives. So it only
// listens from Wake on, until no aggregate has come for a while, or while Hold requires it.
type Segments struct {
	ring  *noteRing
	awake atomic.Bool // the socket listens

	mu    sync.Mutex // guards all below
	held  bool
	last  time.Time // when the last aggregate came
	notes notes
}

// restAfter is how long the socket listens after the last aggregate.
const restAfter = 10 * time.Minute

// Values of Meta.Segment other than a size.
const (
	Single  = 0  // the kernel did not merge the packet
	Unknown = -1 // nothing is known about it
	Small   = -2 // the same, but the packet is small, and was not merged if its inner checksum is complete
)

// OpenSegments opens the socket, in the network namespace of the calling thread. It
// needs CAP_NET_RAW.
//
// The socket's filter cannot be changed. It accepts only the first bytes of tunnel
// packets that are aggregates or have no complete checksum, and nothing else of this
// host's traffic.
func OpenSegments() (*Segments, error) {
	r, err := openNoteRing()
	if err != nil {
		return nil, explain("open packet socket", err)
	}
	s := &Segments{ring: r}
	s.notes.init()
	return s, nil
}

// Hold makes the socket listen even if there are no aggregates. With hold false, the
// socket stops if no aggregate has come for a while.
func (s *Segments) Hold(hold bool, now time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held = hold
	switch awake := s.awake.Load(); {
	case hold && !awake:
		return s.listen()
	case !hold && awake && now.Sub(s.last) > restAfter:
		s.awake.Store(false)
		return s.ring.bind(0)
	}
	return nil
}

// Wake makes the socket listen. The caller has received a packet from one of its peers that
// is so large that it may be an aggregate. A packet from anyone else must not have this
// effect, because it makes every packet that this host receives cost more.
func (s *Segments) Wake() {
	if s.awake.Load() {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.awake.Load() {
		_ = s.listen() // without notes, packets are cut to a safe size
	}
}

// listen starts to record packets.
func (s *Segments) listen() error {
	s.last = time.Now()
	s.awake.Store(true) // also on an error: the call would fail again for each packet
	return s.ring.bind(unix.ETH_P_ALL)
}

// Close must not be called while a receiver uses s.
func (s *Segments) Close() error { return s.ring.close() }

// find sets the segment size of each packet of a received batch, and completes the GRE
// checksums that the kernel left when it merged packets.
func (s *Segments) find(bufs [][]byte, meta []Meta) {
	if !s.awake.Load() {
		assume(meta)
		return
	}
	for i := range meta {
		m := &meta[i]
		if m.Segment = Small; m.Size > filter.Large {
			m.Segment = Unknown
		}
	}
	if !s.ring.ready() && s.notes.live.Load() == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.read()
	now := time.Now()
	for i := range meta {
		pkt := bufs[i][:meta[i].Size]
		key, ok := s.notes.key(pkt)
		if !ok {
			continue
		}
		if segment, ok := s.notes.take(key); ok {
			if meta[i].Segment = segment; segment > 0 {
				s.last = now
				finishGRE(pkt)
			}
		}
	}
}

// read reads what the kernel has recorded.
func (s *Segments) read() {
	s.notes.age()
	for s.ring.ready() {
		if f, ok := s.ring.next(); ok {
			if key, ok := s.notes.key(f.pkt); ok {
				s.notes.put(key, f.segment, f.device)
			}
		}
		s.ring.done() // after put: a goroutine that finds no frame here must find its note
	}
}

// assume is find for the case without notes. Packets of at most filter.Large bytes are
// Single, larger ones Unknown.
func assume(meta []Meta) {
	for i := range meta {
		m := &meta[i]
		if m.Segment = Single; m.Size > filter.Large {
			m.Segment = Unknown
		}
	}
}

// noteRing is a packet socket that shares memory with the kernel (packet(7):
// PACKET_RX_RING, TPACKET_V2), in frames.
type noteRing struct {
	fd int
	frames
}

// Sizes of a noteRing.
const (
	noteFrame  = 512       // bytes
	noteMemory = 256 << 10 // bytes of all frames
)

func openNoteRing() (r *noteRing, err error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	r = &noteRing{fd: fd}
	if err := r.setUp(); err != nil {
		r.close()
		return nil, err
	}
	return r, nil
}

func (r *noteRing) setUp() error {
	raw, err := bpf.Assemble(filter.Aggregates())
	if err != nil {
		return err
	}
	code := make([]unix.SockFilter, len(raw))
	for i, r := range raw {
		code[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	if err := unix.SetsockoptSockFprog(r.fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(code)), Filter: &code[0]}); err != nil {
		return os.NewSyscallError("setsockopt SO_ATTACH_FILTER", err)
	}
	for _, o := range []struct {
		name               string
		level, option, val int
	}{
		{"SO_LOCK_FILTER", unix.SOL_SOCKET, unix.SO_LOCK_FILTER, 1},
		{"PACKET_VERSION", unix.SOL_PACKET, unix.PACKET_VERSION, unix.TPACKET_V2},
		{"PACKET_VNET_HDR", unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1},
	} {
		if err := unix.SetsockoptInt(r.fd, o.level, o.option, o.val); err != nil {
			return os.NewSyscallError("setsockopt "+o.name, err)
		}
	}
	// Available since Linux 4.20. On older kernels the filter refuses outgoing packets.
	_ = unix.SetsockoptInt(r.fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1)
	block := max(os.Getpagesize(), noteFrame)
	req := unix.TpacketReq{
		Block_size: uint32(block), Block_nr: uint32(noteMemory / block),
		Frame_size: noteFrame, Frame_nr: noteMemory / noteFrame,
	}
	if err := unix.SetsockoptTpacketReq(r.fd, unix.SOL_PACKET, unix.PACKET_RX_RING, &req); err != nil {
		return os.NewSyscallError("setsockopt PACKET_RX_RING", err)
	}
	mem, err := unix.Mmap(r.fd, 0, noteMemory, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return os.NewSyscallError("mmap", err)
	}
	r.mem = mem
	return nil
}

// bind makes the socket receive the packets of an Ethernet protocol, or none if it is 0.
// In some kernels only sockets for all protocols receive a packet before a raw socket
// does.
func (r *noteRing) bind(etherType uint16) error {
	return os.NewSyscallError("bind", unix.Bind(r.fd, &unix.SockaddrLinklayer{Protocol: toNetwork(etherType)}))
}

func (r *noteRing) close() error {
	if r.mem != nil {
		_ = unix.Munmap(r.mem)
	}
	if err := unix.Close(r.fd); err != nil {
		return fmt.Errorf("close packet socket: %w", err)
	}
	return nil
}
