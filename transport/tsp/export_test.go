package tsp

import (
	"time"

	"sixfour/transport"
)

// NewServerFor is NewServer with short times.
func NewServerFor(c ServerConfig, unit time.Duration) (*Server, error) {
	t := usualTiming
	t.sweep, t.restart, t.pause, t.step, t.whole = unit/4, unit/4, unit/10, 4*unit, 10*unit
	t.often = 1
	return newServer(c, transport.Options{}, t)
}

// ListenFor is Listen with short times.
func ListenFor(c Config, unit time.Duration) (*Port, error) {
	t := usualAsking
	t.first, t.accept, t.tcp = unit/5, unit/2, 10*unit
	t.retry, t.most, t.refused, t.keep = unit/4, unit, unit/2, unit
	return listen(c, transport.Options{}, t)
}
