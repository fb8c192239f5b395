// Package logging makes the daemon's logger: text for people, JSON for
// programs, or lines with a priority for the journal.
package logging

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"golang.org/x/sys/unix"
)

// New is a logger to w, usually standard error. Level is debug, info, warn or
// error; format is auto, console, json or journal, where auto is journal if
// standard error goes there and console otherwise.
func New(w io.Writer, level, format string) (*zap.Logger, error) {
	l, err := zapcore.ParseLevel(level)
	if err != nil {
		return nil, fmt.Errorf("log level %q: use debug, info, warn or error", level)
	}
	enc, err := encoder(format)
	if err != nil {
		return nil, err
	}
	return zap.New(zapcore.NewCore(enc, zapcore.Lock(zapcore.AddSync(w)), l)), nil
}

func encoder(format string) (zapcore.Encoder, error) {
	c := zapcore.EncoderConfig{
		MessageKey: "msg", LevelKey: "level", TimeKey: "time", NameKey: "logger",
		EncodeLevel: zapcore.LowercaseLevelEncoder, EncodeTime: zapcore.RFC3339NanoTimeEncoder,
		EncodeDuration: zapcore.StringDurationEncoder, EncodeName: zapcore.FullNameEncoder,
		ConsoleSeparator: " ",
	}
	if format == "auto" {
		format = "console"
		if toJournal() {
			format = "journal"
		}
	}
	switch format {
	case "json":
		return zapcore.NewJSONEncoder(c), nil
	case "journal": // sd-daemon(3): "<priority>" in front; the journal has the time
		c.TimeKey = ""
		c.EncodeLevel = encodePriority
		return zapcore.NewConsoleEncoder(c), nil
	case "console":
		c.EncodeTime = zapcore.TimeEncoderOfLayout("15:04:05.000")
		c.EncodeLevel = zapcore.CapitalLevelEncoder
		return zapcore.NewConsoleEncoder(c), nil
	}
	return nil, fmt.Errorf("log format %q: use auto, console, json or journal", format)
}

// encodePriority writes a level as syslog's priority.
func encodePriority(l zapcore.Level, enc zapcore.PrimitiveArrayEncoder) {
	p := 3 // err
	switch l {
	case zapcore.DebugLevel:
		p = 7
	case zapcore.InfoLevel:
		p = 6
	case zapcore.WarnLevel:
		p = 4
	}
	enc.AppendString("<" + strconv.Itoa(p) + ">")
}

// toJournal reports whether standard error is the journal's socket, as
// JOURNAL_STREAM says it (systemd.exec(5)).
func toJournal() bool {
	dev, ino, ok := strings.Cut(os.Getenv("JOURNAL_STREAM"), ":")
	if !ok {
		return false
	}
	var st unix.Stat_t
	if unix.Fstat(int(os.Stderr.Fd()), &st) != nil {
		return false
	}
	return dev == strconv.FormatUint(st.Dev, 10) && ino == strconv.FormatUint(st.Ino, 10)
}
