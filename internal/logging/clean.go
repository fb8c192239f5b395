package logging

import (
	"strings"

	"go.uber.org/zap/buffer"
	"go.uber.org/zap/zapcore"

	"sixfour/internal/text"
)

// cleanEncoder writes each entry on one line, without characters that have an effect on
// a terminal: messages contain names and errors of other hosts and programs.
type cleanEncoder struct {
	zapcore.Encoder
	json bool
}

// Clone implements zapcore.Encoder.
func (e cleanEncoder) Clone() zapcore.Encoder { return cleanEncoder{e.Encoder.Clone(), e.json} }

// EncodeEntry implements zapcore.Encoder.
func (e cleanEncoder) EncodeEntry(entry zapcore.Entry, fields []zapcore.Field) (*buffer.Buffer, error) {
	b, err := e.Encoder.EncodeEntry(entry, fields)
	if err != nil {
		return nil, err
	}
	line := strings.TrimSuffix(b.String(), "\n")
	b.Reset()
	if e.json {
		_, err = text.NewJSONWriter(b).Write([]byte(line))
	} else {
		b.AppendString(oneLine(line))
	}
	b.AppendByte('\n')
	return b, err
}

// oneLine returns a text, such as an error of several lines, as one line.
func oneLine(s string) string { return text.Clean(strings.ReplaceAll(s, "\n", "; ")) }
