package control

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"

	"sixfour/internal/api"
	"sixfour/internal/text"
)

// lines answers with JSON values, one per line, each sent at once, until do returns. The
// context of do ends when the client disconnects; emit fails then, and when the client does
// not read. An error before the first value is the answer; a later one is the last line.
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
		_ = enc.Encode(api.Failure{Error: err.Error()}) // it fails if the client has disconnected
	}
	return err
}

// bytes answers with what do writes, until do returns. The context of do ends when the
// client disconnects; writing fails then, and when the client does not read. An error before
// the first byte is the answer; a later one is in the trailer.
func (w *answer) bytes(r *request, contentType string, do func(ctx context.Context, w *Bytes) error) error {
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Trailer", api.ErrorTrailer)
	err := endOf(r.Context(), do(r.Context(), &Bytes{w}))
	if err != nil && w.begun {
		w.Header().Set(api.ErrorTrailer, headerText(err.Error()))
	}
	return err
}

// endOf returns the error of a stream that ended with err: errOther if another user needed
// its place.
func endOf(ctx context.Context, err error) error {
	if errors.Is(context.Cause(ctx), errDisplaced) {
		return errDisplaced
	}
	return err
}

// Bytes is an answer that consists of bytes.
type Bytes struct{ w *answer }

// Write writes bytes, which may be buffered.
func (b *Bytes) Write(p []byte) (int, error) { return b.w.Write(p) }

// Flush sends what was written.
func (b *Bytes) Flush() error { return b.w.flush() }

// headerText makes a text valid as a header's value.
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
