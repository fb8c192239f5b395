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
	"sixfour/internal/broker"
	"sixfour/internal/config"
	"sixfour/internal/config/problem"
	"sixfour/internal/configfile"
	"sixfour/internal/engine"
	"sixfour/internal/grants"
	"sixfour/internal/logging"
	"sixfour/internal/mapserver"
	"sixfour/internal/privilege"
	"sixfour/internal/systemd"
)

// process is the running daemon, as signals and the control socket see it.
type process struct {
	*engine.Engine
	flags   flags
	log     *logging.Log
	manager systemd.Manager
	user    privilege.User
	sandbox *privilege.Sandbox
	grants  *grants.Set
	servers

	watchdog  time.Duration // how often the service manager expects a notification; 0: never
	lastBeat  time.Time     // when it got the last one; only the engine's control loop uses it
	ready     atomic.Bool   // the manager was notified of it
	reloading atomic.Bool   // a reload runs
	report    report

	mu  sync.Mutex     // held during a reload
	cfg *config.Config // the current configuration
}

// servers are what runs besides the tunnels. Each is nil if there is none.
type servers struct {
	broker    *broker.Broker
	mapServer *mapserver.Service
}

// notify sends states to systemd; without systemd it does nothing.
func (p *process) notify(states ...string) {
	if err := p.manager.Notify(states...); err != nil {
		p.log.Warn(err.Error())
	}
}

// notifyHangup returns a channel that receives SIGHUPs from now on, and holds one until it is
// read. Otherwise a SIGHUP during the start would end the daemon.
func notifyHangup() <-chan os.Signal {
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	return hup
}

// reloadOnSignal reloads on SIGHUP, until ctx ends. Any number of signals during a
// reload cause one more reload.
func (p *process) reloadOnSignal(ctx context.Context, hup <-chan os.Signal) {
	for {
		select {
		case <-hup:
			_, _ = p.Reload(ctx) // Reload has logged the error
		case <-ctx.Done():
			return
		}
	}
}

// Reload reads the configuration file again and applies it. It returns the plan with the
// changes. On an error, which is of type config.Problems if the file is wrong, nothing
// has changed. Reload logs both.
func (p *process) Reload(ctx context.Context) (api.Plan, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ready.Load() {
		p.notify(systemd.Reloading())
	}
	p.reloading.Store(true)
	plan, err := p.reload(ctx)
	p.reloading.Store(false)
	status := fmt.Sprintf("reloaded: %v", &plan)
	if err != nil {
		status = fmt.Sprintf("the configuration was not reloaded: %v", err)
	}
	if line := p.report.line(func(r *report) { r.reload = status }); p.ready.Load() {
		p.notify(systemd.Ready, line)
	}
	return plan, err
}

// errStarting is the error for a request before the daemon is ready.
var errStarting = errors.New("the daemon is starting: try again")

func (p *process) reload(ctx context.Context) (api.Plan, error) {
	if p.sandbox == nil {
		return api.Plan{}, errStarting
	}
	cfg, err := load(p.flags, configfile.Load)
	if err == nil {
		err = p.sandbox.Allows(cfg)
	}
	if err == nil {
		if problems := hostProblems(cfg, p.cfg); len(problems) > 0 {
			err = problems
		}
	}
	if err != nil {
		p.logFailure(err)
		return api.Plan{}, err
	}
	p.broker.Install(cfg)
	a := p.grants.Apply(cfg)
	plan, err := p.Engine.Reload(ctx, a.Config)
	a.Done(err, true)
	if err != nil {
		return plan, err
	}
	p.applySettings(&plan, cfg)
	return plan, nil
}

// applySettings applies the parts of the file other than tunnels. Every reload reports what
// takes effect only after a restart, until the restart or until the file has the current
// values again.
func (p *process) applySettings(plan *api.Plan, cfg *config.Config) {
	running := *p.cfg
	running.Tunnels, running.Gateway = cfg.Tunnels, cfg.Gateway
	for _, table := range p.cfg.Sections(cfg) {
		switch {
		case table == "gateway":
			plan.Settings = append(plan.Settings, table)
		case table == "broker" && cfg.Broker.Equal(&p.cfg.Broker): // only its place in the file is another one
			running.Broker = cfg.Broker
		case table == "broker" && !p.broker.NeedsRestart(&cfg.Broker):
			p.broker.Reload(&cfg.Broker)
			running.Broker = cfg.Broker
			plan.Settings = append(plan.Settings, table)
		case table == "lisp" && cfg.LISP.Equal(&p.cfg.LISP):
			running.LISP = cfg.LISP
		case table == "lisp" && p.reloadMapServer(&cfg.LISP):
			running.LISP = cfg.LISP
			plan.Settings = append(plan.Settings, table)
		case table == "log" && cfg.Log.Format == p.cfg.Log.Format && p.log.SetLevel(cfg.Log.Level) == nil:
			running.Log = cfg.Log
			plan.Settings = append(plan.Settings, table)
		default:
			plan.Restart = append(plan.Restart, table)
		}
	}
	p.cfg = &running
	if len(plan.Restart) > 0 {
		p.log.Warn("some of the configuration takes effect after a restart", zap.Strings("tables", plan.Restart))
	}
}

// logFailure logs what is wrong with a file.
func (p *process) logFailure(err error) {
	var problems problem.List
	if !errors.As(err, &problems) {
		p.log.Error("reload failed, nothing was changed", zap.Error(err))
	}
	for _, problem := range problems {
		p.log.Error("reload failed, nothing was changed: " + problem.String())
	}
	p.ReloadFailed(err)
}
