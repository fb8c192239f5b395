package control

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"

	"sixfour/internal/text"
)

// errorTrailer is the HTTP trailer of a stream of bytes that ended with an error.
const errorTrailer = "Sixfour-Error"

// lines answers with JSON values, one a line, each sent at once, until do returns. The
// context of do ends when the client goes; emit fails then, and when the client does
// not read. An error before the first value is the answer, one after it the last line.
func (w *answer) lines(r *request, do func(ctx context.Context, emit func(any) error) error) error {
	w.Header().Set("Content-Type", "application/x-ndjson")
	enc := json.NewEncoder(text.NewJSONWriter(w))
	err := do(r.Context(), func(v any) error {
		if err := enc.Encode(v); err != nil {
			return err
		}
		return w.flush()
	})
	err = endOf(r.Context(), err)
	if err != nil && w.begun && !errors.Is(err, context.Canceled) {
		_ = enc.Encode(failed{err.Error()}) // a client that went away needs no answer
	}
	return err
}

// bytes answers with what do writes, until it returns. The context of do ends when the
// client goes; writing fails then, and when the client does not read. An error before
// the first byte is the answer, one after it is in the trailer.
func (w *answer) bytes(r *request, contentType string, do func(ctx context.Context, w *Bytes) error) error {
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Trailer", errorTrailer)
	err := endOf(r.Context(), do(r.Context(), &Bytes{w}))
	if err != nil && w.begun {
		w.Header().Set(errorTrailer, headerText(err.Error()))
	}
	return err
}

// endOf is the error of a stream that ended with err: if another user needed its place,
// that.
func endOf(ctx context.Context, err error) error {
	if errors.Is(context.Cause(ctx), errOther) {
		return errOther
	}
	return err
}

// Bytes is an answer of bytes.
type Bytes struct{ w *answer }

// Write hands bytes on; they may wait for others.
func (b *Bytes) Write(p []byte) (int, error) { return b.w.Write(p) }

// Flush sends what was written.
func (b *Bytes) Flush() error { return b.w.flush() }

// headerText is a text as a header's value.
func headerText(s string) string {
	b := []byte(s)
	for i, c := range b {
		if c < ' ' || c > '~' {
			b[i] = ' '
		}
	}
	return string(b)
}

var _ http.ResponseWriter = (*answer)(nil)
