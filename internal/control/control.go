// Package control is the socket by which the operator's tool speaks to a
// running daemon: HTTP with JSON over a Unix socket that only root may open.
package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"sixfour/internal/engine"
)

// ErrInUse means that another daemon answers at the socket.
var ErrInUse = errors.New("another sixfourd answers there")

// Server answers at a control socket.
type Server struct {
	http *http.Server
	path string
}

// Listen opens the socket, for which it makes the directory if need be. A
// socket that a dead daemon left behind is replaced. The error is ErrInUse if
// a living one answers there.
func Listen(path string, status func() engine.Status) (*Server, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	if err := removeStale(path); err != nil {
		return nil, err
	}
	old := unix.Umask(0o177) // root's alone, from its first moment
	l, err := net.Listen("unix", path)
	unix.Umask(old)
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(status()) // a client that went away needs no answer
	})
	s := &Server{http: &http.Server{Handler: mux, ReadHeaderTimeout: timeout, IdleTimeout: timeout}, path: path}
	go func() { _ = s.http.Serve(l) }() // ends with ErrServerClosed
	return s, nil
}

// removeStale makes room for a new socket where a dead daemon left its own.
func removeStale(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil && info.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("control socket: %s exists and is no socket: remove it, or name another one in [control]", path)
	}
	if c, err := net.Dial("unix", path); err == nil {
		c.Close()
		return fmt.Errorf("control socket %s: %w: give this one another [control] socket", path, ErrInUse)
	} else if !errors.Is(err, unix.ECONNREFUSED) {
		return fmt.Errorf("control socket: %w", err)
	}
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("control socket: remove the stale one: %w", err)
	}
	return nil
}

// timeout bounds what either side waits for the other.
const timeout = 5 * time.Second

// Close removes the socket.
func (s *Server) Close() error { return s.http.Close() }

// Status asks the daemon at a socket what it is doing.
func Status(ctx context.Context, socket string) (engine.Status, error) {
	var s engine.Status
	client := http.Client{
		Timeout: timeout,
		Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", socket)
		}},
	}
	defer client.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://sixfourd/status", nil)
	if err != nil {
		return s, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return s, explain(socket, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return s, fmt.Errorf("daemon at %s: %s", socket, resp.Status)
	}
	if err := json.NewDecoder(resp.Body).Decode(&s); err != nil {
		return s, fmt.Errorf("daemon at %s: %w", socket, err)
	}
	return s, nil
}

func explain(socket string, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ECONNREFUSED):
		return fmt.Errorf("no sixfourd answers at %s: start it, or name the socket of its [control] section with --socket", socket)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%s may not be opened: run as root", socket)
	}
	return fmt.Errorf("daemon at %s: %w", socket, err)
}
