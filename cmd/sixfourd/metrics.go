package main

import (
	"context"
	"time"

	"go.uber.org/zap"

	"sixfour/internal/logging"
	"sixfour/internal/metrics"
)

// serveMetrics starts to serve metrics. Errors of clients are logged only at the debug
// level.
func serveMetrics(address string, daemon metrics.Daemon, log *logging.Log) (*metrics.Server, error) {
	errorLog, err := zap.NewStdLogAt(log.Named("metrics"), zap.DebugLevel)
	if err != nil {
		return nil, err
	}
	return metrics.Listen(address, daemon, log, errorLog)
}

// listenAgain is the interval between attempts to listen.
const listenAgain = 2 * time.Second

// offerMetrics serves metrics until ctx ends, and returns a function that waits for
// that. If it cannot listen, it reports that, and tries again: no tunnel depends on it,
// and the address may be that of a tunnel's interface, which does not exist yet.
func (p *process) offerMetrics(ctx context.Context, address string) (wait func()) {
	lastError := ""
	open := func() *metrics.Server {
		m, err := serveMetrics(address, p, p.log)
		switch {
		case err == nil && lastError != "":
			p.log.Info("metrics are available now", zap.String("address", address))
			p.updateReport(func(r *report) { r.metrics = "" })
		case err != nil && err.Error() != lastError:
			lastError = err.Error()
			p.log.Error("cannot serve metrics: trying again", zap.Error(err))
			p.updateReport(func(r *report) { r.metrics = lastError })
		}
		return m
	}
	m := open() // if possible, before the daemon is ready
	done := make(chan struct{})
	go func() {
		defer close(done)
		for m == nil {
			select {
			case <-ctx.Done():
				return
			case <-time.After(listenAgain):
				m = open()
			}
		}
		<-ctx.Done()
		m.Close()
	}()
	return func() { <-done }
}

// updateReport changes the report, and sends it to the service manager once the start is over.
func (p *process) updateReport(change func(*report)) {
	line := p.report.line(change)
	if p.ready.Load() {
		p.notify(line)
	}
}
