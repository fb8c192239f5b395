package logging

import (
	"bytes"
	"encoding/binary"
	"errors"
	"maps"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
)

// listen opens the journal's end of a socket.
func listen(t *testing.T, path string) *net.UnixConn {
	t.Helper()
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// receive reads an entry in the way that the journal does.
func receive(t *testing.T, c *net.UnixConn) map[string]string {
	t.Helper()
	b := make([]byte, 1<<20)
	_ = c.SetReadDeadline(time.Now().Add(patience)) // fails only if it is closed
	n, err := c.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	e, err := parseEntry(b[:n])
	if err != nil {
		t.Fatalf("%v in %q", err, b[:n])
	}
	return e
}

func parseEntry(b []byte) (map[string]string, error) {
	e := make(map[string]string)
	for len(b) > 0 {
		line, rest, ok := bytes.Cut(b, []byte("\n"))
		if !ok {
			return nil, errors.New("no newline")
		}
		name, value, ok := strings.Cut(string(line), "=")
		if !ok {
			if len(rest) < 8 {
				return nil, errors.New("no length")
			}
			n := binary.LittleEndian.Uint64(rest)
			if uint64(len(rest)) < 8+n+1 || rest[8+n] != '\n' {
				return nil, errors.New("wrong length")
			}
			value, rest = string(rest[8:8+n]), rest[8+n+1:]
		}
		if strings.Trim(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_") != "" || len(name) > 64 || name[0] < 'A' {
			return nil, errors.New("field " + name)
		}
		e[name] = value
		b = rest
	}
	return e, nil
}

func TestJournal(t *testing.T) {
	path := filepath.Join(t.TempDir(), "socket")
	c := listen(t, path)
	var buf bytes.Buffer
	log, err := newLog(&buf, "debug", "journal", path)
	if err != nil {
		t.Fatal(err)
	}
	six0 := log.With(zap.String("tunnel", "six0"))
	six0.Named("in").Warn("dropped", zap.String("reason", "martian"), zap.Int("packets", 3))
	six0.Debug("wait", zap.Duration("for", 1500*time.Millisecond), zap.Time("at", time.Unix(1, 0).UTC()), zap.Error(errors.New("no route")))
	log.Info("two\nlines", zap.String("odd näme=", "a=b\nc\x00"), zap.Strings("all", []string{"a", "<b>"}), zap.String(strings.Repeat("x", 100), "long name"))
	log.Last(errors.New("the end"))
	for _, want := range []map[string]string{
		{"MESSAGE": `in dropped {"tunnel": "six0", "reason": "martian", "packets": 3}`, "PRIORITY": "4", "SYSLOG_IDENTIFIER": "sixfourd",
			"SIXFOUR_MESSAGE": "dropped", "SIXFOUR_LOGGER": "in", "SIXFOUR_TUNNEL": "six0", "SIXFOUR_REASON": "martian", "SIXFOUR_PACKETS": "3"},
		{"MESSAGE": `wait {"tunnel": "six0", "for": "1.5s", "at": "1970-01-01T00:00:01Z", "error": "no route"}`, "PRIORITY": "7", "SYSLOG_IDENTIFIER": "sixfourd",
			"SIXFOUR_MESSAGE": "wait", "SIXFOUR_TUNNEL": "six0", "SIXFOUR_FOR": "1.5s", "SIXFOUR_AT": "1970-01-01T00:00:01Z", "SIXFOUR_ERROR": "no route"},
		{"MESSAGE": "two; lines {\"odd näme=\": \"a=b\\nc\\u0000\", \"all\": [\"a\", \"<b>\"], \"" + strings.Repeat("x", 100) + "\": \"long name\"}", "PRIORITY": "6", "SYSLOG_IDENTIFIER": "sixfourd",
			"SIXFOUR_MESSAGE": "two\nlines", "SIXFOUR_ODD_N_ME_": "a=b\nc\x00", "SIXFOUR_ALL": `["a","<b>"]`, "SIXFOUR_" + strings.Repeat("X", 56): "long name"},
		{"MESSAGE": "the end", "PRIORITY": "3", "SYSLOG_IDENTIFIER": "sixfourd", "SIXFOUR_MESSAGE": "the end"},
	} {
		if got := receive(t, c); !maps.Equal(got, want) {
			t.Errorf("got  %q\nwant %q", got, want)
		}
	}
	log.Close()
	if buf.Len() > 0 {
		t.Errorf("on standard error: %s", buf.String())
	}
}

// journalLog returns a log to a substitute for the journal, at a path, and what it
// writes to standard error instead, which may be read after the log is closed.
func journalLog(t *testing.T) (log *Log, c *net.UnixConn, stderr *bytes.Buffer, path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "socket")
	c = listen(t, path)
	stderr = new(bytes.Buffer)
	log, err := newLog(stderr, "info", "journal", path)
	if err != nil {
		t.Fatal(err)
	}
	return log, c, stderr, path
}

// TestJournalLargeEntry: an entry of any size fits into a datagram.
func TestJournalLargeEntry(t *testing.T) {
	log, c, buf, _ := journalLog(t)
	large := strings.Repeat("ä\n", 1<<20)
	var fields []zap.Field
	for _, name := range strings.Split("abcdefghij", "") {
		fields = append(fields, zap.String(name, large))
	}
	log.Info(large, fields...)
	e := receive(t, c)
	log.Close()
	if n := len(e["SIXFOUR_A"]); n < maxValue-4 || n > maxValue+4 || !strings.HasSuffix(e["SIXFOUR_A"], "…") || buf.Len() > 0 {
		t.Errorf("a value of %d bytes, %d on standard error", n, buf.Len())
	}
}

// TestJournalRestarts: without the journal, lines go to standard error, and later to the
// journal again.
func TestJournalRestarts(t *testing.T) {
	log, c, buf, path := journalLog(t)
	log.Info("one")
	receive(t, c)
	c.Close()
	if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	log.With(zap.String("tunnel", "six0")).Warn("two")
	c = listen(t, path)
	log.Info("three")
	if got := receive(t, c); got["MESSAGE"] != "three" {
		t.Errorf("%q", got)
	}
	log.Close()
	if buf.String() != "<4> two {\"tunnel\": \"six0\"}\n" {
		t.Errorf("on standard error: %q", buf.String())
	}
}

// TestJournalIsBusy: a busy journal blocks nothing, and later gets the number of lost
// entries.
func TestJournalIsBusy(t *testing.T) {
	log, c, buf, _ := journalLog(t)
	const n = 20_000
	for range n {
		log.bare.Info("flood")
	}
	lost := int(log.Lost())
	if lost == 0 || lost == n {
		t.Fatalf("%d of %d entries lost", lost, n)
	}
	for range n - lost {
		receive(t, c)
	}
	log.Info("room again")
	if got := receive(t, c); got["MESSAGE"] != "room again" {
		t.Errorf("%q", got)
	}
	if got := receive(t, c); got["SIXFOUR_MESSAGE"] != "log lines were lost, because they could not be written in time" || got["PRIORITY"] != "4" {
		t.Errorf("%q", got)
	}
	log.Close()
	if buf.Len() > 0 {
		t.Errorf("on standard error: %s", buf.String())
	}
}
