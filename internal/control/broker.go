package control

import (
	"context"
	"errors"

	"sixfour/internal/api"
)

// Broker is a Daemon that also gives access to the accounts and leases of a broker.
type Broker interface {
	// Broker carries out a request, and calls emit with each value of the answer.
	Broker(ctx context.Context, q api.BrokerRequest, emit func(any) error) error
}

// ErrNoBroker is the error of a daemon whose configuration has no [broker].
var ErrNoBroker = errors.New("this daemon has no broker: add [broker] to its configuration")

func (s *Server) broker(w *answer, r *request) error {
	var q api.BrokerRequest
	if err := r.decode(&q); err != nil {
		return err
	}
	b, ok := s.daemon.(Broker)
	if !ok {
		return ErrNoBroker
	}
	return w.lines(r, func(ctx context.Context, emit func(any) error) error { return b.Broker(ctx, q, emit) })
}
