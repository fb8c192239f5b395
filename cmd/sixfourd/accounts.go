package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"sixfour/internal/api"
	"sixfour/internal/broker"
	"sixfour/internal/config"
	"sixfour/internal/control"
	"sixfour/internal/leases"
	"sixfour/internal/text"
)

// maxRequest is the size of a request of sixfourctl, in bytes; storePatience is how long the
// store may take to answer.
const (
	maxRequest    = 64 << 10
	storePatience = 10 * time.Second
)

// answerBroker carries out a request of sixfourctl on the store of a configuration, without the
// daemon. The answer is one JSON value a line.
func answerBroker(path string, cfg *config.Broker, in io.Reader, out io.Writer) (err error) {
	if cfg.Interface == "" {
		return fmt.Errorf("%s has no [broker]: add it, or name another file with --config", path)
	}
	var q api.BrokerRequest
	if err := json.NewDecoder(io.LimitReader(in, maxRequest)).Decode(&q); err != nil {
		return fmt.Errorf("cannot read the request, which sixfourctl broker sends: %w", err)
	}
	s, err := broker.OpenStore(&cfg.Store)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	ctx, cancel := context.WithTimeout(context.Background(), storePatience)
	defer cancel()
	base, err := leases.Open(ctx, leases.Config{
		Store: s, Pool: cfg.Pool, PrefixLength: cfg.PrefixLength, MaxPrefixLength: cfg.MaxPrefixLength, Endpoints: cfg.Endpoints,
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, base.Close()) }()
	w := bufio.NewWriter(out)
	enc := json.NewEncoder(text.NewJSONWriter(w))
	if err := base.Serve(ctx, q, func(v any) error { return enc.Encode(v) }); err != nil {
		return err
	}
	return w.Flush()
}

// BrokerClients implements metrics.Brokers.
func (p *process) BrokerClients(each func(api.BrokerClient)) {
	if p.broker != nil {
		p.broker.Clients(each)
	}
}

// Broker implements control.Broker.
func (p *process) Broker(ctx context.Context, q api.BrokerRequest, emit func(any) error) error {
	if p.broker == nil {
		return control.ErrNoBroker
	}
	base, err := p.broker.Base()
	if err != nil {
		return err
	}
	return base.Serve(ctx, q, emit)
}
