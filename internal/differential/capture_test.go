package differential

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/gopacket/pcapgo"
)

// link is one side of the router.
type link int

const (
	lan link = iota
	wan
	links
)

func (l link) String() string { return [...]string{"LAN", "WAN"}[l] }

// marks are the names of frames by their source MAC address in the texts of the recordings;
// see testdata/golden/README.md. The destination of a frame is one of these addresses, too.
var marks = map[string]struct {
	text     string
	link     link
	injected bool // into the router; otherwise the router sent it
}{
	"\x02\x00\x00\x00\x0a\xfe": {"L>", lan, true},
	"\x02\x00\x00\x00\x0a\x01": {">L", lan, false},
	"\x02\x00\x00\x00\x0b\xfe": {"W>", wan, true},
	"\x02\x00\x00\x00\x0b\x01": {">W", wan, false},
}

// step is one injected frame and what the kernel sent before the next one.
type step struct {
	n       int // number of the injected frame in the recording, from 1
	label   string
	link    link
	frame   []byte
	answers answers
}

func (s step) String() string { return fmt.Sprintf("frame %d (%s)", s.n, s.label) }

// answers are the texts of the packets that left on each link, in order. There is no order
// between the links, because two threads may send them.
type answers [links][]string

func golden(name string) string { return filepath.Join("..", "..", "testdata", "golden", name) }

// readFrames reads the Ethernet frames of a recording.
func readFrames(t *testing.T, capture string) [][]byte {
	t.Helper()
	b, err := os.ReadFile(golden(capture + ".pcap"))
	if err != nil {
		t.Fatal(err)
	}
	r, err := pcapgo.NewReader(bytes.NewReader(b))
	if err != nil {
		t.Fatalf("%s: %v", capture, err)
	}
	var frames [][]byte
	for {
		data, _, err := r.ReadPacketData()
		if errors.Is(err, io.EOF) {
			return frames
		}
		if err != nil {
			t.Fatalf("%s: frame %d: %v", capture, len(frames)+1, err)
		}
		frames = append(frames, data)
	}
}

// text is the text file of a recording: a line for each frame, and labels.
type text struct {
	lines  []string
	labels []string // the label above each line
}

func readText(t *testing.T, capture string) (x text) {
	t.Helper()
	b, err := os.ReadFile(golden(capture + ".txt"))
	if err != nil {
		t.Fatal(err)
	}
	label := ""
	for s := bufio.NewScanner(bytes.NewReader(b)); s.Scan(); {
		if l, ok := strings.CutPrefix(s.Text(), "-- "); ok {
			label = l
			continue
		}
		x.lines = append(x.lines, s.Text())
		x.labels = append(x.labels, label)
	}
	return x
}

// readSteps reads a recording.
func readSteps(t *testing.T, capture string) []step {
	t.Helper()
	labels := readText(t, capture).labels
	frames := readFrames(t, capture)
	if len(labels) != len(frames) || len(frames) == 0 {
		t.Fatalf("%s: %d frames, %d lines of text", capture, len(frames), len(labels))
	}
	var steps []step
	for i, f := range frames {
		m, ok := marks[string(f[6:12])]
		switch {
		case !ok:
			t.Fatalf("%s: frame %d is from %x", capture, i+1, f[6:12])
		case m.injected:
			steps = append(steps, step{n: i + 1, label: labels[i], link: m.link, frame: f})
		case len(steps) == 0:
			t.Fatalf("%s: an answer before the first injection", capture)
		default:
			a := &steps[len(steps)-1].answers[m.link]
			*a = append(*a, decode(f))
		}
	}
	return steps
}
