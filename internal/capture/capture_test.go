package capture_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"sixfour/encap/drop"
	"sixfour/internal/capture"
	"sixfour/internal/decode"
	"sixfour/internal/pcapng"
)

// sink is a reader that can stop reading.
type sink struct {
	mu      sync.Mutex
	buf     bytes.Buffer
	flushed int
	gate    chan struct{} // nil: it does not stop
	err     error
}

func (s *sink) Write(p []byte) (int, error) {
	if s.gate != nil {
		<-s.gate
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return 0, s.err
	}
	return s.buf.Write(p)
}

func (s *sink) Flush() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.flushed = s.buf.Len()
	return nil
}

// read returns what the sink was given, one text for each packet, and the final comment.
func (s *sink) read(t *testing.T) (packets []string, end []pcapng.Statistics) {
	t.Helper()
	s.mu.Lock()
	all := bytes.Clone(s.buf.Bytes()[:s.flushed])
	s.mu.Unlock()
	r, err := decode.NewReader(bytes.NewReader(all))
	if err != nil {
		t.Fatal(err)
	}
	first := uint64(0)
	var last time.Time
	for {
		p, i, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if first == 0 {
			first = p.ID
		}
		if p.Time.Before(last) {
			t.Errorf("%v comes after %v", p.Time, last)
		}
		last = p.Time
		text := fmt.Sprintf("%s %v %s %d/%d", i.Name, p.Direction, p.Data, len(p.Data), p.Length)
		for _, c := range p.Comments {
			text += " (" + c + ")"
		}
		if p.Dropped > 0 {
			text += fmt.Sprintf(" lost %d", p.Dropped)
		}
		packets = append(packets, fmt.Sprintf("%d %s", p.ID-first, text))
	}
	blocks := pcapng.NewBlocks(bytes.NewReader(all))
	for {
		b, err := blocks.Next()
		if err != nil {
			return packets, end
		}
		if b.Type == pcapng.BlockStatistics {
			s, err := b.Statistics()
			if err != nil {
				t.Fatal(err)
			}
			end = append(end, s)
		}
	}
}

func begin(t *testing.T, r capture.Request) *capture.Tap {
	t.Helper()
	r.Tunnel = "t"
	tap, err := capture.New(r)
	if err != nil {
		t.Fatal(err)
	}
	return tap
}

func b(s string) capture.Bytes { return capture.Bytes{Head: []byte(s)} }

// shown are the packets that the tests below show.
func shown(tap *capture.Tap) {
	show := func(p capture.Packet) {
		p.ID = capture.NextID()
		tap.Show(&p)
	}
	show(capture.Packet{Direction: pcapng.Outbound, Inner: capture.Bytes{Head: []byte("E-in"), Body: []byte("ner")}, Outer: capture.Bytes{Head: []byte("E-outer"), Body: []byte("inner")}})
	show(capture.Packet{Direction: pcapng.Inbound, Outer: b("E-spoof"), Inner: b("`spoof"), Reason: drop.Spoof, Path: 2})
	show(capture.Packet{Direction: pcapng.Outbound, Inner: b("E-nowhere"), Reason: drop.NoRoute, Err: errors.New("unreachable"), Count: 3})
	show(capture.Packet{Direction: pcapng.Outbound, Inner: b("`cut"), Fragments: [][]byte{[]byte("E-one"), []byte("E-two")}})
	show(capture.Packet{Direction: pcapng.Inbound, Outer: b("E-stray"), Reason: drop.ForeignSource, Note: "noted"})
}

