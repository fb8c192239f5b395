package logging

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
)

// limited returns a logger with a limiter, and a function that returns the logged lines.
func limited(level zapcore.Level) (*zap.Logger, *limiter, func() []string) {
	core, seen := observer.New(level)
	l := newLimiter(core)
	return zap.New(&limitCore{Core: core, limit: l}), l, func() (lines []string) {
		for _, e := range seen.TakeAll() {
			m := e.ContextMap()
			line := e.Message
			for _, key := range []string{"tunnel", "like", "lines"} {
				if v, ok := m[key]; ok {
					line += fmt.Sprintf(" %s=%v", key, v)
				}
			}
			lines = append(lines, line)
		}
		return lines
	}
}

func TestLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, l, lines := limited(zap.InfoLevel)
		flood := func(log *zap.Logger, n int) {
			for range n {
				log.Warn("dropped")
				log.Debug("dropped")
			}
		}
		check := func(when string, want ...string) {
			t.Helper()
			synctest.Wait()
			if got := lines(); strings.Join(got, "\n") != strings.Join(want, "\n") {
				t.Errorf("%s: %q, want %q", when, got, want)
			}
		}
		six0 := log.With(zap.String("tunnel", "six0"))
		repeat := func(s string, n int) (all []string) {
			for range n {
				all = append(all, s)
			}
			return all
		}
		flood(six0, 47)
		check("a burst", repeat("dropped tunnel=six0", 10)...)
		flood(log.With(zap.String("tunnel", "six1")), 10)
		check("another tunnel", repeat("dropped tunnel=six1", 10)...)
		six0.Info("path MTU")
		log.Info("ready", zap.String("tunnel", "six0"))
		check("another message", "path MTU tunnel=six0", "ready tunnel=six0")
		time.Sleep(3 * time.Second)
		flood(six0, 5)
		check("3 s later", repeat("dropped tunnel=six0", 3)...)
		time.Sleep(reportAfter)
		check("then", "similar lines were not logged tunnel=six0 like=dropped lines=39")
		time.Sleep(10 * reportAfter)
		check("nothing more")
		flood(six0, 12)
		check("a burst again", repeat("dropped tunnel=six0", 10)...)
		l.close()
		check("the end", "similar lines were not logged tunnel=six0 like=dropped lines=2")
		if n := l.limited.Load(); n != 41 {
			t.Errorf("%d limited", n)
		}
	})
}

// TestManyMessages: a flood of different messages fills neither memory nor the disk.
func TestManyMessages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, l, lines := limited(zap.InfoLevel)
		for i := range 10 * maxMessages {
			log.Error(fmt.Sprint("error ", i))
		}
		if got := len(lines()); got != maxMessages+burst || len(l.buckets) > maxMessages+1 {
			t.Errorf("%d lines, %d buckets", got, len(l.buckets))
		}
		time.Sleep(reportAfter)
		synctest.Wait()
		if got := lines(); len(got) != 1 || got[0] != fmt.Sprintf("similar lines were not logged like=(different messages) lines=%d", 9*maxMessages-burst) {
			t.Errorf("%q", got)
		}
		log.Error("new")
		if got := lines(); len(got) != 1 || len(l.buckets) != 1 {
			t.Errorf("%q, %d buckets: the old ones are not forgotten", got, len(l.buckets))
		}
		l.close()
	})
}

// TestLast: the error that ends the daemon is always logged.
func TestLast(t *testing.T) {
	var buf bytes.Buffer
	log, err := newLog(&buf, "error", "console", nowhere)
	if err != nil {
		t.Fatal(err)
	}
	for range 20 {
		log.Error("no route")
	}
	log.Last(errors.New("no route"))
	log.Close()
	if got := strings.Count(buf.String(), "ERROR no route"); got != burst+1 {
		t.Errorf("%d lines:\n%s", got, buf.String())
	}
	if got := log.Limited(); got != 10 || !strings.HasSuffix(buf.String(), "{\"lines\": 10, \"like\": \"no route\"}\n") {
		t.Errorf("%d limited:\n%s", got, buf.String())
	}
}
