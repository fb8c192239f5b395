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
	"os"
	"sync"
	"time"

	"go.uber.org/zap"
	"golang.org/x/net/netutil"

	"sixfour/internal/engine"
)

// Daemon is what can be asked at a control socket. Its methods may be called by many
// goroutines at the same time, and return soon after their context has ended.
type Daemon interface {
	Status() engine.Status
	// Events are some that were, and those that come until ctx ends; then the
	// channel is closed.
	Events(ctx context.Context) <-chan engine.Event
}

// What the server bears at most. All of it is per daemon.
const (
	maxConns   = 64       // open at the same time; more wait to be accepted
	maxStreams = 32       // of these, answers without an end (events, capture…)
	maxHeader  = 8 << 10  // bytes of a request's line and header
	maxBody    = 64 << 10 // bytes of a request's body
	maxReports = 4        // status answers made at the same time: with many peers each is megabytes
)

// How long it waits.
const (
	readPatience  = 5 * time.Second  // for a request to arrive
	idlePatience  = 30 * time.Second // for another one on the same connection
	writePatience = 10 * time.Second // for the client to take one write
)

// Server answers at a control socket.
type Server struct {
	daemon  Daemon
	log     *zap.Logger
	http    *http.Server
	socket  *socket
	cancel  context.CancelFunc // ends what is being answered
	streams chan struct{}      // one element for each stream that is open
	reports chan struct{}
	served  chan struct{} // closed when no connection is accepted any more

	// A request holds gate for reading, Close for writing.
	gate   sync.RWMutex
	closed bool
}

// Listen opens the socket, for which it makes the directory if need be, and answers
// there. A socket that a dead daemon left behind is replaced. The error is ErrInUse if
// a living one answers there.
func Listen(path string, d Daemon, log *zap.Logger) (*Server, error) {
	sock, err := listen(path, log)
	if err != nil {
		return nil, err
	}
	s := newServer(d, log)
	s.socket = sock
	ctx, cancel := context.WithCancel(context.Background())
	s.http = &http.Server{
		Handler:                      s,
		ReadHeaderTimeout:            readPatience,
		IdleTimeout:                  idlePatience,
		MaxHeaderBytes:               maxHeader,
		DisableGeneralOptionsHandler: true,
		BaseContext:                  func(net.Listener) context.Context { return ctx },
	}
	if s.http.ErrorLog, err = zap.NewStdLogAt(log, zap.DebugLevel); err != nil {
		cancel()
		sock.Close()
		return nil, errors.Join(fmt.Errorf("control socket: %w", err), sock.remove())
	}
	s.cancel, s.served = cancel, make(chan struct{})
	go func() {
		defer close(s.served)
		_ = s.http.Serve(netutil.LimitListener(sock, maxConns)) // ends with ErrServerClosed
	}()
	return s, nil
}

func newServer(d Daemon, log *zap.Logger) *Server {
	return &Server{daemon: d, log: log, streams: make(chan struct{}, maxStreams), reports: make(chan struct{}, maxReports)}
}

// Close ends what is being answered, removes the socket, and returns when nothing of
// the server runs any more.
func (s *Server) Close() error {
	s.cancel()
	err := s.http.Close()
	<-s.served
	s.gate.Lock()
	s.closed = true
	s.gate.Unlock()
	if e := s.socket.remove(); e != nil && !os.IsNotExist(e) {
		return fmt.Errorf("control socket: %w", e)
	}
	return err
}
