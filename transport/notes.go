package transport

import (
	"encoding/binary"
	"hash/maphash"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"sixfour/encap/header"
)

// frames are the frames of a ring, in order.
type frames struct {
	mem []byte
	at  atomic.Uint32 // the frame that the kernel fills next
}

func (f *frames) this() []byte { return f.mem[int(f.at.Load())*noteFrame:][:noteFrame] }

func status(frame []byte) *uint32 { return (*uint32)(unsafe.Pointer(&frame[0])) }

// ready reports whether there is a frame to read. It may be called concurrently.
func (f *frames) ready() bool {
	return atomic.LoadUint32(status(f.this()))&unix.TP_STATUS_USER != 0
}

// frame is what the kernel recorded about a packet.
type frame struct {
	pkt     []byte // the beginning of the packet, from the IP header on
	segment int    // the size of its segments in bytes
	device  int32  // the device on which it arrived
}

// next returns the frame that is ready. Ok is false if the frame has no useful content.
func (f *frames) next() (_ frame, ok bool) {
	const address, index = 32, 4 // offset of struct sockaddr_ll, and of the index in it
	b := f.this()
	h := (*unix.Tpacket2Hdr)(unsafe.Pointer(&b[0]))
	mac, from, size := int(h.Mac), int(h.Net), int(h.Snaplen)
	end := mac + size
	if mac < virtioLen || from < mac || end > len(b) || from >= end {
		return frame{}, false
	}
	segment := 0
	if vnet := b[mac-virtioLen : mac]; vnet[1] != unix.VIRTIO_NET_HDR_GSO_NONE {
		segment = int(binary.NativeEndian.Uint16(vnet[4:]))
	}
	return frame{b[from:end], segment, int32(binary.NativeEndian.Uint32(b[address+index:]))}, true
}

// done returns the frame to the kernel.
func (f *frames) done() {
	frame := f.this()
	atomic.StoreUint32(status(frame), unix.TP_STATUS_KERNEL)
	next := f.at.Load() + 1
	if int(next)*noteFrame >= len(f.mem) {
		next = 0
	}
	f.at.Store(next)
}

// virtioLen is the length of struct virtio_net_hdr:
//
//	flags 1, gso_type 1, hdr_len 2, gso_size 2, csum_start 2, csum_offset 2
const virtioLen = 10

// notes maps the first bytes of packets to the sizes of their segments. It is a hash
// table of sets; a key belongs to one set.
type notes struct {
	seed maphash.Seed
	sets [noteSets][noteWays]note
	live atomic.Int32 // notes in the table
	idle int          // batches since a note was last taken
}

type note struct {
	key    uint64 // 0: the entry is free
	device int32  // the device on which it arrived first: a VLAN or bond reports it again
	size   uint16
	count  uint16 // number of packets with this key that were not taken yet
}

const (
	noteSets = 256 // a power of two
	noteWays = 8   // more than one set needs for all frames
	// noteLife is how many batches may come without a note being taken before all notes
	// are removed: their packets did not arrive, because a filter of this host refused
	// them, because a queue was full, or because they belong to no tunnel.
	noteLife = 1024
	// ambiguous is the size for packets that begin in the same way but have segments of
	// different sizes.
	ambiguous = 1<<16 - 1
)

func (n *notes) init() { n.seed = maphash.MakeSeed() }

// set returns the set of a key, whose lowest bit is always set.
func (n *notes) set(key uint64) *[noteWays]note { return &n.sets[key>>1%noteSets] }

// put stores a size. If there is no room, it replaces another note.
func (n *notes) put(key uint64, size int, device int32) {
	if n.live.Load() == 0 {
		n.idle = 0
	}
	set := n.set(key)
	to := &set[key>>32%noteWays]
	for i := range set {
		if s := &set[i]; s.key == key {
			if s.device == device {
				s.count++
			}
			if s.size != uint16(size) {
				s.size = ambiguous
			}
			return
		} else if s.key == 0 {
			to = s
		}
	}
	if to.key == 0 {
		n.live.Add(1)
	}
	*to = note{key, device, uint16(size), 1}
}

