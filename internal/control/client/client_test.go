package client

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"sixfour/internal/api"
	"sixfour/internal/capture"
)

// answering returns a client for a daemon that answers everything with the same bytes.
func answering(answer []byte) *Client {
	return &Client{"s", func(context.Context) (net.Conn, error) {
		ours, daemon := net.Pipe()
		go func() {
			defer daemon.Close()
			if _, err := http.ReadRequest(bufio.NewReader(daemon)); err == nil {
				_, _ = daemon.Write(answer) // fails if the client has enough
			}
		}()
		return ours, nil
	}}
}

// Whatever a daemon answers, the client returns an error or a value, and ends.
func FuzzClient(f *testing.F) {
	head := "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: Sixfour-Error\r\n\r\n"
	for _, body := range []string{"", "{}", `{"tunnels":[{"name":"six0","in":{"drops":{"x":1}}}]}`, `{"version":"1","api":1}`, `{"seq":1}` + "\n" + `{"error":"x"}` + "\n", `{"path_mtu":1480}`, "\x0a\x0d\x0d\x0a", strings.Repeat("[", 20000)} {
		f.Add([]byte("HTTP/1.1 200 OK\r\nContent-Length: " + fmt.Sprint(len(body)) + "\r\n\r\n" + body))
		f.Add([]byte(head + fmt.Sprintf("%x\r\n%s\r\n0\r\nSixfour-Error: gone\r\n\r\n", len(body), body)))
		f.Add([]byte("HTTP/1.1 422 No\r\n\r\n" + body))
	}
	f.Fuzz(func(t *testing.T, answer []byte) {
		c := answering(answer)
		_, _ = c.Status(t.Context(), "")
		_, _ = c.Reload(t.Context())
		_ = c.Events(t.Context(), func(api.Event) error { return nil })
		_ = c.Ping(t.Context(), api.PingRequest{}, func(api.PingReply) error { return nil })
		_, _ = c.ProbeMTU(t.Context(), "x", func(api.MTUProbe) error { return nil })
		if stream, err := c.Capture(t.Context(), capture.Request{}); err == nil {
			_, _ = io.Copy(io.Discard, stream)
			stream.Close()
		}
	})
}
