package ayiya

import (
	"encoding/binary"
	"time"
)

// Recent remembers the messages of one sender, to recognize copies of them: the last 16 or,
// when more come while their epochs are valid, the last 128 or so, which takes another 1 KB.
// It also remembers up to which epoch it has forgotten others. The zero value is ready for
// use.
//
// A sender with few packets is remembered for longer than its messages are valid, so that no
// copy is accepted. Of one with many packets, a message that may have been forgotten, Old,
// should not be accepted from another address than the sender's present one: then a copy
// does not move the tunnel to another address.
type Recent struct {
	forgot bool
	oldest uint8                           // index in few
	until  uint32                          // the newest epoch of a message that was forgotten
	few    [recentFew]uint64               // epoch, and a part of the signature; 0: none
	many   *[recentSets][recentWays]uint64 // instead of few; in each set the newest comes first
}

const (
	recentFew  = 16
	recentSets = 16
	recentWays = 8
)

// Age is what Recent knows about a message.
type Age uint8

// The values of Age.
const (
	New  Age = iota // was not received before
	Old             // was perhaps received before
	Copy            // was received before
)

// Check returns what is known about a message, whose signature has been verified.
func (r *Recent) Check(m *Message) Age {
	entry, known := entryOf(m), r.few[:]
	if r.many != nil {
		known = r.many[setOf(entry)][:]
	}
	for _, e := range known {
		if e == entry {
			return Copy
		}
	}
	if r.forgot && int32(m.Epoch-r.until) <= 0 {
		return Old
	}
	return New
}

// Add adds a message. Messages whose epoch differs by more than the window from the time are
// not accepted.
func (r *Recent) Add(m *Message, window time.Duration) {
	entry := entryOf(m)
	if r.many == nil {
		last := &r.few[r.oldest]
		if *last == 0 || expired(*last, entry, window) {
			*last = entry
			r.oldest = (r.oldest + 1) % recentFew
			return
		}
		r.many = new([recentSets][recentWays]uint64)
		for i := range r.few {
			r.put(r.few[(int(r.oldest)+i)%recentFew], window)
		}
	}
	r.put(entry, window)
}

// put adds an entry to many.
func (r *Recent) put(entry uint64, window time.Duration) {
	set := &r.many[setOf(entry)]
	if last := set[recentWays-1]; last != 0 && !expired(last, entry, window) {
		if epoch := uint32(last >> 32); !r.forgot || int32(epoch-r.until) > 0 {
			r.forgot, r.until = true, epoch
		}
	}
	copy(set[1:], set[:recentWays-1])
	set[0] = entry
}

// expired reports whether a message is too old to be accepted at a time when another one is.
func expired(old, now uint64, window time.Duration) bool {
	return time.Duration(int32(uint32(now>>32)-uint32(old>>32)))*time.Second > 2*window
}

// entryOf returns what is remembered of a message.
func entryOf(m *Message) uint64 {
	return uint64(m.Epoch)<<32 | uint64(binary.BigEndian.Uint32(m.Signature()))
}

func setOf(entry uint64) int { return int(entry % recentSets) }

// Signer signs packets of which no two are the same, because the receiver would take the second
// one for a copy: packets with the same inner packet in the same second get different
// epochs. Of more than 100 such packets some are the same nevertheless. A Signer is for one
// goroutine. The zero value is ready for use.
type Signer struct {
	sent [signerSets][signerWays]uint64 // epoch, and a part of the signature; in each set the last one comes first
	back uint32                         // by how much an epoch was changed last
}

const (
	signerSets = 256
	signerWays = 4
	signerTry  = 4
	signerBack = 100 // less than what receivers accept
)

// Sign signs a packet as the function Sign does, with the epoch in the header or an earlier
// one.
func (s *Signer) Sign(b []byte, h *Header, k *Key) {
	own := *h
	for range signerTry {
		Sign(b, &own, k)
		signature := b[fixedLen+IdentityLen:]
		if s.add(signature[4], uint64(own.Epoch)<<32|uint64(binary.BigEndian.Uint32(signature))) {
			return
		}
		s.back = s.back%signerBack + 1
		own.Epoch = h.Epoch - s.back
	}
}

// add adds an entry, and reports whether it is new.
func (s *Signer) add(set byte, entry uint64) bool {
	ways := &s.sent[set]
	at := 0
	for at < len(ways)-1 && ways[at] != entry {
		at++
	}
	known := ways[at] == entry
	copy(ways[1:at+1], ways[:at])
	ways[0] = entry
	return !known
}
