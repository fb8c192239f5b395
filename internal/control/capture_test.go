package control_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"sixfour/internal/capture"
	"sixfour/internal/control/client"
	"sixfour/internal/decode"
	"sixfour/internal/pcapng"
)

var errRemoved = errors.New("tunnel six1 was removed")

// Capture shows three packets and ends. Tunnel six1 is removed.
func (fake) Capture(ctx context.Context, r capture.Request, out capture.Sink) error {
	if !strings.HasPrefix(r.Tunnel, "six") {
		return fmt.Errorf("there is no tunnel %q: choose six0, six1", r.Tunnel)
	}
	tap, err := capture.New(r)
	if err != nil {
		return err
	}
	for range 3 {
		tap.Show(&capture.Packet{Direction: pcapng.Inbound, Inner: capture.Bytes{Head: append([]byte{0x45, 0, 0, 20}, make([]byte, 16)...)}})
	}
	switch r.Tunnel {
	case "six1":
		tap.End(errRemoved)
	default:
		tap.End(nil)
	}
	return tap.Stream(ctx, out)
}

// A request has all parameters of a capture; the capture ends with the daemon's reason, and an
// invalid request is refused before it starts.
func TestCapture(t *testing.T) {
	c := client.New(listen(t, fake{}))
	for _, test := range []struct {
		request capture.Request
		packets int
		err     string
	}{
		{capture.Request{Tunnel: "six0"}, 3, ""},
		{capture.Request{Tunnel: "six0", Sides: capture.Inner, Filter: "ip and not tcp port 80", Snap: 2}, 3, ""},
		{capture.Request{Tunnel: "six0", Sides: capture.Outer}, 0, ""},
		{capture.Request{Tunnel: "six0", Filter: "ip6"}, 0, ""},
		{capture.Request{Tunnel: "six0", Count: 2}, 2, ""},
		{capture.Request{Tunnel: "six1"}, 3, "tunnel six1 was removed"},
		{capture.Request{Tunnel: "nine"}, 0, `there is no tunnel "nine": choose six0, six1`},
		{capture.Request{Tunnel: "six0", Filter: "tcp prot 80"}, 0, `filter "tcp prot 80", column 5: "and" or "or" is missing before "prot"`},
		{capture.Request{Tunnel: "six0", Snap: -1}, 0, "snap length"},
	} {
		packets := 0
		stream, err := c.Capture(t.Context(), test.request)
		if err == nil {
			packets, err = count(stream)
			stream.Close()
		}
		if packets != test.packets || (err == nil) != (test.err == "") || err != nil && !strings.Contains(err.Error(), test.err) {
			t.Errorf("%+v: %d packets and %v, want %d and %q", test.request, packets, err, test.packets, test.err)
		}
	}
}

func count(from io.Reader) (n int, err error) {
	r, err := decode.NewReader(from)
	if err != nil {
		return 0, err
	}
	for {
		if _, _, err = r.Next(); errors.Is(err, io.EOF) {
			return n, nil
		} else if err != nil {
			return n, err
		}
		n++
	}
}
