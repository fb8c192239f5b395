package main

import (
	"go.uber.org/zap"

	"sixfour/internal/config"
	"sixfour/internal/engine"
	"sixfour/internal/privilege"
)

// restrict gives up what the daemon does not need from now on, and says what is
// left.
func restrict(cfg *config.Config, file string, eng *engine.Engine, log *zap.Logger) (*privilege.Sandbox, error) {
	box, err := privilege.Enter(cfg, file)
	if err != nil {
		return nil, err
	}
	state := box.State()
	eng.Sandboxed(engine.Sandbox(state))
	for _, m := range state.Missing {
		log.Warn("the daemon cannot restrict itself", zap.String("because", m))
	}
	log.Info("restricted", zap.Strings("capabilities", state.Capabilities),
		zap.String("landlock", state.Landlock), zap.String("seccomp", state.Seccomp))
	return box, nil
}
