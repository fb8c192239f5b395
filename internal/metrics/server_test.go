package metrics

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"sixfour/internal/api"
)

func TestHealth(t *testing.T) {
	d := busy()
	url := serve(t, d)
	if code, body := get(t, url+"/healthz"); code != 200 || body != "ok" {
		t.Error(code, body)
	}
	d.stuck = true
	if code, body := get(t, url+"/healthz"); code != 503 || body != "the control loop does not respond" {
		t.Error(code, body)
	}
}

func TestReady(t *testing.T) {
	d := busy()
	url := serve(t, d)
	if code, body := get(t, url+"/readyz"); code != 503 || body != odd+": waiting for a route to 203.0.113.20" {
		t.Error(code, body)
	}
	for phase, want := range map[api.Phase]string{
		api.Starting: odd + ": starting",
		api.Probing:  "", api.Up: "", api.Suspect: "", api.Down: "", // packets are carried
	} {
		d.status.Tunnels[2].State = api.State{Phase: phase}
		code, body := get(t, url+"/readyz")
		if want == "" && (code != 200 || body != "ok") || want != "" && (code != 503 || body != want) {
			t.Errorf("%s: %d %s", phase, code, body)
		}
	}
}

// TestPaths: there are no paths except the documented ones.
func TestPaths(t *testing.T) {
	url := serve(t, busy())
	for _, path := range []string{"/", "/debug/pprof/", "/debug/vars", "/metrics/", "/status", "/v1/status"} {
		if code, _ := get(t, url+path); code != http.StatusNotFound {
			t.Errorf("%s: %d", path, code)
		}
	}
	resp, err := http.Post(url+"/metrics", "text/plain", strings.NewReader("x"))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusMethodNotAllowed {
		t.Error("POST:", resp.Status)
	}
	req, err := http.NewRequest(http.MethodGet, url+"/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X", strings.Repeat("x", 4*maxHeader))
	if resp, err = http.DefaultClient.Do(req); err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Error("a large header:", resp.Status)
	}
	http.DefaultClient.CloseIdleConnections()
}

// TestOpenMetrics: clients that support OpenMetrics get it.
func TestOpenMetrics(t *testing.T) {
	req, err := http.NewRequest(http.MethodGet, serve(t, busy())+"/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", "application/openmetrics-text; version=1.0.0")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer http.DefaultClient.CloseIdleConnections()
	defer resp.Body.Close()
	last := ""
	for s := bufio.NewScanner(resp.Body); s.Scan(); {
		last = s.Text()
	}
	if last != "# EOF" {
		t.Errorf("%s, ends with %q", resp.Header.Get("Content-Type"), last)
	}
}

func TestListenRefuses(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	for address, want := range map[string]string{
		l.Addr().String():   "metrics: listen at " + l.Addr().String() + ": address already in use: another program listens there (ss -ltnp sport = :" + port + " shows which): end it, or choose another listen in [metrics]",
		"203.0.113.77:9640": "metrics: listen at 203.0.113.77:9640: cannot assign requested address: no interface of this host has the address: choose another listen in [metrics]",
	} {
		s, err := Listen(address, busy(), counts{}, quiet)
		if err == nil {
			s.Close()
		}
		if err == nil || err.Error() != want {
			t.Errorf("%v, want %s", err, want)
		}
	}
	if got := explain("127.0.0.1:80", fmt.Errorf("bind: %w", unix.EACCES)).Error(); !strings.Contains(got, "CAP_NET_BIND_SERVICE") {
		t.Error(got)
	}
}

// TestSlowScrapers: clients that do not read their answers take one place each, block no
// other client, and leave nothing behind.
func TestSlowScrapers(t *testing.T) {
	defer goleak.VerifyNone(t)
	d := busy()
	long := strings.Repeat("x", 2000)
	for i := range 300 { // 20 MB, more than the buffers of the sockets
		tunnel := d.status.Tunnels[0]
		tunnel.Name = fmt.Sprint(long, i)
		d.status.Tunnels = append(d.status.Tunnels, tunnel)
	}
	s, err := Listen("127.0.0.1:0", d, counts{}, quiet)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	url := "http://" + s.Addr().String()
	for range 2 * maxSnapshots {
		askOnly(t, s.Addr().String())
		for _, path := range []string{"/metrics", "/healthz"} {
			if code, body := get(t, url+path); code != http.StatusOK {
				t.Errorf("%s: %d %.100s", path, code, body)
			}
		}
	}
}

// slowClient is a client that reads nothing until it is disconnected.
type slowClient struct {
	http.ResponseWriter
	cut bool
}

func (c *slowClient) SetWriteDeadline(time.Time) error { c.cut = true; return nil }

// TestSnapshots: slow clients keep only a limited number of sets of metrics in memory.
func TestSnapshots(t *testing.T) {
	var s snapshots
	var clients []*slowClient
	var begun []*snapshot
	now := time.Now()
	for i := range 2 * (maxSnapshots + 2) {
		c := &slowClient{}
		clients = append(clients, c)
		begun = append(begun, s.join(http.NewResponseController(c), now.Add(time.Duration(i/2)*maxAge)))
	}
	if begun[0] != begun[1] || begun[1] == begun[2] {
		t.Error("who asks at the same time has the same set, later ones another")
	}
	for i, c := range clients {
		if old := i < 2*2; c.cut != old {
			t.Errorf("client %d: cut off: %v", i, c.cut)
		}
	}
	if len(s.all) != maxSnapshots {
		t.Errorf("%d sets", len(s.all))
	}
	rc := http.NewResponseController(&slowClient{})
	last := s.join(rc, now.Add(time.Hour))
	s.leave(last, rc)
	if len(s.all) != maxSnapshots-1 {
		t.Errorf("%d sets are left", len(s.all))
	}
}

// TestIdleConnections: connections without a request, with an incomplete one, or with an
// answer that is not read, do not stop other clients, however many there are.
func TestIdleConnections(t *testing.T) {
	defer goleak.VerifyNone(t)
	s, err := Listen("127.0.0.1:0", busy(), counts{}, quiet)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for i := range 4 * maxConns {
		c, err := net.Dial("tcp", s.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_, _ = io.WriteString(c, []string{"", "G", "GET /healthz HTTP/1.1\r\nHost: x\r\n", "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"}[i%4]) // it may be closed already
	}
	began := time.Now()
	for _, path := range []string{"/healthz", "/readyz", "/metrics"} {
		if code, body := get(t, "http://"+s.Addr().String()+path); code != http.StatusOK && code != http.StatusServiceUnavailable {
			t.Errorf("%s: %d %s", path, code, body)
		}
	}
	if took := time.Since(began); took > requestTimeout { // from then on idle connections end by themselves
		t.Errorf("it took %v", took)
	}
}

// askOnly requests all metrics, waits until they begin to arrive, and does not read
// them.
func askOnly(t *testing.T, address string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.(*net.TCPConn).SetReadBuffer(4096); err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Fprint(c, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	_ = c.SetReadDeadline(time.Now().Add(time.Minute)) // fails only if it is closed
	if _, err := c.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	return c
}
