package metrics

import (
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	dto "github.com/prometheus/client_model/go"
)

const (
	// maxSnapshots is how many sets of all metrics are in memory at the same time,
	// however slowly clients read them: with many peers each has megabytes.
	maxSnapshots = 4
	// maxAge is how long further clients get the same set while a client reads it.
	maxAge = time.Second
)

// snapshots serves /metrics. Clients that ask at about the same time share one set of
// metrics. Clients that still read an old set when there are too many newer ones are
// disconnected, so that no client has to wait for them.
type snapshots struct {
	gather func() []*dto.MetricFamily

	mu  sync.Mutex
	all []*snapshot // being read, oldest first

	gatherMu sync.Mutex // only one at a time, to bound the cost of scrapes
}

type snapshot struct {
	at       time.Time
	once     sync.Once
	families []*dto.MetricFamily
	readers  map[*http.ResponseController]bool
}

// ServeHTTP answers one scrape.
func (s *snapshots) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	rc := http.NewResponseController(w)
	snap := s.join(rc, time.Now())
	defer s.leave(snap, rc)
	promhttp.HandlerFor(prometheus.GathererFunc(func() ([]*dto.MetricFamily, error) {
		return s.read(snap), nil
	}), promhttp.HandlerOpts{EnableOpenMetrics: true}).ServeHTTP(w, r)
}

func (s *snapshots) read(snap *snapshot) []*dto.MetricFamily {
	snap.once.Do(func() {
		s.gatherMu.Lock()
		defer s.gatherMu.Unlock()
		snap.families = s.gather()
	})
	return snap.families
}

// join makes a client a reader of the newest set, or of a new one.
func (s *snapshots) join(rc *http.ResponseController, now time.Time) *snapshot {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := len(s.all); n > 0 && now.Sub(s.all[n-1].at) < maxAge {
		s.all[n-1].readers[rc] = true
		return s.all[n-1]
	}
	if len(s.all) == maxSnapshots {
		for slow := range s.all[0].readers {
			_ = slow.SetWriteDeadline(now) // fails only for a recorder in a test
		}
		s.all = s.all[1:]
	}
	snap := &snapshot{at: now, readers: map[*http.ResponseController]bool{rc: true}}
	s.all = append(s.all, snap)
	return snap
}

func (s *snapshots) leave(snap *snapshot, rc *http.ResponseController) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(snap.readers, rc)
	if len(snap.readers) > 0 {
		return
	}
	for i, other := range s.all {
		if other == snap {
			s.all = append(s.all[:i:i], s.all[i+1:]...)
			return
		}
	}
}
