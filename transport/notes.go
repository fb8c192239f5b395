package transport

import (
	"encoding/binary"
	"hash/maphash"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"sixfour/encap/header"
)

// frames are those of a ring, one after the other.
type frames struct {
	mem []byte
	at  atomic.Uint32 // the next, of those that the kernel fills in turn
}

func (f *frames) this() []byte { return f.mem[int(f.at.Load())*noteFrame:][:noteFrame] }

func status(frame []byte) *uint32 { return (*uint32)(unsafe.Pointer(&frame[0])) }

// ready reports whether there is a frame to read. Any goroutine may call it.
func (f *frames) ready() bool {
	return atomic.LoadUint32(status(f.this()))&unix.TP_STATUS_USER != 0
}

// frame is what the kernel noted of a packet.
type frame struct {
	pkt     []byte // its beginning, from the IP header on
	segment int    // the size of its segments
	device  int32  // where it arrived
}

// next is the frame that is ready. Not ok means that it says nothing of use.
func (f *frames) next() (_ frame, ok bool) {
	const address, index = 32, 4 // offsets of the struct sockaddr_ll, and in it
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

// done gives the frame back.
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

// notes are the sizes of segments, by how packets begin, in sets of which a key has one.
type notes struct {
	seed maphash.Seed
	sets [noteSets][noteWays]note
	live atomic.Int32 // notes that are there
	idle int          // how many batches brought none since
}

type note struct {
	key    uint64 // 0: nothing is noted here
	device int32  // where it arrived first: a VLAN or bond tells of it again
	size   uint16
	count  uint16 // of packets that begin so, which are not taken yet
}

const (
	noteSets = 256 // a power of two
	noteWays = 8   // more than frames in all
	// noteLife is how many batches may come, none of which brings a note, before those
	// that nobody took are forgotten: their packets did not arrive, because a filter
	// of this host refused them, or a queue was full.
	noteLife = 1024
	// ambiguous is the size of packets that begin alike and have segments of different
	// sizes.
	ambiguous = 1<<16 - 1
)

func (n *notes) init() { n.seed = maphash.MakeSeed() }

// set is the one of a key, whose lowest bit is always set.
func (n *notes) set(key uint64) *[noteWays]note { return &n.sets[key>>1%noteSets] }

// put notes a size. Where there is no room, it takes that of another note.
func (n *notes) put(key uint64, size int, device int32) {
	n.idle = 0
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

// take is the size that was noted, if one was, and no other for packets like that.
func (n *notes) take(key uint64) (size int, ok bool) {
	set := n.set(key)
	for i := range set {
		s := &set[i]
		if s.key != key {
			continue
		}
		size = int(s.size)
		if s.count--; s.count == 0 {
			s.key = 0
			n.live.Add(-1)
		}
		return size, size != ambiguous
	}
	return 0, false
}

// age counts a batch.
func (n *notes) age() {
	if n.idle++; n.idle < noteLife {
		return
	}
	n.idle = 0
	clear(n.sets[:])
	n.live.Store(0)
}

// keyBytes of what a packet carries tell it from others: they hold the inner headers,
// with the sequence number of TCP.
const keyBytes = 96

// key is what a packet is recognized by, the same for all of it and for its beginning,
// and with the extension headers of IPv6 or without. It is never 0. Not ok means that
// a packet is not of a kind that is put together.
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

// outerOf is what an outer packet carries, as far as it is there, its protocol, and
// how long it is in all.
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

// outerOf6 goes past destination options, in which the limit of encapsulations is
// (RFC 2473 section 4.1.1). A packet from a raw socket has none any more.
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

// finishGRE computes the checksum of a GRE packet that was put together, which is
// that of the first of its segments (RFC 2784 section 2.4). The kernel has checked
// that of each.
func finishGRE(pkt []byte) {
	const checksum = 0x80
	carried, protocol, _ := outerOf(pkt)
	if protocol != header.GRE || len(carried) < 8 || carried[0]&checksum == 0 {
		return
	}
	carried[4], carried[5] = 0, 0
	binary.BigEndian.PutUint16(carried[4:], ^header.Sum(carried, 0))
}
