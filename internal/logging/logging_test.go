package logging_test

import (
	"bytes"
	"encoding/json"
	"regexp"
	"testing"

	"go.uber.org/zap"

	"sixfour/internal/logging"
)

func line(t *testing.T, level, format string) string {
	t.Helper()
	var buf bytes.Buffer
	log, err := logging.New(&buf, level, format)
	if err != nil {
		t.Fatal(err)
	}
	log.Debug("hidden")
	log.Named("in").Warn("dropped", zap.String("reason", "martian"))
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

func TestRefuses(t *testing.T) {
	for _, c := range [][2]string{{"loud", "auto"}, {"info", "xml"}} {
		if _, err := logging.New(new(bytes.Buffer), c[0], c[1]); err == nil {
			t.Errorf("level %q, format %q are taken", c[0], c[1])
		}
	}
}
