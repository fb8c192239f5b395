package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"go.uber.org/zap"

	"sixfour/internal/api"
	"sixfour/internal/config"
	"sixfour/internal/engine"
	"sixfour/internal/logging"
	"sixfour/internal/privilege"
	"sixfour/internal/systemd"
)

// process is the running daemon: what signals and the control socket ask things of.
type process struct {
	*engine.Engine
	flags   flags
	log     *logging.Log
	manager systemd.Manager
	user    privilege.User
	sandbox *privilege.Sandbox

	watchdog time.Duration // how often the manager wants to hear of us; 0: it does not
	beaten   time.Time     // when it did last; of the engine's control loop
	ready    atomic.Bool   // the manager was told so
	report   report

	mu  sync.Mutex     // one reload after the other
	cfg *config.Config // that runs
}

// notify tells systemd; without systemd it does nothing.
func (p *process) notify(states ...string) {
	if err := p.manager.Notify(states...); err != nil {
		p.log.Warn(err.Error())
	}
}

// hangups are the SIGHUPs from now on, of which one is kept until somebody looks:
// without, one that comes while the daemon starts would end it.
func hangups() <-chan os.Signal {
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	return hup
}

// reloadOnSignal reloads on SIGHUP, until ctx ends. However many signals come during
// a reload, one more follows it.
func (p *process) reloadOnSignal(ctx context.Context, hup <-chan os.Signal) {
	for {
		select {
		case <-hup:
			_, _ = p.Reload(ctx) // it is in the log
		case <-ctx.Done():
			return
		}
	}
}

// Reload reads the configuration file again and runs what it says: the plan is what
// that changed. On an error, which is of type config.Problems if it is the file's,
// nothing has changed. Both are in the log.
func (p *process) Reload(ctx context.Context) (api.Plan, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ready.Load() {
		p.notify(systemd.Reloading())
	}
	plan, err := p.reload(ctx)
	status := fmt.Sprintf("reloaded: %v", &plan)
	if err != nil {
		status = fmt.Sprintf("the configuration was not reloaded: %v", err)
	}
	if line := p.report.line(func(r *report) { r.reload = status }); p.ready.Load() {
		p.notify(systemd.Ready, line)
	}
	return plan, err
}

// errStarting is for who asks too early.
var errStarting = errors.New("the daemon is starting: try again")

func (p *process) reload(ctx context.Context) (api.Plan, error) {
	if p.sandbox == nil {
		return api.Plan{}, errStarting
	}
	cfg, err := load(p.flags, config.Load)
	if err == nil {
		err = p.sandbox.Allows(cfg)
	}
	if err == nil {
		if problems := hindrances(cfg, p.cfg); len(problems) > 0 {
			err = problems
		}
	}
	if err != nil {
		p.refuse(err)
		return api.Plan{}, err
	}
	plan, err := p.Engine.Reload(ctx, cfg)
	if err != nil {
		return plan, err
	}
	p.settle(&plan, cfg)
	return plan, nil
}

// settle takes in what the file says of other things than tunnels. What takes effect
// only after a restart is told with every reload until then, or until the file says
// what runs again.
func (p *process) settle(plan *api.Plan, cfg *config.Config) {
	runs := *p.cfg
	runs.Tunnels, runs.Gateway = cfg.Tunnels, cfg.Gateway
	for _, table := range p.cfg.Sections(cfg) {
		switch {
		case table == "gateway":
			plan.Settings = append(plan.Settings, table)
		case table == "log" && cfg.Log.Format == p.cfg.Log.Format && p.log.SetLevel(cfg.Log.Level) == nil:
			runs.Log = cfg.Log
			plan.Settings = append(plan.Settings, table)
		default:
			plan.Restart = append(plan.Restart, table)
		}
	}
	p.cfg = &runs
	if len(plan.Restart) > 0 {
		p.log.Warn("some of the configuration takes effect after a restart", zap.Strings("tables", plan.Restart))
	}
}

// refuse says what is wrong with a file.
func (p *process) refuse(err error) {
	var problems config.Problems
	if !errors.As(err, &problems) {
		p.log.Error("reload: nothing was changed", zap.Error(err))
	}
	for _, problem := range problems {
		p.log.Error("reload: nothing was changed: " + problem.String())
	}
	p.ReloadFailed(err)
}
