package logging

import (
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"golang.org/x/time/rate"
)

const (
	// burst is how many entries with the same message about the same tunnel are logged at
	// once, and perSecond how many per second after that.
	burst     = 10
	perSecond = 1
	// reportAfter is after what time the number of suppressed entries is logged.
	reportAfter = 10 * time.Second
	// maxMessages is how many messages have a limit of their own; all others share one
	// limit.
	maxMessages = 512
)

// limitCore passes on the entries that its limiter allows.
type limitCore struct {
	zapcore.Core
	limit  *limiter
	tunnel string
}

// With records the tunnel in the fields.
func (c *limitCore) With(fields []zapcore.Field) zapcore.Core {
	return &limitCore{c.Core.With(fields), c.limit, tunnelOf(fields, c.tunnel)}
}

// Check adds the core to an entry that is logged at this level.
func (c *limitCore) Check(e zapcore.Entry, checked *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(e.Level) {
		return checked.AddCore(e, c)
	}
	return checked
}

// Write drops an entry if there are too many like it.
func (c *limitCore) Write(e zapcore.Entry, fields []zapcore.Field) error {
	if !c.limit.allow(e, tunnelOf(fields, c.tunnel)) {
		return nil
	}
	return c.Core.Write(e, fields)
}

// tunnelOf returns the tunnel in fields, or known if there is none.
func tunnelOf(fields []zapcore.Field, known string) string {
	for _, f := range fields {
		if f.Key == "tunnel" && f.Type == zapcore.StringType {
			known = f.String
		}
	}
	return known
}

// subject is a message about a tunnel, which has a limit of its own.
type subject struct{ message, tunnel string }

// bucket is the limit of one subject.
type bucket struct {
	*rate.Limiter
	suppressed uint64 // suppressed entries that were not reported yet
	level      zapcore.Level
	logger     string
}

// limiter counts entries by their subject.
type limiter struct {
	out     zapcore.Core // for its own entries
	limited atomic.Uint64

	mu      sync.Mutex
	buckets map[subject]*bucket
	timer   *time.Timer // runs while there is something to report; nil: there is nothing
	closed  bool
}

func newLimiter(out zapcore.Core) *limiter {
	return &limiter{out: out, buckets: make(map[subject]*bucket)}
}

// allow reports whether an entry may be logged. If not, it counts the entry.
func (l *limiter) allow(e zapcore.Entry, tunnel string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.bucket(subject{e.Message, tunnel}, e.Time)
	if b.AllowN(e.Time, 1) {
		return true
	}
	l.limited.Add(1)
	b.suppressed++
	b.level, b.logger = e.Level, e.LoggerName
	if l.timer == nil && !l.closed {
		l.timer = time.AfterFunc(reportAfter, l.report)
	}
	return false
}

// others is the subject that all messages share for which there is no room.
var others = subject{message: "(different messages)"}

// bucket returns the bucket of a subject.
func (l *limiter) bucket(s subject, now time.Time) *bucket {
	if b := l.buckets[s]; b != nil {
		return b
	}
	if len(l.buckets) >= maxMessages {
		l.forget(now)
	}
	if len(l.buckets) >= maxMessages {
		s = others
		if b := l.buckets[s]; b != nil {
			return b
		}
	}
	b := &bucket{Limiter: rate.NewLimiter(perSecond, burst)}
	l.buckets[s] = b
	return b
}

// forget removes buckets that are the same as new ones.
func (l *limiter) forget(now time.Time) {
	for s, b := range l.buckets {
		if b.suppressed == 0 && b.TokensAt(now) >= burst {
			delete(l.buckets, s)
		}
	}
}

// report logs how many entries were suppressed.
func (l *limiter) report() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.timer = nil
	for s, b := range l.buckets {
		if b.suppressed == 0 {
			continue
		}
		fields := []zapcore.Field{zap.Uint64("lines", b.suppressed), zap.String("like", s.message)}
		if s.tunnel != "" {
			fields = append(fields, zap.String("tunnel", s.tunnel))
		}
		b.suppressed = 0
		e := zapcore.Entry{Level: b.level, Time: time.Now(), LoggerName: b.logger, Message: "similar lines were not logged"}
		if l.out.Enabled(e.Level) { // the level may have changed since
			_ = l.out.Write(e, fields) // neither core fails
		}
	}
}

// close logs what was not reported yet.
func (l *limiter) close() {
	l.mu.Lock()
	l.closed = true
	if l.timer != nil {
		l.timer.Stop()
	}
	l.mu.Unlock()
	l.report()
}
