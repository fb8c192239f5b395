package main

import (
	"go.uber.org/zap"

	"sixfour/internal/api"
	"sixfour/internal/privilege"
)

// restrict drops the rights that the daemon does not need from now on, and logs those
// that remain.
func (p *process) restrict() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	box, err := privilege.Enter(p.cfg, p.flags.config, p.user)
	if err != nil {
		return err
	}
	p.sandbox = box
	state := box.State()
	p.Sandboxed(api.Sandbox(state))
	for _, m := range state.Missing {
		p.log.Warn("the daemon cannot restrict itself completely", zap.String("because", m))
	}
	p.log.Info("restricted", zap.String("user", state.User), zap.Strings("capabilities", state.Capabilities),
		zap.String("landlock", state.Landlock), zap.String("seccomp", state.Seccomp))
	return nil
}
