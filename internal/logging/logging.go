// Package logging provides the daemon's logger: text for people, JSON for programs,
// fields and priorities for the journal. Logging never blocks on a slow reader, and a
// message that is too frequent is logged only now and then.
package logging

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync/atomic"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"golang.org/x/sys/unix"
)

// Log is the daemon's logger. It is safe for concurrent use.
type Log struct {
	*zap.Logger
	level   zap.AtomicLevel
	bare    *zap.Logger // without the rate limit
	limit   *limiter
	queue   *queue
	journal *journal // nil: there is none
	lost    *atomic.Uint64
}

// New returns a logger that writes to w, usually standard error. Level is debug, info,
// warn or error; format is auto, console, json or journal. auto means journal if w is
// connected to the journal, and console otherwise. The format journal uses the journal's
// socket, which is opened at once, or, if there is no socket, writes lines with a
// priority to w.
func New(w io.Writer, level, format string) (*Log, error) {
	return newLog(w, level, format, journalSocket)
}

// newLog is New with the path of the journal's socket.
func newLog(w io.Writer, level, format, socket string) (*Log, error) {
	l := &Log{level: zap.NewAtomicLevel(), lost: new(atomic.Uint64)}
	if err := l.SetLevel(level); err != nil {
		return nil, err
	}
	if format == "auto" {
		format = "console"
		if toJournal(w) {
			format = "journal"
		}
	}
	enc, err := encoder(format)
	if err != nil {
		return nil, err
	}
	l.queue = newQueue(w, l.lost, func(n uint64) []byte { return lossLine(enc.Clone(), n) })
	core := zapcore.NewCore(enc, l.queue, l.level)
	if format == "journal" {
		if j, err := openJournal(socket); err == nil {
			l.journal, core = j, newJournalCore(j, l.level, core, l.lost)
		}
	}
	l.bare = zap.New(core)
	l.limit = newLimiter(core)
	l.Logger = zap.New(&limitCore{Core: core, limit: l.limit})
	return l, nil
}

// SetLevel changes the lowest level that is logged: debug, info, warn or error.
func (l *Log) SetLevel(level string) error {
	switch level {
	case "debug", "info", "warn", "error":
	default:
		return fmt.Errorf("log level %q: use debug, info, warn or error", level)
	}
	return l.level.UnmarshalText([]byte(level))
}

// Last logs the error that ends the daemon, without the rate limit.
func (l *Log) Last(err error) { l.bare.Error(err.Error()) }

// Lost returns how many lines could not be written: the disk was full, the reader had
// ended, or it read too slowly.
func (l *Log) Lost() uint64 { return l.lost.Load() }

// Limited returns how many lines were suppressed because there were too many like them.
func (l *Log) Limited() uint64 { return l.limit.limited.Load() }

// Close logs the pending reports, and waits a moment until everything is written.
func (l *Log) Close() {
	l.limit.close()
	l.queue.close()
	if l.journal != nil {
		l.journal.close()
	}
}

func encoder(format string) (zapcore.Encoder, error) {
	c := zapcore.EncoderConfig{
		MessageKey: "msg", LevelKey: "level", TimeKey: "time", NameKey: "logger",
		EncodeLevel: zapcore.LowercaseLevelEncoder, EncodeTime: zapcore.RFC3339NanoTimeEncoder,
		EncodeDuration: zapcore.StringDurationEncoder, EncodeName: zapcore.FullNameEncoder,
		ConsoleSeparator: " ",
	}
	switch format {
	case "json":
		return cleanEncoder{zapcore.NewJSONEncoder(c), true}, nil
	case "journal": // sd-daemon(3): "<priority>" comes first; the journal adds the time
		c.TimeKey = ""
		c.EncodeLevel = func(l zapcore.Level, enc zapcore.PrimitiveArrayEncoder) {
			enc.AppendString("<" + priority(l) + ">")
		}
		return cleanEncoder{zapcore.NewConsoleEncoder(c), false}, nil
	case "console":
		c.EncodeTime = zapcore.TimeEncoderOfLayout("15:04:05.000")
		c.EncodeLevel = zapcore.CapitalLevelEncoder
		return cleanEncoder{zapcore.NewConsoleEncoder(c), false}, nil
	}
	return nil, fmt.Errorf("log format %q: use auto, console, json or journal", format)
}

// priority returns a level as in syslog(3).
func priority(l zapcore.Level) string {
	switch l {
	case zapcore.DebugLevel:
		return "7"
	case zapcore.InfoLevel:
		return "6"
	case zapcore.WarnLevel:
		return "4"
	}
	return "3" // err
}

// toJournal reports whether w is the journal's socket, which JOURNAL_STREAM names for
// standard error (systemd.exec(5)).
func toJournal(w io.Writer) bool {
	f, ok := w.(*os.File)
	dev, ino, set := strings.Cut(os.Getenv("JOURNAL_STREAM"), ":")
	if !ok || !set {
		return false
	}
	var st unix.Stat_t
	if unix.Fstat(int(f.Fd()), &st) != nil {
		return false
	}
	return dev == strconv.FormatUint(st.Dev, 10) && ino == strconv.FormatUint(st.Ino, 10)
}
