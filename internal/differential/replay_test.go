package differential

import (
	"encoding/binary"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

const (
	// quiet is how long nothing more may come once all answers are there. It
	// also keeps the injections below the ten ICMP errors a second that
	// sixfourd allows itself.
	quiet = 110 * time.Millisecond

	// silent is the same where there is no answer that would show that the
	// router has seen the frame.
	silent = 300 * time.Millisecond

	// unwilling is how long an answer is waited for after one failed to come: a
	// neighbour is given up after three seconds, and that answer must not be
	// taken for a later one's.
	unwilling = 4 * time.Second
)

// replay injects a recorded frame and compares what the router sends then.
func (r *router) replay(t *testing.T, s step, want answers) {
	t.Helper()
	if err := r.ports[s.link].Inject(makeTrue(s.frame)); err != nil {
		t.Fatal(err)
	}
	packets := r.collect(want)
	if err := checkIDs(packets[wan]); err != nil {
		t.Errorf("%v: %v", s, err)
	}
	for l := range links {
		got := make([]string, len(packets[l]))
		for i, p := range packets[l] {
			got[i] = decode(p)
		}
		switch {
		case slices.Equal(got, want[l]):
		case slices.Equal(got, s.answers[l]):
			t.Errorf("%v, %v: as the kernel, though differences_test.go says otherwise\n got %s\nwant %s", s, l, list(got), list(want[l]))
		default:
			t.Errorf("%v, %v\n   got %s\n  want %s\nkernel %s", s, l, list(got), list(want[l]), list(s.answers[l]))
		}
	}
}

// silence lets come what comes late.
func (r *router) silence(t *testing.T) {
	t.Helper()
	for l, packets := range r.collect(answers{}) {
		for _, p := range packets {
			t.Errorf("%v, after the last frame: %s", link(l), decode(p))
		}
	}
}

// collect waits for as many packets as are wanted, and then for quiet.
func (r *router) collect(want answers) (got [links][][]byte) {
	missing := func() bool { return len(got[lan]) < len(want[lan]) || len(got[wan]) < len(want[wan]) }
	pause := quiet
	if !missing() {
		pause = silent
	}
	for deadline := time.Now().Add(r.patience); ; {
		wait := pause
		if missing() {
			wait = time.Until(deadline)
		}
		select {
		case p := <-r.seen:
			got[p.link] = append(got[p.link], p.ip)
		case <-time.After(wait):
			if missing() {
				r.patience = unwilling
			}
			return got
		}
	}
}

func list(lines []string) string {
	if len(lines) == 0 {
		return "nothing"
	}
	return strings.Join(lines, "\n       ")
}

// checkIDs holds the identifications of the outer packets that one frame drew
// against RFC 6864, which the kernel's do not follow: an atomic packet has none,
// 0 (section 4.1); any other has one, and the fragments of a packet share it.
func checkIDs(packets [][]byte) error {
	shared := -1
	for _, p := range packets {
		if p[0]>>4 != 4 || !slices.Contains([]byte{protoIPv4, protoIPv6, protoGRE}, p[9]) {
			continue
		}
		id, flags := int(binary.BigEndian.Uint16(p[4:])), binary.BigEndian.Uint16(p[6:])
		df, fragment := flags&0x4000 != 0, flags&0x3fff != 0
		switch {
		case df && id != 0:
			return fmt.Errorf("identification %#x with DF, want 0", id)
		case !df && id == 0:
			return fmt.Errorf("identification 0 without DF")
		case fragment && shared >= 0 && shared != id:
			return fmt.Errorf("fragments with identifications %#x and %#x", shared, id)
		case fragment:
			shared = id
		}
	}
	return nil
}

// noise is what a router sends of its own accord: multicast listener reports,
// neighbour and router discovery, through the tunnel or beside it; and the echo
// requests by which sixfourd asks whether the peer lives.
var noise = regexp.MustCompile(`^[^{]*\| ICMP6 (13[0-6]|143)/|^IP4 [^{]*\| IP6 (fc00::1|fe80::cb00:7101)>[^{|]*\| ICMP6 128/`)

func isNoise(ip []byte) bool { return noise.MatchString(decode(ip)) }
