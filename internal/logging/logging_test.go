package logging

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

// nowhere is the path of a journal that does not exist.
const nowhere = "no/such/socket"

// patience is how long a test waits for an expected event.
const patience = 20 * time.Second

func line(t *testing.T, level, format string) string {
	t.Helper()
	var buf bytes.Buffer
	log, err := newLog(&buf, level, format, nowhere)
	if err != nil {
		t.Fatal(err)
	}
	log.Debug("hidden")
	log.Named("in").Warn("dropped", zap.String("reason", "martian"))
	log.Close()
	return buf.String()
}

func TestFormats(t *testing.T) {
	if got := line(t, "info", "console"); !regexp.MustCompile(`^\d\d:\d\d:\d\d\.\d{3} WARN in dropped \{"reason": "martian"\}\n$`).MatchString(got) {
		t.Errorf("console: %q", got)
	}
	if got := line(t, "info", "journal"); got != "<4> in dropped {\"reason\": \"martian\"}\n" {
		t.Errorf("journal: %q", got)
	}
	var entry map[string]string
	if got := line(t, "warn", "json"); json.Unmarshal([]byte(got), &entry) != nil || entry["msg"] != "dropped" || entry["reason"] != "martian" || entry["level"] != "warn" {
		t.Errorf("json: %q", got)
	}
	if got := line(t, "error", "auto"); got != "" {
		t.Errorf("level error: %q", got)
	}
}

func TestInvalidOptions(t *testing.T) {
	for _, c := range [][2]string{{"loud", "auto"}, {"", "auto"}, {"panic", "auto"}, {"info", "xml"}} {
		if _, err := New(new(bytes.Buffer), c[0], c[1]); err == nil {
			t.Errorf("level %q, format %q are taken", c[0], c[1])
		}
	}
}

// TestAutoFindsTheJournal: device and inode of standard error tell whether it is the
// journal.
func TestAutoFindsTheJournal(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "stderr"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	for stream, want := range map[string]bool{
		"":                                     false,
		"8:1":                                  false,
		fmt.Sprintf("%d", st.Dev):              false,
		fmt.Sprintf("%d:%d", st.Dev, st.Ino):   true,
		fmt.Sprintf("%d:%d", st.Dev, 1+st.Ino): false,
	} {
		t.Setenv("JOURNAL_STREAM", stream)
		if got := toJournal(f); got != want {
			t.Errorf("JOURNAL_STREAM=%s: %v", stream, got)
		}
	}
}

// TestSetLevel: the level also changes for loggers that were made earlier.
func TestSetLevel(t *testing.T) {
	var buf bytes.Buffer
	log, err := newLog(&buf, "info", "json", nowhere)
	if err != nil {
		t.Fatal(err)
	}
	child := log.Named("in").With(zap.String("tunnel", "six0"))
	child.Debug("one")
	if err := log.SetLevel("debug"); err != nil {
		t.Fatal(err)
	}
	child.Debug("two")
	if err := log.SetLevel("error"); err != nil {
		t.Fatal(err)
	}
	child.Warn("three")
	if err := log.SetLevel("loud"); err == nil {
		t.Error("level loud is taken")
	}
	child.Warn("four")
	child.Error("five")
	log.Close()
	var got []string
	for l := range strings.Lines(buf.String()) {
		var e struct{ Msg string }
		if err := json.Unmarshal([]byte(l), &e); err != nil {
			t.Fatal(err)
		}
		got = append(got, e.Msg)
	}
	if strings.Join(got, " ") != "two five" {
		t.Errorf("%q", got)
	}
}

// TestConcurrency: goroutines may log, change the level and close at the same time.
func TestConcurrency(t *testing.T) {
	var buf bytes.Buffer
	log, err := newLog(&buf, "info", "console", nowhere)
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for j := range 500 {
				log.With(zap.Int("i", i)).Info(fmt.Sprint("message ", j%7))
				if j == 250 && i < 2 {
					_ = log.SetLevel([]string{"error", "info"}[i])
				}
			}
		})
	}
	all.Wait()
	log.Last(errors.New("the end"))
	log.Close()
	log.Close()
	log.Error("too late")
	if !strings.Contains(buf.String(), "ERROR the end") || strings.Contains(buf.String(), "too late") {
		t.Error(buf.String())
	}
}

// TestHostileText: an entry with any text is one line, without characters that have an
// effect on a terminal. JSON keeps the text.
func TestHostileText(t *testing.T) {
	const evil = "a\x1b[2J\nb\x7f\u009b31m\u202ec\xff"
	for _, format := range []string{"console", "journal", "json"} {
		var buf bytes.Buffer
		log, err := newLog(&buf, "info", format, nowhere)
		if err != nil {
			t.Fatal(err)
		}
		log.With(zap.String("tunnel", evil)).Warn(evil, zap.String("from", evil))
		log.Close()
		got := strings.TrimSuffix(buf.String(), "\n")
		for _, r := range got {
			if !unicode.IsPrint(r) {
				t.Errorf("%s: %q", format, got)
				break
			}
		}
		if format != "json" {
			continue
		}
		var entry map[string]string
		if err := json.Unmarshal([]byte(got), &entry); err != nil || entry["msg"] != strings.ToValidUTF8(evil, "\uFFFD") {
			t.Errorf("%s: %v", got, err)
		}
	}
}
