package ayiya

import "encoding/binary"

// Recent remembers the messages of one sender, to recognize copies of them. It remembers the
// last 128 or so, in 1 KB, and up to which epoch it has forgotten others. The zero value is
// ready for use.
//
// A sender with few packets is remembered for longer than its messages are valid, so that no
// copy is accepted. Of one with many packets, a message that may have been forgotten, Old,
// should not be accepted from another address than the sender's present one: then a copy
// does not move the tunnel to another address.
type Recent struct {
	sets   [recentSets][recentWays]uint64 // epoch, and a part of the signature; the newest first; 0: none
	forgot bool
	until  uint32 // the newest epoch of a message that was forgotten
}

const (
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
	entry, set := r.place(m)
	for _, e := range set {
		if e == entry {
			return Copy
		}
	}
	if r.forgot && int32(m.Epoch-r.until) <= 0 {
		return Old
	}
	return New
}

// Add adds a message.
func (r *Recent) Add(m *Message) {
	entry, set := r.place(m)
	if last := set[recentWays-1]; last != 0 {
		if epoch := uint32(last >> 32); !r.forgot || int32(epoch-r.until) > 0 {
			r.forgot, r.until = true, epoch
		}
	}
	copy(set[1:], set[:recentWays-1])
	set[0] = entry
}

// place returns what is remembered of a message, and where.
func (r *Recent) place(m *Message) (entry uint64, set *[recentWays]uint64) {
	s := m.Signature()
	return uint64(m.Epoch)<<32 | uint64(binary.BigEndian.Uint32(s)), &r.sets[s[4]%recentSets]
}

// Signer signs packets of which no two are the same, because the receiver would take the second
// one for a copy: packets with the same inner packet in the same second get different
// epochs. It is for one goroutine. The zero value is ready for use.
type Signer struct {
	sent [signerLen]uint64 // epoch, and a part of the signature
}

const (
	signerLen = 1024
	signerTry = 16 // other epochs
)

// Sign signs a packet as the function Sign does, with the epoch in the header or an earlier
// one.
func (s *Signer) Sign(b []byte, h *Header, k *Key) {
	own := *h
	for range signerTry {
		Sign(b, &own, k)
		signature := b[fixedLen+IdentityLen:]
		place := &s.sent[binary.BigEndian.Uint16(signature[4:])%signerLen]
		entry := uint64(own.Epoch)<<32 | uint64(binary.BigEndian.Uint32(signature))
		if *place != entry {
			*place = entry
			return
		}
		own.Epoch--
	}
}
