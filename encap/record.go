package encap

import (
	"math/rand/v2"
	"sync/atomic"
	"time"

	"sixfour/encap/framing"
)

// Record is the state that outlives a Stack. When the path to a peer changes, its stack
// is replaced. Identifications must continue then, so that none is used twice while
// packets with it are still in the network (RFC 6864 section 4.3), and counters must not
// start again. The stacks that share a Record may be used concurrently.
type Record struct {
	id6    atomic.Uint32
	id4    atomic.Uint32
	epoch  atomic.Int64 // when id4 was last at a multiple of 65536, in seconds since begun; 0: never
	wraps  atomic.Uint64
	oddECN atomic.Uint64

	segmented atomic.Bool // set by SetSegmented

	framing  framing.State
	destMTUs destMTUs
}

// NewRecord returns a Record that begins at random identifications.
func NewRecord() *Record {
	r := new(Record)
	r.id4.Store(rand.Uint32())
	r.id6.Store(rand.Uint32())
	return r
}

// framings returns the state of the framings; nil if there is no record.
func (r *Record) framings() *framing.State {
	if r == nil {
		return nil
	}
	return &r.framing
}

// Wraps returns how often IPv4 identifications have wrapped around within the lifetime
// of a fragment. Fragments of different packets can then be mixed up.
func (r *Record) Wraps() uint64 { return r.wraps.Load() }

// OddECN returns how many packets came with a combination of inner and outer ECN field
// that no correct path produces (RFC 6040 section 4.2).
func (r *Record) OddECN() uint64 { return r.oddECN.Load() }

// CountOddECN adds n packets to OddECN, which a program outside this process has received.
func (r *Record) CountOddECN(n uint64) { r.oddECN.Add(n) }

// fragmentLife is how long a fragment may live in the network (RFC 6864 section
// 3: the maximum datagram lifetime).
const fragmentLife = 120 // seconds

// begun is the reference point for the times of wraps.
var begun = time.Now()

// nextID4 returns the identification for a packet that may be fragmented. It does not
// repeat for as long as a 16-bit counter allows (RFC 6864 section 4.3), and is never 0,
// which the kernel would replace. Atomic packets, with DF, have 0.
func (r *Record) nextID4() uint16 {
	for {
		id := uint16(r.id4.Add(1))
		if id != 0 {
			return id
		}
		now := int64(time.Since(begun)/time.Second) + 1 // monotonic, because the wall clock may be set; 0 means never
		if last := r.epoch.Swap(now); last != 0 && now-last < fragmentLife {
			r.wraps.Add(1)
		}
	}
}

// nextID6 returns the identification for the next IPv6 packet that is fragmented. It has
// 32 bits (RFC 8200 section 4.5).
func (r *Record) nextID6() uint32 { return r.id6.Add(1) }

// SetSegmented says that the kernel also sends packets with the headers of the stacks, and
// cuts some of them from super-packets (see package transport/kernel). Errors about these
// packets may come at any time after, so there is no way back.
func (r *Record) SetSegmented() { r.segmented.Store(true) }

// maxSegments is more than the number of packets that the kernel cuts from a super-packet: 64
// KB in segments of an MSS of 64 bytes at least.
const maxSegments = 1024

// atomicID4 reports whether a packet with DF and the identification may be ours. In this
// process it is 0 (RFC 6864 section 4.1); the kernel numbers the segments of a super-packet
// from there.
func (r *Record) atomicID4(id uint16) bool {
	return id == 0 || r != nil && id < maxSegments && r.segmented.Load()
}

// recentID4 reports whether a packet with the identification may still be in the
// network.
func (r *Record) recentID4(id uint16) bool {
	const window = 1 << 13 // packets back
	return id != 0 && uint16(r.id4.Load())-id < window
}
