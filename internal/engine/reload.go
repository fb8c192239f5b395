package engine

import (
	"context"
	"errors"
	"time"

	"go.uber.org/zap"

	"sixfour/internal/api"
	"sixfour/internal/config"
)

// ErrEnded means that the engine no longer runs.
var ErrEnded = errors.New("the daemon is stopping")

// Reload makes the engine run another configuration, which must be valid, and returns
// what changed. After an error everything is as before, unless the error says otherwise.
// A tunnel with an unchanged configuration loses no packet, and a reload never blocks a
// goroutine that carries packets. Once started, a reload does not stop when ctx ends.
// Any goroutine may call Reload; concurrent reloads run one after the other. A call
// before Run waits until Run has started.
func (e *Engine) Reload(ctx context.Context, cfg *config.Config) (api.Plan, error) {
	r := &reload{e: e, cfg: cfg, done: make(chan struct{})}
	select {
	case e.reloads <- r:
		<-r.done
	case <-ctx.Done():
		return api.Plan{}, ctx.Err()
	case <-e.ended:
		return api.Plan{}, ErrEnded
	}
	return r.plan, r.err
}

// ReloadFailed records a configuration that could not be given to Reload, such as a file
// with errors. Any goroutine may call it.
func (e *Engine) ReloadFailed(err error) { e.about.reloads.Failed(err) }

// reload is one change of the configuration. The control loop runs it.
type reload struct {
	e     *Engine
	cfg   *config.Config
	begun time.Time
	plan  api.Plan
	err   error
	done  chan struct{}

	before, after []*tunnel
	gateway       config.Gateway // the previous one
	changes       []*revision    // of tunnels that change in place
	added         []*tunnel      // including those that replace a tunnel
	removed       []*tunnel      // including those that are replaced

	progress
}

// progress is how far a reload has come, for undo.
type progress struct {
	opened, closed []*tunnel // interfaces that were made, and interfaces that were removed
	left           bool      // leave was called
	assumed        bool      // tunnels have their new configurations
}

// run carries out the reload, and undoes it if it fails.
func (r *reload) run() {
	defer close(r.done)
	r.begun = time.Now()
	r.before = r.e.tunnels
	r.err = r.prepare()
	if r.err == nil {
		r.err = r.apply()
	}
	if r.err != nil {
		r.err = errors.Join(r.err, r.undo())
		r.e.log.Error("reload failed: the earlier configuration is still in use", zap.Error(r.err))
		r.e.ReloadFailed(r.err)
		return
	}
	r.finish()
	r.e.updates.Resume()
	r.e.about.reloads.Succeeded(&r.plan)
	r.e.log.Info("reloaded", zap.Stringer("plan", &r.plan), zap.Duration("took", time.Since(r.begun)))
}

// prepare makes the new tunnels and revisions, and changes nothing that is running.
func (r *reload) prepare() (err error) {
	r.plan = api.NewPlan()
	old := make(map[string]*tunnel, len(r.before))
	taken := make(map[int]bool)
	for _, t := range r.before {
		old[t.cfg.Name] = t
		taken[t.ID] = true
	}
	free := 0
	for i := range r.cfg.Tunnels {
		r.e.heartbeat()
		cfg := &r.cfg.Tunnels[i]
		t := old[cfg.Name]
		delete(old, cfg.Name)
		d := config.Difference{}
		if t != nil {
			d = t.cfg.Difference(cfg)
		}
		switch {
		case t == nil:
			r.plan.Added = append(r.plan.Added, cfg.Name)
		case d.None():
			r.plan.Unchanged = append(r.plan.Unchanged, cfg.Name)
			r.after = append(r.after, t)
			continue
		case t.canBecome(cfg, len(r.cfg.Tunnels)):
			r.plan.Changed = append(r.plan.Changed, api.Change{Tunnel: cfg.Name, InPlace: true, Keys: d.Keys, PeersAdded: d.PeersAdded, PeersRemoved: d.PeersRemoved, PeersChanged: d.PeersChanged})
			rev, err := t.revise(cfg)
			if err != nil {
				return err
			}
			r.changes = append(r.changes, rev)
			r.after = append(r.after, t)
			continue
		default:
			r.plan.Changed = append(r.plan.Changed, api.Change{Tunnel: cfg.Name, Keys: d.Keys, PeersAdded: d.PeersAdded, PeersRemoved: d.PeersRemoved, PeersChanged: d.PeersChanged})
			r.removed = append(r.removed, t)
		}
		for taken[free] {
			free++
		}
		taken[free] = true
		if t, err = r.e.newTunnel(free, cfg, len(r.cfg.Tunnels)); err != nil {
			return err
		}
		r.added = append(r.added, t)
		r.after = append(r.after, t)
	}
	for _, t := range r.before {
		if old[t.cfg.Name] != nil {
			r.plan.Removed = append(r.plan.Removed, t.cfg.Name)
			r.removed = append(r.removed, t)
		}
	}
	return nil
}
