package fair

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const patience = 30 * time.Second

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func serveUnix(t *testing.T, most int, client func(net.Conn) string) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "s")
	inner, err := net.Listen("unix", path)
	must(t, err)
	l := NewListener(inner, most, client)
	s := &http.Server{ConnContext: l.ConnContext, Handler: Serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, Client(r.Context()))
	}))}
	ended := make(chan struct{})
	go func() { defer close(ended); _ = s.Serve(l) }()
	t.Cleanup(func() { s.Close(); <-ended })
	return path
}

// ask makes a request on a connection of its own.
func ask(t *testing.T, path string) string {
	t.Helper()
	c, err := net.Dial("unix", path)
	must(t, err)
	defer c.Close()
	must(t, c.SetDeadline(time.Now().Add(patience)))
	_, err = io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
	must(t, err)
	b, err := io.ReadAll(c)
	must(t, err)
	_, body, _ := strings.Cut(string(b), "\r\n\r\n")
	return body
}

// TestListener: many connections of one client, idle or slow, exclude neither another
// client nor the client itself.
func TestListener(t *testing.T) {
	n := 0
	path := serveUnix(t, 4, func(net.Conn) string { // with a single accepting place there is no race
		n++
		if n > 40 {
			return "other"
		}
		return "greedy"
	})
	var idle []net.Conn
	for i := range 39 {
		c, err := net.Dial("unix", path)
		must(t, err)
		defer c.Close()
		_, _ = io.WriteString(c, []string{"", "GET "}[i%2])
		idle = append(idle, c)
	}
	if got := ask(t, path); got != "greedy" {
		t.Errorf("%q", got)
	}
	if got := ask(t, path); got != "other" {
		t.Errorf("%q", got)
	}
	must(t, idle[0].SetReadDeadline(time.Now().Add(patience)))
	if _, err := idle[0].Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("the oldest idle connection: %v", err)
	}
}

func TestByUser(t *testing.T) {
	if got := ask(t, serveUnix(t, 1, ByUser)); got != fmt.Sprint(os.Geteuid()) {
		t.Errorf("user %q", got)
	}
}

// addressed is a connection that has only a remote address.
type addressed struct {
	net.Conn
	from string
}

func (a addressed) RemoteAddr() net.Addr {
	addr, _ := net.ResolveTCPAddr("tcp", a.from)
	return addr
}

func TestByAddress(t *testing.T) {
	for address, want := range map[string]string{
		"192.0.2.1:5":           "192.0.2.1",
		"[::ffff:192.0.2.1]:5":  "192.0.2.1",
		"[2001:db8::1:2:3:4]:5": "2001:db8::/64",
		"[fe80::1%lo]:5":        "fe80::/64",
	} {
		if got := ByAddress(addressed{from: address}); got != want {
			t.Errorf("%s: %s, want %s", address, got, want)
		}
	}
}