func TestShown(t *testing.T) {
	spoof := " (dropped: spoof: " + drop.Spoof.Means() + ") (path 2)"
	const nowhere = " (dropped: no_route: there is no route to the peer, or our outer address is missing; the log says which (unreachable); this is 3 packets that the kernel handed over as one)"
	const stray = " (dropped: foreign_source: the outer source, or that of the IPv6 layer, is not the configured peer; noted)"
	inner := []string{"0 t inner out E-inner 7/7", "1 t inner in `spoof 6/6" + spoof, "2 t inner out E-nowhere 9/9" + nowhere, "3 t inner out `cut 4/4"}
	outer := []string{"0 t outer out E-outerinner 12/12", "1 t outer in E-spoof 7/7" + spoof, "3 t outer out E-one 5/5", "3 t outer out E-two 5/5", "4 t outer in E-stray 7/7" + stray}
	for _, c := range []struct {
		name    string
		request capture.Request
		want    []string
	}{
		{"both", capture.Request{}, []string{inner[0], outer[0], inner[1], outer[1], inner[2], inner[3], outer[2], outer[3], outer[4]}},
		{"inner", capture.Request{Sides: capture.Inner}, inner},
		{"outer", capture.Request{Sides: capture.Outer}, outer},
		{"snap", capture.Request{Sides: capture.Inner, Snap: 3, Filter: "len = 7"}, []string{"0 t inner out E-i 3/7"}},
		{"count", capture.Request{Count: 2}, []string{inner[0], outer[0], inner[1], outer[1]}},
		{"count of a packet in fragments", capture.Request{Count: 1, Filter: "ip6 and len = 4"}, []string{"0 t inner out `cut 4/4", "0 t outer out E-one 5/5", "0 t outer out E-two 5/5"}},
		{"chosen by the inner one", capture.Request{Filter: "ip6 and len = 6"}, []string{"0" + inner[1][1:], "0" + outer[1][1:]}},
		{"chosen by the outer one", capture.Request{Filter: "len = 12"}, []string{inner[0], outer[0]}},
		{"chosen among the outer ones", capture.Request{Filter: "ip6", Sides: capture.Outer}, nil},
		{"of a path", capture.Request{Filter: "path 2"}, []string{"0" + inner[1][1:], "0" + outer[1][1:]}},
		{"of no path", capture.Request{Filter: "path 1"}, nil},
		{"inbound", capture.Request{Filter: "inbound"}, []string{"0" + inner[1][1:], "0" + outer[1][1:], "3" + outer[4][1:]}},
	} {
		t.Run(c.name, func(t *testing.T) {
			tap := begin(t, c.request)
			shown(tap)
			tap.End(nil)
			tap.Show(&capture.Packet{Inner: b("after the end")})
			var out sink
			if err := tap.Stream(t.Context(), &out); err != nil {
				t.Fatal(err)
			}
			got, end := out.read(t)
			if strings.Join(got, "\n") != strings.Join(c.want, "\n") {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(c.want, "\n"))
			}
			received := 0
			for _, s := range end {
				received += int(s.Received)
			}
			if received != len(got) || len(end) == 0 {
				t.Errorf("%+v of %d packets", end, len(got))
			}
		})
	}
}

// The context ends a capture, or the removal of the tunnel does, with a reason for the reader.
func TestEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	tap := begin(t, capture.Request{})
	var out sink
	done := make(chan error)
	go func() { done <- tap.Stream(ctx, &out) }()
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	removed := errors.New("tunnel t was removed")
	tap = begin(t, capture.Request{})
	tap.End(removed)
	tap.End(errors.New("again"))
	out = sink{}
	if err := tap.Stream(t.Context(), &out); !errors.Is(err, removed) {
		t.Error(err)
	}
	if _, end := out.read(t); len(end) != 2 || end[0].Comment != removed.Error() {
		t.Errorf("%+v", end)
	}
	gone := errors.New("gone")
	if err := begin(t, capture.Request{}).Stream(t.Context(), &sink{err: gone}); !errors.Is(err, gone) {
		t.Error(err)
	}
}

// Packets that a stopped reader cannot take are counted, and the count is reported when it
// reads again. Goroutines that show packets never wait.
func TestReaderStops(t *testing.T) {
	tap := begin(t, capture.Request{Sides: capture.Inner})
	out := sink{gate: make(chan struct{})}
	done := make(chan error)
	go func() { done <- tap.Stream(t.Context(), &out) }()
	const packets = 1000
	big := capture.Packet{Inner: capture.Bytes{Head: make([]byte, 60000)}}
	for range packets {
		tap.Show(&big)
	}
	close(out.gate)
	tap.Show(&capture.Packet{Inner: b("last")}) // there may or may not be room again
	tap.End(nil)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	got, end := out.read(t)
	if lost := int(end[len(end)-1].Lost); lost == 0 || lost+len(got) != packets+1 {
		t.Errorf("%d were lost and %d seen of %d", lost, len(got), packets+1)
	}
	if total := len(got) * 60000; total > 2*4<<20 {
		t.Errorf("%d bytes waited", total)
	}
}

// Many goroutines show packets concurrently.
func TestManyShow(t *testing.T) {
	tap := begin(t, capture.Request{})
	var out sink
	done := make(chan error)
	go func() { done <- tap.Stream(t.Context(), &out) }()
	var all sync.WaitGroup
	const each = 500
	for range 4 {
		all.Go(func() {
			for range each {
				tap.Show(&capture.Packet{Direction: pcapng.Inbound, Inner: b("inner"), Outer: b("outer-inner")})
			}
		})
	}
	all.Wait()
	tap.End(nil)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	got, end := out.read(t)
	if len(got)+2*int(end[0].Lost) != 2*4*each {
		t.Errorf("%d seen, %d lost", len(got), end[0].Lost)
	}
}

func TestRequests(t *testing.T) {
	for _, r := range []capture.Request{{Snap: -1}, {Snap: pcapng.MaxSnap + 1}, {Filter: "tcp prot 80"}} {
		if _, err := capture.New(r); err == nil {
			t.Errorf("%+v", r)
		}
	}
}
