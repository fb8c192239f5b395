package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"sixfour/internal/api"
	"sixfour/internal/fair"
	"sixfour/internal/text"
	"sixfour/internal/version"
)

// request is a request that has been read completely.
type request struct {
	*http.Request
	query url.Values // parameters, all known to the route
	body  []byte
}

// refusal is an error with an HTTP status. For other errors, which mean that the daemon
// cannot do what was requested, the status is 422.
type refusal struct {
	status int
	error
}

func refuse(status int, format string, args ...any) error {
	return refusal{status, fmt.Errorf(format, args...)}
}

// ServeHTTP answers one request.
func (s *Server) ServeHTTP(hw http.ResponseWriter, hr *http.Request) {
	s.closing.RLock()
	defer s.closing.RUnlock()
	if s.closed {
		return
	}
	defer s.panicked()
	w := &answer{ResponseWriter: hw, rc: http.NewResponseController(hw), patience: s.limits.write}
	defer w.extend() // for what net/http still writes
	w.Header().Set("Server", "sixfourd/"+version.String())
	w.Header().Set("Cache-Control", "no-store")
	if err := s.serve(w, hr); err != nil {
		w.fail(err)
	}
}

// panicked must be deferred. After a panic it logs the panic and closes the connection; other
// requests are not affected.
func (s *Server) panicked() {
	v := recover()
	if v == nil {
		return
	}
	s.log.Error("panic: this is a bug in sixfourd, which discards the request and continues: please report this line",
		zap.String("panic", fmt.Sprint(v)), zap.ByteString("stack", debug.Stack()))
	panic(http.ErrAbortHandler)
}

func (s *Server) serve(w *answer, hr *http.Request) error {
	rt, err := find(w, hr)
	if err != nil {
		return err
	}
	r, err := s.read(w, hr, rt)
	if err != nil {
		return err
	}
	if rt.stream {
		ctx, cancel := context.WithCancelCause(r.Context())
		defer cancel(nil)
		hold, ok := s.streams.Take(fair.Client(ctx), func() { cancel(errDisplaced) })
		if !ok {
			return refuse(http.StatusServiceUnavailable, "%d streams (events, captures, pings) are already open, which is the limit: end one of them", s.limits.streams)
		}
		defer hold.Release()
		r.Request = r.WithContext(ctx)
	}
	return rt.handle(s, w, r)
}

// errDisplaced ends a stream when too many are open and another user needs one.
var errDisplaced = errors.New("too many streams (events, captures, pings) are open: this one was closed, because another user needed one")

func find(w *answer, hr *http.Request) (route, error) {
	var methods []string
	for _, rt := range routes {
		if rt.path != hr.URL.Path {
			continue
		}
		if rt.method == hr.Method {
			return rt, nil
		}
		methods = append(methods, rt.method)
	}
	if methods != nil {
		w.Header().Set("Allow", strings.Join(methods, ", "))
		return route{}, refuse(http.StatusMethodNotAllowed, "%s takes %s, not %q", hr.URL.Path, strings.Join(methods, " or "), hr.Method)
	}
	return route{}, refuse(http.StatusNotFound, "there is no %q: this is sixfourd %s, and all its paths begin with %s", hr.URL.Path, version.String(), api.PathPrefix)
}

// read reads the whole request, so that the handler does not depend on the speed of the
// client.
func (s *Server) read(w *answer, hr *http.Request, rt route) (*request, error) {
	r := &request{Request: hr}
	var err error
	if r.query, err = url.ParseQuery(hr.URL.RawQuery); err != nil {
		return nil, refuse(http.StatusBadRequest, "cannot parse the query: %v", err)
	}
	for name, values := range r.query {
		if !slices.Contains(rt.params, name) || len(values) > 1 {
			return nil, refuse(http.StatusBadRequest, "%s takes no parameter %q, or only once", hr.URL.Path, name)
		}
	}
	_ = w.rc.SetReadDeadline(time.Now().Add(s.limits.read)) // fails with a test's recorder
	r.body, err = io.ReadAll(http.MaxBytesReader(w.ResponseWriter, hr.Body, maxBody))
	if err == nil {
		_ = w.rc.SetReadDeadline(time.Time{}) // otherwise net/http would wait for the rest
	}
	switch {
	case errors.As(err, new(*http.MaxBytesError)):
		return nil, refuse(http.StatusRequestEntityTooLarge, "the body has more than %d bytes", maxBody)
	case err != nil:
		w.Header().Set("Connection", "close")
		return nil, refuse(http.StatusBadRequest, "the body did not arrive: %v", err)
	case len(r.body) > 0 && !rt.body:
		return nil, refuse(http.StatusBadRequest, "%s takes no body", hr.URL.Path)
	}
	return r, nil
}

// decode decodes the body, which must be one JSON value with known fields.
func (r *request) decode(into any) error {
	d := json.NewDecoder(bytes.NewReader(r.body))
	d.DisallowUnknownFields()
	err := d.Decode(into)
	if errors.Is(err, io.EOF) {
		return refuse(http.StatusBadRequest, "%s takes a body of JSON", r.URL.Path)
	}
	if err == nil {
		if _, more := d.Token(); !errors.Is(more, io.EOF) {
			err = errors.New("there is more data after the value")
		}
	}
	if err != nil {
		return refuse(http.StatusBadRequest, "cannot parse the body: %v", err)
	}
	return nil
}

// answer is a response with a timeout for each write: a client that stops reading is
// disconnected.
type answer struct {
	http.ResponseWriter
	rc       *http.ResponseController
	patience time.Duration // timeout of one write
	begun    bool          // the status has been sent

	progress func() // called when the client has taken a part of the answer; nil: by nobody

	mu      sync.Mutex
	aborted bool
}

// maxWrite is the size of one write, in bytes, to which patience applies.
const maxWrite = 64 << 10

func (w *answer) extend() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.aborted {
		return
	}
	_ = w.rc.SetWriteDeadline(time.Now().Add(w.patience)) // fails with a test's recorder
}

// abort makes all further writes fail. Any goroutine may call it.
func (w *answer) abort() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.aborted = true
	_ = w.rc.SetWriteDeadline(time.Now())
}

// Write must not be called concurrently.
func (w *answer) Write(b []byte) (n int, err error) {
	w.begun = true
	for err == nil && n < len(b) {
		w.extend()
		var m int
		m, err = w.ResponseWriter.Write(b[n:min(n+maxWrite, len(b))])
		n += m
		if w.progress != nil && err == nil {
			w.progress()
		}
	}
	return n, err
}

// flush sends what was written, after the header.
func (w *answer) flush() error {
	w.begun = true
	w.extend()
	return w.rc.Flush()
}

func (w *answer) json(v any) error {
	w.Header().Set("Content-Type", "application/json")
	return json.NewEncoder(text.NewJSONWriter(w)).Encode(v)
}

// maxText limits an error's text, in bytes. As JSON, in which a character takes at most six
// bytes, it fits what clients read (maxError). A file may have thousands of errors; the log
// has all of them.
const maxText = 8 << 10

// fail answers with an error, unless an answer has been started.
func (w *answer) fail(err error) {
	if w.begun {
		return
	}
	status := http.StatusUnprocessableEntity
	var r refusal
	if errors.As(err, &r) {
		status = r.status
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Del("Trailer")
	w.extend()
	w.WriteHeader(status)
	_ = json.NewEncoder(text.NewJSONWriter(w)).Encode(api.Failure{Error: text.Cut(err.Error(), maxText)}) // it fails if the client has disconnected
}
