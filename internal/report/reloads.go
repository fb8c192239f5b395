package report

import (
	"sync"
	"time"

	"sixfour/internal/api"
	"sixfour/internal/events"
	"sixfour/internal/text"
)

// maxWhy limits the stored reason of a failed reload, in bytes: a file may have
// thousands of errors, and every event is stored for a while.
const maxWhy = 2 << 10

// Reloads reports on reloads of the configuration. Any goroutine may call its methods.
type Reloads struct {
	Events *events.Log

	mu   sync.Mutex
	past api.Reloads
}

// Failed records a configuration that could not be used.
func (r *Reloads) Failed(err error) {
	why := text.Cut(err.Error(), maxWhy)
	r.add(why, "failed: "+why)
}

// Succeeded records a reload that succeeded.
func (r *Reloads) Succeeded(p *api.Plan) { r.add("", p.String()) }

func (r *Reloads) add(why, event string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if why == "" {
		r.past.Succeeded++
	} else {
		r.past.Failed++
	}
	r.past.Last, r.past.Error = time.Now(), why
	r.Events.Add(api.Event{At: r.past.Last, Kind: api.EventReload, Text: event})
}

// Status returns what is recorded.
func (r *Reloads) Status() api.Reloads {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.past
}
