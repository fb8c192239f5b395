package ayiya

import (
	"encoding/binary"
	"sync"

	"sixfour/encap/ayiya"
	"sixfour/transport/access"
)

// identity is the address of a client in its tunnel.
type identity = [ayiya.IdentityLen]byte

// member is what is known of a client that has proved who it is, while it is attached, and
// for as long afterwards as copies of its packets would be accepted. What each packet needs
// is close together: with many clients, little of it is in the processor's caches.
type member struct {
	telling sync.Mutex // held while the broker is told where the client is

	mu      sync.Mutex // guards all below
	moment             // when things happened last
	current            // session is nil: not attached
	last    place
	recent  ayiya.Recent
}

// moment are times in nanoseconds since the start of the server.
type moment struct {
	heard   int64 // a packet was accepted
	told    int64 // the broker was told so
	refused int64 // a refusal was reported; 0: never
}

// current is what the packets of a client that is attached need.
type current struct {
	session   *session
	client    access.Client
	key       ayiya.Key
	attaching bool // a goroutine waits for the broker
}

// at returns where the client was last.
func (m *member) at() place {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.last
}

// tell tells the broker where the client is. Of several calls at the same time, the last one has
// the last place.
func (m *member) tell(client access.Client) {
	m.telling.Lock()
	defer m.telling.Unlock()
	at := m.at()
	client.Heard(at.from, at.at)
}

// attached returns the session, or nil.
func (m *member) attached() *session {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.session
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
func (t *table) add(id *identity, at place, heard int64) *member {
	s := &t[t.stripe(id)]
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.members[*id]
	if m == nil {
		m = &member{last: at, moment: moment{heard: heard}}
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
