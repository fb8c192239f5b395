// Package control is the socket by which the operator's tool speaks to a running
// daemon: HTTP with JSON over a Unix socket, which root and the group sixfour may
// open. docs/control.md describes what it answers.
package control

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"go.uber.org/zap"

	"sixfour/internal/api"
	"sixfour/internal/capture"
	"sixfour/internal/fair"
)

// Daemon is what can be asked at a control socket. Its methods may be called by many
// goroutines at the same time, and return soon after their context has ended.
type Daemon interface {
	Status() api.Status
	// Events are some that were, and those that come until ctx ends; then the
	// channel is closed.
	Events(ctx context.Context) <-chan api.Event
	// Reload reads the configuration again.
	Reload(ctx context.Context) (api.Plan, error)
	Ping(ctx context.Context, r api.PingRequest, each func(api.PingReply)) error
	ProbeMTU(ctx context.Context, peer string, each func(api.MTUProbe)) (api.MTUResult, error)
	// Capture writes what goes through a tunnel as pcapng. An error before the first
	// byte is about the request.
	Capture(ctx context.Context, r capture.Request, out capture.Sink) error
}

// What the server bears of one request.
const (
	maxHeader = 8 << 10  // bytes of its line and header
	maxBody   = 64 << 10 // bytes of its body
)

// limits are what the server bears of all clients, and how long it waits for one.
type limits struct {
	conns   int           // open at the same time
	streams int           // of these, answers without an end (events, captures…)
	reports int           // status answers at the same time: with many peers each is megabytes
	patient time.Duration // how long a status answer may be read while others wait

	read  time.Duration // for a request to arrive
	idle  time.Duration // for another one on the same connection
	write time.Duration // for the client to take one write
	look  time.Duration // between looks whether the socket's file is there
}

var usual = limits{conns: 64, streams: 32, reports: 4, patient: time.Second, read: 5 * time.Second, idle: 5 * time.Second, write: 10 * time.Second, look: 5 * time.Second}

// Server answers at a control socket.
type Server struct {
	daemon  Daemon
	limits  limits
	log     *zap.Logger
	http    *http.Server
	socket  *socket
	ended   <-chan struct{}    // closed by cancel
	cancel  context.CancelFunc // ends what is being answered
	streams *fair.Limit
	reports *fair.Limit
	conns   *fair.Listener
	served  sync.WaitGroup // accepts connections

	// A request holds gate for reading, Close for writing.
	gate   sync.RWMutex
	closed bool
}

// Listen is Open and Serve.
func Listen(path string, d Daemon, log *zap.Logger) (*Server, error) {
	s, err := Open(path, d, log)
	if err == nil {
		s.Serve()
	}
	return s, err
}

// Open makes the socket, and its directory if need be; who asks there waits until
// Serve. A socket that a dead daemon left behind is replaced. The error is ErrInUse if
// a living one answers there.
func Open(path string, d Daemon, log *zap.Logger) (*Server, error) {
	return open(path, newServer(d, log, usual))
}

func open(path string, s *Server) (*Server, error) {
	errorLog, err := zap.NewStdLogAt(s.log, zap.DebugLevel)
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	if s.socket, err = listen(path, s.log); err != nil {
		return nil, err
	}
	s.conns = fair.NewListener(s.socket, s.limits.conns, fair.ByUser)
	var ctx context.Context
	ctx, s.cancel = context.WithCancel(context.Background())
	s.ended = ctx.Done()
	s.http = &http.Server{
		Handler:                      fair.Serve(s),
		ConnContext:                  s.conns.ConnContext,
		ReadHeaderTimeout:            s.limits.read,
		IdleTimeout:                  s.limits.idle,
		MaxHeaderBytes:               maxHeader,
		DisableGeneralOptionsHandler: true,
		ErrorLog:                     errorLog,
		BaseContext:                  func(net.Listener) context.Context { return ctx },
	}
	return s, nil
}

// Serve begins to answer. It is called once, before Close.
func (s *Server) Serve() {
	s.served.Go(func() {
		_ = s.http.Serve(s.conns) // ends with ErrServerClosed
	})
	s.served.Go(func() { s.socket.watch(s.limits.look, s.ended, s.log) })
}

func newServer(d Daemon, log *zap.Logger, l limits) *Server {
	return &Server{daemon: d, limits: l, log: log, streams: fair.NewLimit(l.streams, 0), reports: fair.NewLimit(l.reports, l.patient)}
}

// Close ends what is being answered, removes the socket, and returns when nothing of
// the server runs any more.
func (s *Server) Close() error {
	s.cancel()
	err := s.socket.remove()
	err = errors.Join(err, s.http.Close())
	s.conns.Close() // if nothing was served
	s.served.Wait()
	s.socket.release()
	s.gate.Lock()
	s.closed = true
	s.gate.Unlock()
	return err
}
