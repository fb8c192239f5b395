package control

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"sixfour/internal/api"
	"sixfour/internal/fair"
	"sixfour/internal/text"
	"sixfour/internal/version"
)

// route is one request that the API supports.
type route struct {
	method, path string
	params       []string // known query parameters
	body         bool     // the request has a JSON body
	stream       bool     // the answer ends when the client disconnects, or later
	handle       func(*Server, *answer, *request) error
}

var routes = []route{
	{method: http.MethodGet, path: api.PathPrefix + "version", handle: (*Server).version},
	{method: http.MethodGet, path: api.PathPrefix + "status", params: []string{"tunnel"}, handle: (*Server).status},
	{method: http.MethodGet, path: api.PathPrefix + "events", stream: true, handle: (*Server).events},
	{method: http.MethodPost, path: api.PathPrefix + "reload", handle: (*Server).reload},
	{method: http.MethodPost, path: api.PathPrefix + "ping", body: true, stream: true, handle: (*Server).ping},
	{method: http.MethodPost, path: api.PathPrefix + "mtu", body: true, stream: true, handle: (*Server).mtu},
	{method: http.MethodPost, path: api.PathPrefix + "broker", body: true, stream: true, handle: (*Server).broker},
	{method: http.MethodGet, path: api.PathPrefix + "capture", params: captureParams, stream: true, handle: (*Server).capture},
}

func (s *Server) version(w *answer, _ *request) error {
	return w.json(api.Version{Version: version.String(), API: 1})
}

func (s *Server) status(w *answer, r *request) error {
	// A client that does not read its answer delays others only for a moment.
	hold, err := s.reports.Wait(r.Context(), fair.Client(r.Context()), w.abort)
	if err != nil {
		return err
	}
	defer hold.Release()
	end := hold.Begin(true) // what the daemon itself needs is not the client's delay
	all, err := s.encodedStatus(r)
	end()
	if err != nil {
		return err
	}
	w.progress = hold.Progress
	w.Header().Set("Content-Type", "application/json")
	_, err = w.Write(all)
	return err
}

// encodedStatus returns the answer to a request for the status, as JSON.
func (s *Server) encodedStatus(r *request) ([]byte, error) {
	st := s.daemon.Status()
	if name := r.query.Get("tunnel"); name != "" {
		all := st.Tunnels
		st.Tunnels = slices.DeleteFunc(slices.Clone(all), func(t api.TunnelStatus) bool { return t.Name != name })
		if len(st.Tunnels) == 0 {
			return nil, fmt.Errorf("there is no tunnel %q: choose %s", name, names(all))
		}
	}
	var b bytes.Buffer
	err := json.NewEncoder(text.NewJSONWriter(&b)).Encode(st)
	return b.Bytes(), err
}

func (s *Server) events(w *answer, r *request) error {
	return w.lines(r, func(ctx context.Context, emit func(any) error) error {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel() // closes the channel if emit fails
		if err := w.flush(); err != nil {
			return err
		}
		for ev := range s.daemon.Events(ctx) {
			if err := emit(ev); err != nil {
				return err
			}
		}
		return nil
	})
}

// maxNames is how many tunnels an error lists.
const maxNames = 10

func names(tunnels []api.TunnelStatus) string {
	var all []string
	for i, t := range tunnels {
		if i == maxNames {
			all = append(all, fmt.Sprintf("%d more", len(tunnels)-i))
			break
		}
		all = append(all, t.Name)
	}
	return strings.Join(all, ", ")
}
