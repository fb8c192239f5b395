//go:build interop

package interop

import (
	"bytes"
	"context"
	"testing"
	"time"

	"sixfour/internal/rig"
)

// A keepalive as routers send it: a packet that contains an answer, which comes back only
// if the other end decapsulates and forwards it. The kernel's GRE does neither unless it
// may accept its own address as a source; we do both.
func TestKeepalive(t *testing.T) {
	keepalive := []byte{
		0x45, 0, 0, 48, 0, 0x11, 0, 0, 255, 47, 0x43, 0x89, 203, 0, 113, 1, 203, 0, 113, 2, // IPv4
		0, 0, 0x08, 0x00, // GRE: IPv4
		0x45, 0, 0, 24, 0, 0x10, 0, 0, 255, 47, 0x43, 0xa2, 203, 0, 113, 2, 203, 0, 113, 1, // IPv4, backwards
		0, 0, 0, 0, // GRE: nothing
	}
	answer := []byte{
		0x45, 0, 0, 24, 0, 0x10, 0, 0, 254, 47, 0x44, 0xa2, 203, 0, 113, 2, 203, 0, 113, 1, // IPv4
		0, 0, 0, 0, // GRE: nothing
	}
	kernel(t, `
		ip link add far type gre`+over4+inside4)
	socket := daemon(t, lab.ns, `mode = "gre"`+ends4+own4+`
		keepalive = "0s"`) // it would send some itself
	c, err := lab.ns.Capture(tap)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	const times = 3
	for range times {
		raw(t, keepalive)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		f, err := c.Find(ctx, func(f rig.Frame) bool {
			p, ok := dissect(f.Packet())
			return ok && f.Outgoing && p.version == 4 && p.protocol == gre4.protocol
		})
		cancel()
		if err != nil {
			t.Fatal(err)
		}
		if p := f.Packet(); !bytes.Equal(p[:min(len(p), len(answer))], answer) {
			t.Errorf("% x came back, want % x", p, answer)
		}
	}
	if s := counted(t, socket); s.Answered != times {
		t.Errorf("%d keepalives were counted, want %d", s.Answered, times)
	}
	report(t, "%d keepalives sent by the machine, all came back", times)
}