// take removes and returns the size for a key. Ok is false if no size was stored, or if
// different sizes were stored for the same key.
func (n *notes) take(key uint64) (size int, ok bool) {
	set := n.set(key)
	for i := range set {
		s := &set[i]
		if s.key != key {
			continue
		}
		n.idle = 0
		size = int(s.size)
		if s.count--; s.count == 0 {
			s.key = 0
			n.live.Add(-1)
		}
		return size, size != ambiguous
	}
	return 0, false
}

// age counts a batch, and removes notes that are too old.
func (n *notes) age() {
	if n.idle++; n.idle < noteLife {
		return
	}
	n.idle = 0
	clear(n.sets[:])
	n.live.Store(0)
}

// keyBytes is how many bytes of an outer packet's content distinguish it from others:
// they contain the inner headers, with the TCP sequence number.
const keyBytes = 96

// key returns a number that identifies a packet. It is the same for the whole packet and
// for its beginning, and with or without IPv6 extension headers. It is never 0. Ok is
// false if the packet is not of a kind that the kernel merges.
func (n *notes) key(pkt []byte) (key uint64, ok bool) {
	carried, protocol, length := outerOf(pkt)
	if len(carried) < 2*header.IPv4Len {
		return 0, false
	}
	var b [keyBytes + 24]byte
	binary.NativeEndian.PutUint32(b[:], uint32(length))
	b[4], b[5] = protocol, byte(header.Version(pkt))
	if header.Version(pkt) == 4 {
		copy(b[8:], header.IPv4(pkt).Source())
	} else {
		copy(b[8:], header.IPv6(pkt).Source())
	}
	return maphash.Bytes(n.seed, b[:24+copy(b[24:], carried)]) | 1, true
}

// outerOf returns what an outer packet carries, which may be cut off, its protocol, and
// the packet's whole length.
func outerOf(pkt []byte) (carried []byte, protocol byte, length int) {
	switch header.Version(pkt) {
	case 4:
		if len(pkt) < header.IPv4Len {
			return nil, 0, 0
		}
		ip := header.IPv4(pkt)
		h := ip.HeaderLen()
		if h < header.IPv4Len || h > len(pkt) {
			return nil, 0, 0
		}
		return pkt[h:], ip.Protocol(), int(binary.BigEndian.Uint16(pkt[2:])) - h
	case 6:
		return outerOf6(pkt)
	}
	return nil, 0, 0
}

// outerOf6 skips destination options, which hold the encapsulation limit (RFC 2473
// section 4.1.1). A packet from a raw socket no longer has them.
func outerOf6(pkt []byte) (carried []byte, protocol byte, length int) {
	if len(pkt) < header.IPv6Len {
		return nil, 0, 0
	}
	protocol, carried = pkt[6], pkt[header.IPv6Len:]
	length = int(binary.BigEndian.Uint16(pkt[4:]))
	for protocol == header.DestOptions && len(carried) >= 8 {
		n := 8 + 8*int(carried[1])
		if n > len(carried) || n > length {
			return nil, 0, 0
		}
		protocol, carried, length = carried[0], carried[n:], length-n
	}
	return carried, protocol, length
}

// finishGRE computes the checksum of a merged GRE packet. The packet has the checksum of
// its first segment (RFC 2784 section 2.4). The kernel has verified that of each
// segment.
func finishGRE(pkt []byte) {
	const checksum = 0x80
	carried, protocol, _ := outerOf(pkt)
	if protocol != header.GRE || len(carried) < 8 || carried[0]&checksum == 0 {
		return
	}
	carried[4], carried[5] = 0, 0
	binary.BigEndian.PutUint16(carried[4:], ^header.Sum(carried, 0))
}
