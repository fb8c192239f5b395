package main

import (
	"context"
	"encoding/xml"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		values []float64
		want   float64
	}{
		{[]float64{3}, 3},
		{[]float64{9, 1, 2}, 2},
		{[]float64{4, 1, 3, 2}, 2.5},
	} {
		if got := median(slices.Clone(c.values)); got != c.want {
			t.Errorf("median of %v is %v, not %v", c.values, got, c.want)
		}
	}
}

func TestParseCPU(t *testing.T) {
	// The name tries to look like the end of the field.
	got, err := parseCPU([]byte("42 (a) b (c)) S 1 42 42 0 -1 4194560 1 0 0 0 250 150 0 0 20 0 1 0 5 1 1"))
	if want := 4 * time.Second; err != nil || got != want {
		t.Errorf("%v, %v; not %v", got, err, want)
	}
	if _, err := parseCPU([]byte("42 (a) S")); err == nil {
		t.Error("a line that is cut off is taken")
	}
}

func TestGroup(t *testing.T) {
	for in, want := range map[string]string{"7": "7", "999": "999", "1000": "1,000", "1234567": "1,234,567", "1234.56": "1,234.56", "0.50": "0.50"} {
		if got := group(in); got != want {
			t.Errorf("%s becomes %s, not %s", in, got, want)
		}
	}
}

func TestChoose(t *testing.T) {
	got, err := choose(peers(), "wireguard-go,veth")
	if err != nil || !slices.Equal(peerNames(got), []string{"veth", "wireguard-go"}) {
		t.Errorf("%v, %v", peerNames(got), err)
	}
	if _, err := choose(peers(), "veth,kevin"); err == nil || !strings.Contains(err.Error(), "kevin") {
		t.Errorf("a name that is none: %v", err)
	}
}

// sample returns a report with a peer of each kind, one that lacks a round, and one that
// lacks all.
func sample() *report {
	r := &report{machine: machine{cpu: "Processor <9000> & more", cores: 2, kernel: "Linux 1", golang: "go1"}, date: time.Unix(0, 0), rounds: 2, seconds: 1, noisy: 1}
	for i, p := range peers() {
		res := &result{peer: p, version: "1"}
		for round := range 2 {
			v := float64(i + round + 1)
			res.turns = append(res.turns, figures{"tcp1": v, "pps": 1e5 * v, "reordered": v - 1, "p50": 10 * v})
		}
		r.results = append(r.results, res)
	}
	r.results[0].turns[0]["tcp1"] = 100 // the wire
	for _, res := range r.results {
		switch res.name {
		case "tinc":
			res.turns, res.failed = res.turns[:1], []string{"round 2: it fell over"}
		case "socat":
			res.turns, res.version, res.failed = nil, "", []string{"no such\nprogram"}
		}
	}
	return r
}

func TestMarkdown(t *testing.T) {
	text := sample().markdown()
	for _, want := range []string{
		encryption, "Processor <9000> & more", "Left out: socat: no such; program", "Missing of tinc: round 2: it fell over",
		"In 1 turns other programs", "| wireguard-go (encrypts) | 1.00 |", "| vxlan (kernel) | 2.50 |",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing in\n%s", want, text)
		}
	}
	var columns int
	for _, line := range strings.Split(text, "\n") {
		n := strings.Count(line, "|")
		switch {
		case n == 0:
			columns = 0
		case columns == 0:
			columns = n
		case n != columns:
			t.Errorf("%d cells and not %d in %s", n-1, columns-1, line)
		}
	}
}

func TestMarkdownWithoutBase(t *testing.T) {
	r := sample()
	r.find(base).turns = nil
	if text := r.markdown(); !strings.Contains(text, "None: wireguard-go was not measured") {
		t.Error(text)
	}
}

func TestChart(t *testing.T) {
	svg := sample().svg()
	for d := xml.NewDecoder(strings.NewReader(svg)); ; {
		_, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("%v in\n%s", err, svg)
		}
	}
	for _, want := range []string{">tinc<", encryption, "Linux 1", "without a tunnel: 51.00"} {
		if !strings.Contains(svg, want) {
			t.Errorf("%q is missing", want)
		}
	}
	if strings.Contains(svg, ">socat<") {
		t.Error("a peer without figures has a bar")
	}
}

// TestTurn: a turn of the wire itself runs every load, also while other tests use the
// processors.
func TestTurn(t *testing.T) {
	f, err := turn(t.Context(), peers()[0], t.TempDir(), time.Second)
	if err != nil {
		t.Fatalf("%v (it needs root)", err)
	}
	for _, m := range metrics {
		if _, ok := f[m.key]; !ok && m.key != "cpu" && m.key != "memory" {
			t.Errorf("no %s in %v", m.key, f)
		}
	}
}

func TestTurnEnds(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	start := time.Now()
	if _, err := turn(ctx, peers()[0], t.TempDir(), time.Minute); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v (it needs root)", err)
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("it went on for %v", took)
	}
}

// TestBrokenDaemon: a daemon's last output is reported as the reason.
func TestBrokenDaemon(t *testing.T) {
	p := peer{name: "broken", kind: open, up: func(_ context.Context, l *lab) error {
		return l.start(0, "sh", "-c", "echo no luck today; exit 3")
	}}
	_, err := turn(t.Context(), p, t.TempDir(), 100*time.Millisecond)
	if err == nil || !strings.Contains(err.Error(), "no luck today") || !strings.Contains(err.Error(), "exit status 3") {
		t.Errorf("%v", err)
	}
}
