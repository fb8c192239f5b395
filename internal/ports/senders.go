package ports

import (
	"maps"

	"sixfour/encap/header"
	"sixfour/transport"
)

// Origin identifies what all packets of a sender have in common: the port, and for a raw
// port the mark and the only interface (transport.Options).
type Origin struct {
	Key    Key
	Mark   uint32
	Device int
}

// Senders are the sending halves of ports for one user: for each origin one sender for
// each goroutine of the user.
type Senders struct {
	set *Set
	n   int
	of  map[Origin]senders
}

// senders are the senders of one origin.
type senders struct {
	all []transport.Sender
	of  *entry // the port through which they send; nil: they need none
}

// NewSenders returns senders for n goroutines. The methods of Senders must not be called
// concurrently with each other or with those of the Set.
func (s *Set) NewSenders(n int) *Senders {
	return &Senders{set: s, n: n, of: make(map[Origin]senders)}
}

// Open returns the senders of an origin, and opens them if they are not open, or if their
// port was closed. They belong to Senders. Senders of a raw port have sockets of their
// own; a UDP port is opened if it is not open, as n says, and from the next Set.Need on it
// must be among the needed ports.
func (s *Senders) Open(from Origin, n Need) ([]transport.Sender, error) {
	have, ok := s.of[from]
	if ok && have.of == s.set.ports[from.Key] || ok && have.of == nil {
		return have.all, nil
	}
	have.close()
	delete(s.of, from)
	var now senders
	if from.Key.Protocol == header.UDP {
		s.closeMarked(from.Key)
		var err error
		if now.of, err = s.set.open(from.Key, n); err != nil {
			return nil, err
		}
	}
	for i := range s.n {
		tx, err := s.set.send(from, now.of, i)
		if err != nil {
			closeSenders(now.all)
			return nil, err
		}
		now.all = append(now.all, tx)
	}
	if now.of != nil {
		now.of.users++
	}
	s.of[from] = now
	return now.all, nil
}

// closeMarked closes the senders through ports at the same address and port with another
// mark: a user has one mark at a time.
func (s *Senders) closeMarked(k Key) {
	s.CloseUnused(func(o Origin) bool {
		return o.Key.Protocol != header.UDP || o.Key.Local != k.Local || o.Key.Mark == k.Mark
	})
}

// send opens a sender through a shard of a port; nil: through a socket of its own.
func (s *Set) send(from Origin, e *entry, i int) (transport.Sender, error) {
	o := transport.Options{Mark: from.Mark, Device: from.Device}
	if e == nil {
		return s.Sockets.Dial(from.Key, o)
	}
	return e.shards[i%len(e.shards)].Sender(o)
}

// CloseUnused closes the senders of all origins but those that are used.
func (s *Senders) CloseUnused(used func(Origin) bool) {
	maps.DeleteFunc(s.of, func(from Origin, have senders) bool {
		if used(from) {
			return false
		}
		have.close()
		return true
	})
}

// Close closes all senders.
func (s *Senders) Close() { s.CloseUnused(func(Origin) bool { return false }) }

// Len returns the number of origins with open senders.
func (s *Senders) Len() int { return len(s.of) }

// close closes the senders, which then no longer use their port.
func (s *senders) close() {
	closeSenders(s.all)
	if s.of != nil {
		s.of.users--
	}
}

func closeSenders(all []transport.Sender) {
	for _, tx := range all {
		tx.Close()
	}
}
