package report

import (
	"go.uber.org/zap"

	"sixfour/internal/api"
)

// inKernel says whether the packets of a path are carried in the kernel, and why not, or why
// only some of them.
type inKernel struct {
	is  bool
	why string
}

// show changes a state to that.
func (k *inKernel) show(s *api.State) {
	switch {
	case !s.Phase.Carries():
	case k.is && k.why == "":
		s.IO, s.IOWanted, s.IOWhy = "kernel", "", ""
	case k.is:
		s.IO, s.IOWanted, s.IOWhy = "kernel", "kernel", k.why
	case k.why != "":
		s.IOWanted, s.IOWhy = "kernel", k.why
	}
}

// InKernel sets whether the path's packets are carried in the kernel, and why not, or why only
// some of them are. A reason is logged, as a warning if all must be; one that several peers
// share is logged once. Any goroutine may call it.
func (p *Path) InKernel(is bool, why string, must bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	before := p.kernel
	p.kernel = inKernel{is, why}
	if why == "" || why == before.why {
		return
	}
	level := zap.InfoLevel
	if must {
		level = zap.WarnLevel
	}
	if p.t.hub && !p.t.isNew(why) {
		level = zap.DebugLevel
	}
	text := "packets are not carried in the kernel"
	if is {
		text = "only some packets are carried in the kernel"
	}
	p.logAt(level, text, zap.String("because", why))
}

// isNew reports whether the reason why packets are not carried in the kernel is another one
// than at the last call.
func (t *Tunnel) isNew(why string) bool {
	before := t.noKernel.Swap(&why)
	return before == nil || *before != why
}
