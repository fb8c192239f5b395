package metrics

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	dto "github.com/prometheus/client_model/go"
	"golang.org/x/sys/unix"

	"sixfour/internal/api"
	"sixfour/internal/fair"
	"sixfour/internal/text"
)

// Daemon provides the state that the server shows.
type Daemon interface {
	Status() api.Status
	// Alive returns nil if the control loop works, or an error if it does not answer
	// until ctx ends.
	Alive(ctx context.Context) error
}

// Brokers is a Daemon that has clients of a broker.
type Brokers interface {
	// BrokerClients calls each with every client that is connected.
	BrokerClients(each func(api.BrokerClient))
}

// Limits of one listener. Clients are not authenticated, and can be on any host that can
// reach the address.
const (
	maxConns        = 64
	maxHeader       = 8 << 10
	maxHealth       = 2000             // bytes of a health answer: written without waiting for the client
	requestTimeout  = 5 * time.Second  // for a request to arrive
	responseTimeout = 20 * time.Second // for the client to read an answer
	idleTime        = 15 * time.Second
	aliveTimeout    = 5 * time.Second // for the control loop to answer
)

// Server serves /metrics, /healthz and /readyz.
type Server struct {
	http *http.Server
	addr net.Addr
}

// Listen serves on an address, host:port, until Close. Errors of clients go to errorLog.
func Listen(address string, d Daemon, logs Logs, errorLog *log.Logger) (*Server, error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, explain(address, err)
	}
	bounded := fair.NewListener(l, maxConns, fair.ByAddress)
	s := &Server{addr: l.Addr(), http: &http.Server{
		ConnContext:       bounded.ConnContext,
		Handler:           handler(d, logs, errorLog),
		ErrorLog:          errorLog,
		ReadHeaderTimeout: requestTimeout,
		ReadTimeout:       requestTimeout,
		WriteTimeout:      responseTimeout,
		IdleTimeout:       idleTime,
		MaxHeaderBytes:    maxHeader,
	}}
	go func() { _ = s.http.Serve(bounded) }() // ends with ErrServerClosed
	return s, nil
}

// explain returns why the server cannot listen, with advice.
func explain(address string, err error) error {
	var reason unix.Errno
	if !errors.As(err, &reason) {
		return fmt.Errorf("metrics: %w: correct listen in [metrics]", err)
	}
	way := "choose another listen in [metrics]"
	switch reason {
	case unix.EADDRINUSE:
		_, port, _ := net.SplitHostPort(address)
		way = "another program listens there (ss -ltnp sport = :" + port + " shows which): end it, or " + way
	case unix.EADDRNOTAVAIL:
		way = "no interface of this host has the address: " + way
	case unix.EACCES:
		way = "ports below 1024 need CAP_NET_BIND_SERVICE: " + way
	}
	return fmt.Errorf("metrics: listen at %s: %w: %s", address, reason, way)
}

// Addr returns the server's address.
func (s *Server) Addr() net.Addr { return s.addr }

// Close ends the server and every connection to it.
func (s *Server) Close() error { return s.http.Close() }

// registry returns a registry with all metrics of this process. It is not the default
// registry, so that no library can add to it.
func registry(d Daemon, logs Logs) *prometheus.Registry {
	r := prometheus.NewRegistry()
	clients, _ := d.(Brokers)
	r.MustRegister(
		&collector{d.Status, clients, logs},
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	return r
}

func handler(d Daemon, logs Logs, errorLog *log.Logger) http.Handler {
	mux := http.NewServeMux()
	all := registry(d, logs)
	mux.Handle("GET /metrics", fair.Serve(&snapshots{gather: func() []*dto.MetricFamily {
		families, err := all.Gather()
		if err != nil { // one invalid metric does not stop the others
			errorLog.Print(err)
		}
		return families
	}}))
	health := func(path string, h http.HandlerFunc) { mux.Handle("GET "+path, fair.ServeSoon(h)) }
	health("/healthz", func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), aliveTimeout)
		defer cancel()
		writeHealth(w, errorLines(d.Alive(ctx)))
	})
	health("/readyz", func(w http.ResponseWriter, _ *http.Request) {
		writeHealth(w, waitingLines(d.Status()))
	})
	return mux
}

// errorLines returns an error as lines.
func errorLines(err error) []string {
	if err == nil {
		return nil
	}
	return []string{err.Error()}
}

// waitingLines returns a line for each tunnel that cannot carry packets, with the reason.
func waitingLines(s api.Status) (lines []string) {
	for i := range s.Tunnels {
		t := &s.Tunnels[i]
		if t.State.Phase.Carries() {
			continue
		}
		line := fmt.Sprintf("%s: %s", t.Name, t.State.Phase)
		if t.State.Detail != "" {
			line += " for " + t.State.Detail
		}
		lines = append(lines, line)
	}
	return lines
}

// writeHealth answers that all is well or, with status 503, what is wrong.
func writeHealth(w http.ResponseWriter, lines []string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	if len(lines) == 0 {
		lines = []string{"ok"}
	} else {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	_, _ = fmt.Fprintln(text.NewWriter(w), text.Cut(strings.Join(lines, "\n"), maxHealth)) // an error means that the client has disconnected
}
