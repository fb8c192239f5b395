package mapserver

import (
	"encoding/binary"
	"hash/maphash"
	"net/netip"
	"sync"
	"time"
)

// Replies go to an address that a request names, and anyone can name the address of somebody
// else. Those that are not larger than the request do not help an attacker. The bytes of others
// beyond that are limited for each receiver, an IPv4 address or a /64.
const (
	excessRate  = 16 << 10 // bytes in a second
	excessBurst = 64 << 10
	excessSlots = 4096
)

// budget counts the bytes by which replies were larger than requests.
type budget struct {
	seed  maphash.Seed
	mu    *sync.Mutex
	slots []excess
}

// excess is what the receivers with the same hash have got.
type excess struct {
	bytes float64
	at    time.Time
}

func newBudget() budget {
	return budget{maphash.MakeSeed(), new(sync.Mutex), make([]excess, excessSlots)}
}

// take reports whether a receiver may get so many bytes more than were sent in its name.
func (b *budget) take(to netip.Addr, n int, now time.Time) bool {
	if n <= 0 {
		return true
	}
	key := to.AsSlice()[:min(8, to.BitLen()/8)]
	b.mu.Lock()
	defer b.mu.Unlock()
	e := &b.slots[maphash.Bytes(b.seed, binary.BigEndian.AppendUint16(key[:len(key):len(key)], uint16(to.BitLen())))%excessSlots]
	e.bytes = max(0, e.bytes-now.Sub(e.at).Seconds()*excessRate)
	e.at = now
	if e.bytes+float64(n) > excessBurst {
		return false
	}
	e.bytes += float64(n)
	return true
}
