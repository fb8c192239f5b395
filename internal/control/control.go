// Package control implements the socket through which the operator's tool talks to a
// running daemon: HTTP with JSON over a Unix socket, which root and the group sixfour may
// open. docs/control.md describes the API.
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

// Daemon is what a control socket gives access to. Its methods may be called concurrently,
// and return soon after their context has ended.
type Daemon interface {
	Status() api.Status
	// Events delivers some past events, and new ones until ctx ends; then the channel is
	// closed.
	Events(ctx context.Context) <-chan api.Event
	// Reload reads the configuration again.
	Reload(ctx context.Context) (api.Plan, error)
	Ping(ctx context.Context, r api.PingRequest, each func(api.PingReply)) error
	ProbeMTU(ctx context.Context, peer string, each func(api.MTUProbe)) (api.MTUResult, error)
	// Capture writes a tunnel's packets as pcapng. An error before the first byte concerns
	// the request.
	Capture(ctx context.Context, r capture.Request, out capture.Sink) error
}

// Limits of a single request.
const (
	maxHeader = 8 << 10  // bytes of request line and header
	maxBody   = 64 << 10 // bytes of the body
)

// limits are the server's limits for all clients together, and its timeouts.
type limits struct {
	conns   int           // open connections
	streams int           // concurrent answers without an end (events, captures…)
	reports int           // concurrent status answers: with many peers each takes megabytes
	patient time.Duration // how long a client may take to read a status while others wait

	read        time.Duration // for a request to arrive
	idle        time.Duration // for the next request on a connection
	write       time.Duration // for the client to take one write
	checkSocket time.Duration // interval of checks that the socket's file exists
}

var defaultLimits = limits{conns: 64, streams: 32, reports: 4, patient: time.Second, read: 5 * time.Second, idle: 5 * time.Second, write: 10 * time.Second, checkSocket: 5 * time.Second}

// Server answers requests at a control socket.
type Server struct {
	daemon  Daemon
	limits  limits
	log     *zap.Logger
	http    *http.Server
	socket  *socket
	ended   <-chan struct{}    // closed by cancel
	cancel  context.CancelFunc // ends all running answers
	streams *fair.Limit
	reports *fair.Limit
	conns   *fair.Listener
	served  sync.WaitGroup // the goroutines of Serve

	// A request holds closing for reading, Close for writing.
	closing sync.RWMutex
	closed  bool
}

// Open makes the socket, and its directory if necessary; clients that connect wait until
// Serve. It replaces a socket that a dead daemon left behind. The error is ErrInUse if a
// running daemon answers there.
func Open(path string, d Daemon, log *zap.Logger) (*Server, error) {
	return open(path, newServer(d, log, defaultLimits))
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

// Serve starts to answer requests. It must be called once, before Close.
func (s *Server) Serve() {
	s.served.Go(func() {
		_ = s.http.Serve(s.conns) // ends with ErrServerClosed
	})
	s.served.Go(func() { s.socket.watch(s.limits.checkSocket, s.ended, s.log) })
}

func newServer(d Daemon, log *zap.Logger, l limits) *Server {
	return &Server{daemon: d, limits: l, log: log, streams: fair.NewLimit(l.streams, 0), reports: fair.NewLimit(l.reports, l.patient)}
}

// Close ends all running answers, removes the socket, and returns when all goroutines of
// the server have ended.
func (s *Server) Close() error {
	s.cancel()
	err := s.socket.remove()
	err = errors.Join(err, s.http.Close())
	s.conns.Close() // if Serve was not called
	s.served.Wait()
	s.socket.release()
	s.closing.Lock()
	s.closed = true
	s.closing.Unlock()
	return err
}
