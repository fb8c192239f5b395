package control

import (
	"net/http"
	"time"

	"go.uber.org/zap"
)

// Listen calls Open and Serve.
func Listen(path string, d Daemon, log *zap.Logger) (*Server, error) {
	s, err := Open(path, d, log)
	if err == nil {
		s.Serve()
	}
	return s, err
}

// ListenImpatient is Listen with limits that a test can reach.
func ListenImpatient(path string, d Daemon, wait time.Duration, log *zap.Logger) (*Server, error) {
	l := defaultLimits
	l.read, l.idle, l.write, l.checkSocket = wait, wait, wait, wait
	s, err := open(path, newServer(d, log, l))
	if err == nil {
		s.Serve()
	}
	return s, err
}

// GiveAfter makes a socket, and gives it to a group after calling replace.
func GiveAfter(path string, gid int, replace func()) error {
	s, err := listen(path, zap.NewNop())
	if err != nil {
		return err
	}
	defer s.release()
	replace()
	return s.setGroup(gid)
}

// Handler returns a server without a socket.
func Handler(d Daemon) http.Handler { return newServer(d, zap.NewNop(), defaultLimits) }

// SetGroup changes the group that may use sockets made from now on.
func SetGroup(name string) (restore func()) {
	was := group
	group = name
	return func() { group = was }
}

// Limits of the server.
var (
	MaxConns   = defaultLimits.conns
	MaxStreams = defaultLimits.streams
)

// Sizes of requests.
const (
	MaxHeader = maxHeader
	MaxBody   = maxBody
)

// Routes lists all requests: METHOD PATH.
func Routes() (all []string) {
	for _, r := range routes {
		all = append(all, r.method+" "+r.path)
	}
	return all
}
