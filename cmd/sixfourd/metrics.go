package main

import (
	"context"
	"time"

	"go.uber.org/zap"

	"sixfour/internal/engine"
	"sixfour/internal/logging"
	"sixfour/internal/metrics"
)

// serveMetrics listens for those who watch the daemon. What they do wrong is worth
// a line only for who looks for it.
func serveMetrics(address string, eng *engine.Engine, log *logging.Log) (*metrics.Server, error) {
	errorLog, err := zap.NewStdLogAt(log.Named("metrics"), zap.DebugLevel)
	if err != nil {
		return nil, err
	}
	return metrics.Listen(address, eng, log, errorLog)
}

// listenAgain is how often it is tried to listen where that is not possible.
const listenAgain = 2 * time.Second

// offerMetrics serves them until ctx ends, and returns a function that waits for that.
// Where it is not possible to listen, it says so, and tries again: no tunnel needs it, and
// the address may be that of a tunnel's interface, which is not there yet.
func (p *process) offerMetrics(ctx context.Context, address string) (wait func()) {
	said := ""
	open := func() *metrics.Server {
		m, err := serveMetrics(address, p.Engine, p.log)
		switch {
		case err == nil && said != "":
			p.log.Info("metrics can be read now", zap.String("address", address))
			p.say(func(r *report) { r.metrics = "" })
		case err != nil && err.Error() != said:
			said = err.Error()
			p.log.Error("metrics cannot be read, trying again", zap.Error(err))
			p.say(func(r *report) { r.metrics = said })
		}
		return m
	}
	m := open() // before the daemon is ready, if that is possible
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

// say changes the report, and tells the service manager if it waits for no more.
func (p *process) say(change func(*report)) {
	line := p.report.line(change)
	if p.ready.Load() {
		p.notify(line)
	}
}
