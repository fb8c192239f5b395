package main

import (
	"context"

	"go.uber.org/zap"

	"sixfour/internal/broker"
	"sixfour/internal/config"
)

// openBroker opens the broker of a configuration, if it has one, and installs its tunnel.
func openBroker(cfg *config.Config, log *zap.Logger) (*broker.Broker, error) {
	if cfg.Broker.Interface == "" {
		return nil, nil
	}
	b, err := broker.Open(cfg, log)
	if err != nil {
		return nil, err
	}
	b.Install(cfg)
	return b, nil
}

// runBroker serves the broker's clients until ctx ends or the function that it returns is
// called, which waits for that.
func (p *process) runBroker(ctx context.Context) (stop func()) {
	if p.broker == nil {
		return func() {}
	}
	p.broker.Report(p.Happened())
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		p.broker.Run(ctx)
	}()
	return func() {
		cancel()
		<-done
	}
}
