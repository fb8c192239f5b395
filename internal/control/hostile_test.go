package control_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/zap"

	"sixfour/internal/api"
	"sixfour/internal/control"
	"sixfour/internal/control/client"
)

// talk sends raw bytes, and returns everything received until the daemon closes the
// connection, or its answer if it does not.
func talk(t *testing.T, path, send string) *http.Response {
	t.Helper()
	c, err := net.Dial("unix", path)
	must(t, err)
	t.Cleanup(func() { c.Close() })
	must(t, c.SetDeadline(time.Now().Add(patience)))
	go func() { _, _ = io.WriteString(c, send) }() // the daemon need not read all of it
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatalf("%.60q: %v", send, err)
	}
	return resp
}

func post(path, body string) string {
	return fmt.Sprintf("POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", path, len(body), body)
}

func TestBadRequests(t *testing.T) {
	path := listen(t, fake{})
	for _, c := range []struct {
		name, send string
		status     int
		err        string // "": the answer need not be JSON
	}{
		{"unknown path", "GET /status HTTP/1.1\r\nHost: x\r\n\r\n", 404, `there is no "/status": this is sixfourd `},
		{"unknown path", "GET / HTTP/1.1\r\nHost: x\r\n\r\n", 404, "all its paths begin with /v1/"},
		{"other case", "GET /V1/Status HTTP/1.1\r\nHost: x\r\n\r\n", 404, "there is no"},
		{"dots", "GET /v1/../v1/status HTTP/1.1\r\nHost: x\r\n\r\n", 404, "there is no"},
		{"wrong method", "POST /v1/status HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", 405, `/v1/status takes GET, not "POST"`},
		{"unknown method", "FROB /v1/status HTTP/1.1\r\nHost: x\r\n\r\n", 405, `/v1/status takes GET, not "FROB"`},
		{"unknown parameter", "GET /v1/status?tunel=x HTTP/1.1\r\nHost: x\r\n\r\n", 400, `takes no parameter "tunel"`},
		{"twice", "GET /v1/status?tunnel=x&tunnel=y HTTP/1.1\r\nHost: x\r\n\r\n", 400, `"tunnel", or only once`},
		{"bad escape", "GET /v1/status?tunnel=%zz HTTP/1.1\r\nHost: x\r\n\r\n", 400, "the query: invalid URL escape"},
		{"unknown tunnel", "GET /v1/status?tunnel=%1b[2J HTTP/1.1\r\nHost: x\r\n\r\n", 422, `there is no tunnel "\x1b[2J"`},
		{"no body", "POST /v1/ping HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", 400, "/v1/ping takes a body of JSON"},
		{"no JSON", post("/v1/ping", "peer=six0"), 400, "the body: invalid character"},
		{"a number for a name", post("/v1/ping", `{"peer":6}`), 400, "cannot unmarshal number"},
		{"an unknown field", post("/v1/ping", `{"per":"six0"}`), 400, `unknown field "per"`},
		{"two values", post("/v1/ping", `{"peer":"six0"}{}`), 400, "there is more data after the value"},
		{"no duration", post("/v1/ping", `{"peer":"six0","interval":1}`), 400, "the body: "},
		{"no such duration", post("/v1/ping", `{"peer":"six0","interval":"1 second"}`), 400, "the body: "},
		{"a deep one", post("/v1/mtu", strings.Repeat("[", 20000)), 400, "the body: "},
		{"a huge one", post("/v1/mtu", `{"peer":"`+strings.Repeat("x", control.MaxBody)+`"}`), 413, "more than 65536 bytes"},
		{"what the daemon cannot", post("/v1/reload", ""), 422, "six.toml:3:1: what is wrong"},
		{"needless body", "GET /v1/status HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}", 400, "takes no body"},
		{"huge body", "GET /v1/status HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n" + strings.Repeat("x", 99999999), 413, "more than 65536 bytes"},
		{"endless body", "GET /v1/status HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + strings.Repeat("400\r\n"+strings.Repeat("x", 0x400)+"\r\n", 1000), 413, "more than 65536 bytes"},
		{"bad chunk", "GET /v1/status HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400, "the body did not arrive"},
		{"two lengths", "GET /v1/status HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n", 400, ""},
		{"huge header", "GET /v1/status HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("x", 4*control.MaxHeader) + "\r\n\r\n", 431, ""},
		{"huge line", "GET /" + strings.Repeat("x", 4*control.MaxHeader) + " HTTP/1.1\r\nHost: x\r\n\r\n", 431, ""},
		{"not HTTP", "status\n\n", 400, ""},
		{"a TLS client", "\x16\x03\x01\x00\xf4\x01\x00\x00\xf0\x03\x03\r\n\r\n", 400, ""},
	} {
		resp := talk(t, path, c.send) //nolint:bodyclose // its connection is
		var f struct{ Error string }
		b, err := io.ReadAll(resp.Body)
		if c.err != "" { // otherwise the daemon may disconnect a client that is still sending
			must(t, err)
			must(t, json.Unmarshal(b, &f))
		}
		if resp.StatusCode != c.status || !strings.Contains(f.Error, c.err) {
			t.Errorf("%s: %s: %s, want %d %s", c.name, resp.Status, b, c.status, c.err)
		}
		if c.status == http.StatusMethodNotAllowed && resp.Header.Get("Allow") != http.MethodGet {
			t.Errorf("%s: allowed is %q", c.name, resp.Header.Get("Allow"))
		}
	}
	if _, err := client.Status(t.Context(), path); err != nil {
		t.Errorf("after all this: %v", err)
	}
}

// A client that sends its request too slowly is disconnected, wherever it stops.
func TestSlowRequests(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	s, err := control.ListenImpatient(path, fake{}, 50*time.Millisecond, zap.NewNop())
	must(t, err)
	defer s.Close()
	for _, send := range []string{"", "G", "GET /v1/status HTTP/1.1\r\nHost: x\r\nX: ", "GET /v1/status HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n{",
		"GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n"} {
		c, err := net.Dial("unix", path)
		must(t, err)
		must(t, c.SetDeadline(time.Now().Add(patience)))
		_, err = io.WriteString(c, send)
		must(t, err)
		if _, err := io.Copy(io.Discard, c); err != nil && !strings.Contains(err.Error(), "reset") {
			t.Errorf("%q: %v", send, err)
		}
		c.Close()
	}
}

// A client that stops reading is disconnected, and its request ends.
func TestStoppedReader(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	ended := make(chan struct{})
	text := strings.Repeat("x", 10000)
	s, err := control.ListenImpatient(path, fake{events: func(_ context.Context, emit func(api.Event) bool) {
		for emit(api.Event{Text: text}) {
		}
		close(ended)
	}}, 50*time.Millisecond, zap.NewNop())
	must(t, err)
	defer s.Close()
	c, err := net.Dial("unix", path)
	must(t, err)
	defer c.Close()
	_, err = io.WriteString(c, "GET /v1/events HTTP/1.1\r\nHost: x\r\n\r\n")
	must(t, err)
	select {
	case <-ended:
	case <-time.After(patience):
		t.Error("it still is sent events")
	}
}

// asFlood is the environment variable with the socket to which the test binary opens
// connections that send nothing, send slowly, or do not read their status.
const asFlood = "SIXFOUR_CONTROL_FLOOD"

// flood opens n connections, of which the daemon closes some.
func flood(path string, n int) (all []net.Conn, err error) {
	for i := range n {
		c, err := net.Dial("unix", path)
		if err != nil {
			return all, err
		}
		all = append(all, c)
		_, _ = io.WriteString(c, []string{"GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n", "", "GET"}[i%3])
	}
	return all, nil
}

func floodUntilClosed(path string) int {
	all, err := flood(path, 2*control.MaxConns)
	fmt.Println(len(all), err)
	_, _ = io.Copy(io.Discard, os.Stdin)
	return 0
}

// Slow clients do not block others: neither some of the same user, nor as many as another
// user may have.
func TestSlowClients(t *testing.T) {
	defer control.SetGroup("nogroup")()
	dir := openDir(t)
	path := filepath.Join(dir, "s")
	s, err := control.Listen(path, fake{large: true}, zap.NewNop())
	must(t, err)
	defer s.Close()
	slow, err := flood(path, control.MaxConns/2)
	must(t, err)
	if _, err := client.Status(t.Context(), path); err != nil {
		t.Errorf("beside slow clients of the same user: %v", err)
	}
	for _, c := range slow {
		c.Close()
	}
	other := exec.Command("/proc/self/exe")
	other.Env = []string{asFlood + "=" + path}
	other.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65533, Gid: 65534}}
	in, err := other.StdinPipe()
	must(t, err)
	out, err := other.StdoutPipe()
	must(t, err)
	must(t, other.Start())
	if said, err := bufio.NewReader(out).ReadString('\n'); err != nil || !strings.HasSuffix(said, " <nil>\n") {
		t.Errorf("%q, %v", said, err)
	}
	for range 3 {
		if _, err := client.Status(t.Context(), path); err != nil {
			t.Errorf("beside another user's: %v", err)
		}
	}
	in.Close()
	must(t, other.Wait())
}

// If answers are not read as fast as they come, the request ends. It does not wait for the
// reader.
func TestSlowPingReader(t *testing.T) {
	c := client.New(listen(t, fake{}))
	err := c.Ping(t.Context(), api.PingRequest{Peer: "six0", Count: math.MaxInt}, func(api.PingReply) error { return nil })
	if err == nil || err.Error() != "the answers are read too slowly" {
		t.Error(err)
	}
}

// A stream above the limit gets an error; other requests are answered.
func TestTooManyStreams(t *testing.T) {
	path := listen(t, fake{})
	ctx, cancel := context.WithCancel(t.Context())
	var open sync.WaitGroup
	begun := make(chan struct{}, 3*control.MaxStreams)
	for range control.MaxStreams {
		c := client.New(path)
		open.Go(func() {
			_ = c.Events(ctx, func(api.Event) error { begun <- struct{}{}; return nil }) // ends with ctx
		})
	}
	for range 3 * control.MaxStreams {
		<-begun
	}
	c := client.New(path)
	none := func(api.Event) error { return errors.New("an event") }
	if err := c.Events(t.Context(), none); err == nil || err.Error() != "32 streams (events, captures, pings) are already open, which is the limit: end one of them" {
		t.Error(err)
	}
	if _, err := c.Status(t.Context(), ""); err != nil {
		t.Error(err)
	}
	cancel()
	open.Wait()
	waitFor(t, "a stream is served again", func() bool {
		err := c.Events(t.Context(), none)
		return err.Error() == "an event"
	})
}

// Many concurrent requests are all answered, even more than are served at a time.
func TestConcurrentRequests(t *testing.T) {
	path := listen(t, fake{})
	var all sync.WaitGroup
	for range 4 * control.MaxConns {
		all.Go(func() {
			if _, err := client.Status(t.Context(), path); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
}

// The program that answers may not be sixfourd, or may have another API.
func TestOtherServers(t *testing.T) {
	for _, c := range []struct{ answer, want string }{
		{"HTTP/1.1 404 Not Found\r\nServer: sixfourd/0.9\r\nContent-Length: 5\r\n\r\nnone\n", "belongs to sixfourd/0.9, which this sixfourctl "},
		{"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "belongs to something else, or an older sixfourd, which"},
		{"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", "invalid character"},
		{"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{", "ended before its answer was complete"},
		{"220 mail.example ESMTP\r\n", "malformed HTTP"},
		{"", "ended before its answer was complete"},
	} {
		path := filepath.Join(t.TempDir(), "s")
		l, err := net.Listen("unix", path)
		must(t, err)
		var served sync.WaitGroup
		served.Go(func() {
			for {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				_, _ = http.ReadRequest(bufio.NewReader(conn)) // the request does not matter
				_, _ = io.WriteString(conn, c.answer)
				conn.Close()
			}
		})
		if _, err := client.Status(t.Context(), path); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v", c.answer, err)
		}
		l.Close()
		served.Wait()
	}
}

// Every request gets an answer, and every error has the right form.
func FuzzRequest(f *testing.F) {
	f.Add("GET", "/v1/status?tunnel=six0", []byte{})
	f.Add("POST", "/v1/ping", []byte(`{"peer":"six0","count":3,"interval":"1s"}`))
	f.Add("POST", "/v1/mtu", []byte(`{"peer":"six0"}`))
	f.Add("POST", "/v1/reload", []byte{})
	f.Add("GET", "/v1/events?%", []byte("x"))
	f.Fuzz(func(t *testing.T, method, target string, body []byte) {
		ctx, cancel := context.WithCancel(t.Context())
		req, err := http.NewRequestWithContext(ctx, method, target, strings.NewReader(string(body)))
		if err != nil || !strings.HasPrefix(target, "/") {
			cancel()
			return
		}
		w := httptest.NewRecorder()
		cancel() // ends a stream at once
		control.Handler(fake{events: func(context.Context, func(api.Event) bool) {}}).ServeHTTP(w, req)
		var e struct{ Error string }
		if w.Code != http.StatusOK && (json.Unmarshal(w.Body.Bytes(), &e) != nil || e.Error == "") {
			t.Errorf("%s %s: %d %s", method, target, w.Code, w.Body)
		}
	})
}
