package node

import (
	"encoding/binary"
	"hash/maphash"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"sixfour/encap/header"
	"sixfour/encap/resolve"
)

// fragments remembers at which end the first fragments of IPv4 packets were, because only these
// have ports, and keeps later fragments that arrive before them. Both are bounded: an old entry
// is replaced if there is no room. Any goroutine may use it, except for hold and next.
type fragments struct {
	seed maphash.Seed
	sets [fragmentSets]fragmentSet
	turn atomic.Uint32 // advances every turnTime; entries are valid for some turns
	due  time.Time     // of the next turn

	held []heldFragment
	size int // of held, in bytes
}

const (
	fragmentSets = 512
	fragmentWays = 4

	// An entry is valid for two to three turns, 20 to 30 s: as long as the other end waits for
	// fragments (mechanisms 1.4).
	turnTime   = 10 * time.Second
	validTurns = 3

	maxHeld     = 64
	maxHeldSize = 128 << 10
	holdTime    = time.Second
)

type fragmentSet struct {
	mu   sync.Mutex
	next int // the entry to replace
	list [fragmentWays]fragment
}

// fragmentKey is what the fragments of one packet have in common (RFC 791). Of packets that
// arrive, the end is a part of it, so that another end cannot replace the entry.
type fragmentKey struct {
	src, dst uint32
	id       uint16
	protocol byte
	from     header.Word6 // zero: a packet that leaves
}

type fragment struct {
	fragmentKey
	end  header.Word6
	turn uint32 // 0: unused
}

type heldFragment struct {
	pkt   []byte
	until time.Time
}

func newFragments() *fragments {
	f := &fragments{seed: maphash.MakeSeed()}
	f.turn.Store(validTurns)
	return f
}

// keyOf returns the key of a packet that has arrived from an end, or is about to leave.
func keyOf(ip header.IPv4, from header.Word6) fragmentKey {
	return fragmentKey{binary.BigEndian.Uint32(ip.Source()), binary.BigEndian.Uint32(ip.Dest()), ip.ID(), ip.Protocol(), from}
}

func (f *fragments) set(k fragmentKey) *fragmentSet {
	return &f.sets[maphash.Comparable(f.seed, k)%fragmentSets]
}

// leaves records where the first fragment of a packet goes. Of a packet that is not a fragment it
// records nothing.
func (f *fragments) leaves(ip header.IPv4, end header.Word6) {
	if ip.IsFragment() {
		f.add(keyOf(ip, header.Word6{}), end)
	}
}

// arrives is leaves for a packet from an end.
func (f *fragments) arrives(ip header.IPv4, from header.Word6) {
	if ip.IsFragment() {
		f.add(keyOf(ip, from), from)
	}
}

func (f *fragments) add(k fragmentKey, end header.Word6) {
	s := f.set(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	at := s.next
	for i := range s.list {
		if s.list[i].fragmentKey == k && s.list[i].turn != 0 {
			at = i
		}
	}
	if at == s.next {
		s.next = (s.next + 1) % fragmentWays
	}
	s.list[at] = fragment{k, end, f.turn.Load()}
}

// goesTo returns where the first fragment of a packet went, of which another one is about to
// leave.
func (f *fragments) goesTo(ip header.IPv4) (end header.Word6, ok bool) {
	return f.find(keyOf(ip, header.Word6{}))
}

// cameFrom reports whether the first fragment of a packet came from an end.
func (f *fragments) cameFrom(ip header.IPv4, from header.Word6) bool {
	_, ok := f.find(keyOf(ip, from))
	return ok
}

func (f *fragments) find(k fragmentKey) (end header.Word6, ok bool) {
	s, now := f.set(k), f.turn.Load()
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.list {
		if e := &s.list[i]; e.fragmentKey == k && e.turn != 0 && now-e.turn < validTurns {
			return e.end, true
		}
	}
	return end, false
}

// hold keeps a copy of a later fragment until its first one is known. It reports whether there
// was room.
func (f *fragments) hold(pkt []byte, now time.Time) bool {
	if len(f.held) >= maxHeld || f.size+len(pkt) > maxHeldSize {
		return false
	}
	f.held, f.size = append(f.held, heldFragment{slices.Clone(pkt), now.Add(holdTime)}), f.size+len(pkt)
	return true
}

// next returns the held fragments whose end is known now, and how many have waited for too long.
func (f *fragments) next(now time.Time) (send []resolve.Message, lost int, again time.Time) {
	if !now.Before(f.due) {
		f.turn.Add(1)
		f.due = now.Add(turnTime)
	}
	again = f.due
	f.held = slices.DeleteFunc(f.held, func(h heldFragment) bool {
		end, known := f.goesTo(h.pkt)
		switch {
		case known:
			send = append(send, resolve.Message{To: resolve.Endpoint6(end), Bytes: h.pkt})
		case !now.Before(h.until):
			lost++
		default:
			if soon := now.Add(holdTime / 20); soon.Before(again) {
				again = soon
			}
			return false
		}
		f.size -= len(h.pkt)
		return true
	})
	return send, lost, again
}
