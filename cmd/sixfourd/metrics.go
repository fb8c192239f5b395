package main

import (
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
