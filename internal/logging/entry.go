package logging

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"go.uber.org/zap/zapcore"
	"golang.org/x/sys/unix"

	"sixfour/internal/text"
)

const (
	identifier  = "sixfourd"
	fieldPrefix = "SIXFOUR_"
	// maxValue and maxEntry bound, in bytes, the content of one datagram: Linux refuses
	// one that is larger than the socket's buffer, 208 KiB.
	maxValue = 32 << 10
	maxEntry = 128 << 10
	maxName  = 64 // of a field, by the rules of the journal
)

// journalCore sends entries to the journal. An entry has a field for each of our fields,
// and MESSAGE is the text that the console would show.
type journalCore struct {
	zapcore.LevelEnabler
	journal *journal
	text    zapcore.Encoder
	fields  []zapcore.Field
	other   zapcore.Core // used if the journal is gone
	lost    *atomic.Uint64
	told    *atomic.Uint64 // lost entries that were reported
}

func newJournalCore(j *journal, level zapcore.LevelEnabler, other zapcore.Core, lost *atomic.Uint64) *journalCore {
	text := zapcore.NewConsoleEncoder(zapcore.EncoderConfig{
		MessageKey: "msg", NameKey: "logger", EncodeName: zapcore.FullNameEncoder,
		EncodeTime: zapcore.RFC3339NanoTimeEncoder, EncodeDuration: zapcore.StringDurationEncoder, ConsoleSeparator: " ",
	})
	return &journalCore{LevelEnabler: level, journal: j, text: text, other: other, lost: lost, told: new(atomic.Uint64)}
}

// With adds fields to every entry.
func (c *journalCore) With(fields []zapcore.Field) zapcore.Core {
	clone := *c
	clone.fields = slices.Concat(c.fields, fields)
	clone.other = c.other.With(fields)
	return &clone
}

// Check adds the core to an entry that is logged at this level.
func (c *journalCore) Check(e zapcore.Entry, checked *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(e.Level) {
		return checked.AddCore(e, c)
	}
	return checked
}

// Write sends an entry to the journal or, if there is no journal any more, a line to the
// original standard error. An entry for which the journal has no room is lost.
func (c *journalCore) Write(e zapcore.Entry, fields []zapcore.Field) error {
	err := c.journal.send(c.entry(e, slices.Concat(c.fields, fields)))
	switch {
	case errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.ENOBUFS):
		c.lost.Add(1)
		return nil
	case err != nil:
		return c.other.Write(e, fields)
	}
	if n, told := c.lost.Load(), c.told.Load(); n > told && c.told.CompareAndSwap(told, n) {
		if c.journal.send(c.entry(lossEntry(n-told))) != nil {
			c.told.Store(told)
		}
	}
	return nil
}

// Sync does nothing.
func (c *journalCore) Sync() error { return nil }

// entry returns an entry in the format of the journal's socket.
func (c *journalCore) entry(e zapcore.Entry, fields []zapcore.Field) []byte {
	text := e.Message
	if b, err := c.text.EncodeEntry(e, fields); err == nil {
		text = strings.TrimSuffix(b.String(), "\n")
		b.Free()
	}
	b := appendField(nil, "MESSAGE", oneLine(text)) // journalctl does not show messages with unprintable characters
	b = appendField(b, "PRIORITY", priority(e.Level))
	b = appendField(b, "SYSLOG_IDENTIFIER", identifier)
	b = appendField(b, fieldPrefix+"MESSAGE", e.Message)
	if e.LoggerName != "" {
		b = appendField(b, fieldPrefix+"LOGGER", e.LoggerName)
	}
	values := zapcore.NewMapObjectEncoder()
	for _, f := range fields {
		f.AddTo(values)
	}
	for _, name := range slices.Sorted(maps.Keys(values.Fields)) {
		if len(b) > maxEntry-maxValue-2*maxName {
			break
		}
		b = appendField(b, fieldName(name), valueText(values.Fields[name]))
	}
	return b
}

// appendField appends NAME=value and a newline. If the value contains newlines, it is
// appended with its length instead (systemd.io/JOURNAL_NATIVE_PROTOCOL).
func appendField(b []byte, name, value string) []byte {
	value = text.Cut(value, maxValue)
	b = append(b, name...)
	if !strings.Contains(value, "\n") {
		b = append(append(b, '='), value...)
		return append(b, '\n')
	}
	b = append(b, '\n')
	b = binary.LittleEndian.AppendUint64(b, uint64(len(value)))
	b = append(b, value...)
	return append(b, '\n')
}

// fieldName returns a name in the form of the journal: upper case, digits, underscores.
func fieldName(name string) string {
	upper := strings.Map(func(r rune) rune {
		if r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' {
			return r
		}
		return '_'
	}, strings.ToUpper(name))
	return (fieldPrefix + upper)[:min(maxName, len(fieldPrefix)+len(upper))]
}

// valueText returns a field's value as text. A nested value is JSON.
func valueText(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case []byte:
		return string(v)
	case time.Time:
		return v.Format(time.RFC3339Nano)
	case time.Duration:
		return v.String()
	case map[string]any, []any:
		var b bytes.Buffer
		enc := json.NewEncoder(&b)
		enc.SetEscapeHTML(false)
		if enc.Encode(v) == nil {
			return strings.TrimSuffix(b.String(), "\n")
		}
	}
	return fmt.Sprint(v)
}
