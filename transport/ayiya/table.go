package ayiya

import (
	"encoding/binary"
	"sync"
	"sync/atomic"
	"time"

	"sixfour/encap/ayiya"
)

// identity is the address of a client in its tunnel.
type identity = [ayiya.IdentityLen]byte

// member is what is known of a client that has proved who it is, while it is attached, and
// for as long afterwards as copies of its packets would be accepted.
type member struct {
	session atomic.Pointer[session] // nil: not attached
	last    atomic.Pointer[place]   // where it was last; never nil
	heard   atomic.Int64            // when, in nanoseconds since the start of the server

	mu        sync.Mutex // guards all below
	recent    ayiya.Recent
	attaching bool
	refused   time.Time // when the last refusal was reported
}

// stripes is how many parts the table has. Each has a lock of its own.
const stripes = 64

// table finds clients by their identity.
type table [stripes]struct {
	mu      sync.RWMutex
	members map[identity]*member
}

func (t *table) stripe(id *identity) int {
	h := binary.BigEndian.Uint64(id[:8]) ^ binary.BigEndian.Uint64(id[8:])
	return int(h * 0x9e3779b97f4a7c15 >> 58)
}

// find returns the client with an identity, or nil.
func (t *table) find(id *identity) *member {
	s := &t[t.stripe(id)]
	s.mu.RLock()
	m := s.members[*id]
	s.mu.RUnlock()
	return m
}

// add returns the client with an identity, a new one if there is none, which is at a place.
func (t *table) add(id *identity, at *place, heard int64) *member {
	s := &t[t.stripe(id)]
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.members[*id]
	if m == nil {
		m = &member{}
		m.last.Store(at)
		m.heard.Store(heard)
		if s.members == nil {
			s.members = make(map[identity]*member)
		}
		s.members[*id] = m
	}
	return m
}

// sweep calls f with each client, and forgets those for which it returns false. F may not call
// the table.
func (t *table) sweep(f func(*member) bool) {
	for i := range t {
		s := &t[i]
		s.mu.Lock()
		for id, m := range s.members {
			if !f(m) {
				delete(s.members, id)
			}
		}
		s.mu.Unlock()
	}
}

// all returns all clients.
func (t *table) all() (all []*member) {
	for i := range t {
		s := &t[i]
		s.mu.RLock()
		for _, m := range s.members {
			all = append(all, m)
		}
		s.mu.RUnlock()
	}
	return all
}
