package main

import (
	"go.uber.org/zap"

	"sixfour/internal/config"
	"sixfour/internal/store"
)

// openCounters opens the counters of all tunnels of a configuration.
func openCounters(cfg *config.Config, log *zap.Logger) *store.Counters {
	var files []string
	for i := range cfg.Tunnels {
		files = append(files, cfg.Tunnels[i].CounterFiles()...)
	}
	return store.OpenCounters(files, func(file string, err error) {
		log.Warn("lisp: nonces of registrations are not kept: if the clock goes back, map servers refuse registrations after a restart", zap.String("file", file), zap.Error(err))
	})
}
