package wireguard

import (
	"time"

	"sixfour/transport"
)

// ListenFor opens a port whose sessions end at an age, without a new handshake.
func ListenFor(c Config, age time.Duration) (*Port, error) {
	t := usualTiming
	t.every, t.end, t.renew, t.ask = age/20, age, age-age/4, age/10
	return listen(c, transport.Options{}, t)
}

// Padded returns the length of a packet with padding up to a length.
var Padded = padded

// PutOne puts a packet into a queue of a size that nobody takes packets from, until there is
// no room, and returns the error for each.
func PutOne(size, packets int) (errs []error) {
	q := newQueue(size)
	for range packets {
		_, err := q.put(1, true, func(int, *slot) error { return nil })
		errs = append(errs, err)
	}
	return errs
}
