package logging

import (
	"bytes"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

const (
	// queued is how many lines can wait to be written.
	queued = 1024
	// closeTimeout is how long the end of the daemon waits for these lines.
	closeTimeout = time.Second
)

// queue writes lines on a goroutine of its own, because a pipe that is not read, or a
// disk that hangs, must not block the goroutines that carry packets. A line that has no
// room, or that cannot be written, is lost and counted. It is a zapcore.WriteSyncer.
type queue struct {
	w        io.Writer
	lines    chan []byte
	lost     *atomic.Uint64
	reported uint64 // lost lines that were reported
	// loss returns the line that reports how many lines were lost.
	loss    func(n uint64) []byte
	partial bool // the last line was written in part

	mu     sync.RWMutex // write-locked to close lines
	closed bool
	done   chan struct{}
}

func newQueue(w io.Writer, lost *atomic.Uint64, loss func(uint64) []byte) *queue {
	q := &queue{w: w, lines: make(chan []byte, queued), lost: lost, loss: loss, done: make(chan struct{})}
	go q.run()
	return q
}

// Write copies a line and never blocks. It returns no error, because the caller could
// not report it.
func (q *queue) Write(line []byte) (int, error) {
	q.mu.RLock()
	defer q.mu.RUnlock()
	if q.closed {
		q.lost.Add(1)
		return len(line), nil
	}
	select {
	case q.lines <- bytes.Clone(line):
	default:
		q.lost.Add(1)
	}
	return len(line), nil
}

// Sync does nothing: close waits for the lines.
func (q *queue) Sync() error { return nil }

func (q *queue) run() {
	defer close(q.done)
	for line := range q.lines {
		if q.put(line) {
			q.reportLoss()
		}
	}
}

// put writes a line, and reports whether it succeeded.
func (q *queue) put(line []byte) bool {
	if q.partial {
		line = append([]byte("\n"), line...)
	}
	n, err := q.w.Write(line)
	if err == nil {
		q.partial = false
		return true
	}
	q.partial = q.partial || n > 0
	q.lost.Add(1)
	return false
}

// reportLoss reports, once a line can be written again, how many were lost.
func (q *queue) reportLoss() {
	if n := q.lost.Load(); n > q.reported {
		if _, err := q.w.Write(q.loss(n - q.reported)); err == nil {
			q.reported = n
		}
	}
}

// close waits until all queued lines are written, but not for long.
func (q *queue) close() {
	q.mu.Lock()
	if !q.closed {
		q.closed = true
		close(q.lines)
	}
	q.mu.Unlock()
	select {
	case <-q.done:
	case <-time.After(closeTimeout):
	}
}

// lossEntry returns the entry that reports lost lines.
func lossEntry(n uint64) (zapcore.Entry, []zapcore.Field) {
	return zapcore.Entry{Level: zap.WarnLevel, Time: time.Now(), Message: "log lines were lost, because they could not be written in time"}, []zapcore.Field{zap.Uint64("lines", n)}
}

func lossLine(enc zapcore.Encoder, n uint64) []byte {
	entry, fields := lossEntry(n)
	b, err := enc.EncodeEntry(entry, fields)
	if err != nil {
		return nil
	}
	defer b.Free()
	return bytes.Clone(b.Bytes())
}
