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
	// quiet is how long no further frame may arrive after all answers have arrived. It also
	// limits the rate of injections to less than the ten ICMP errors a second that sixfourd
	// sends to one sender.
	quiet = 110 * time.Millisecond

	// silent is the same for frames without an answer, which would show that the router has
	// seen the frame.
	silent = 300 * time.Millisecond

	// unwilling is how long to wait for answers after one was missing: the resolution of a
	// neighbour fails after three seconds, and that answer must not be confused with a
	// later one.
	unwilling = 4 * time.Second
)

// replay injects a recorded frame and compares the frames that the router then sends.
func (r *router) replay(t *testing.T, s step, want answers) {
	t.Helper()
	if err := r.ports[s.link].Inject(r.sent.correct(s.frame)); err != nil {
		t.Fatal(err)
	}
	frames := r.collect(want)
	if err := checkIDs(frames[wan]); err != nil {
		t.Errorf("%v: %v", s, err)
	}
	for l := range links {
		got := make([]string, len(frames[l]))
		for i, f := range frames[l] {
			got[i] = decode(f)
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

// waitLate waits for late frames.
func (r *router) waitLate(t *testing.T) {
	t.Helper()
	for l, frames := range r.collect(answers{}) {
		for _, f := range frames {
			t.Errorf("%v, after the last frame: %s", link(l), decode(f))
		}
	}
}

// collect waits for the expected number of frames, and then until no more arrive.
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
		case f := <-r.seen:
			got[f.link] = append(got[f.link], f.data)
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

// checkIDs compares the identifications of the outer packets that one injected frame caused
// with RFC 6864, which the kernel does not follow: in an atomic packet it is 0 (section
// 4.1), in any other it is not. The fragments of a packet have the same one, in IPv4, in
// IPv6 and in the IPv6 layer (RFC 8200 section 4.5).
func checkIDs(frames [][]byte) error {
	ids := map[string][]uint32{} // of fragments
	for _, f := range frames {
		ip := f[ethernetLen:]
		if ip[0]>>4 == 6 && ip[6] == protoFragment {
			ids["IPv6"] = append(ids["IPv6"], binary.BigEndian.Uint32(ip[44:]))
		}
		if ip[0]>>4 != 4 || !slices.Contains([]byte{protoIPv4, protoIPv6, protoGRE}, ip[9]) {
			continue
		}
		id, flags := binary.BigEndian.Uint16(ip[4:]), binary.BigEndian.Uint16(ip[6:])
		switch df := flags&0x4000 != 0; {
		case df && id != 0:
			return fmt.Errorf("identification %#x with DF, want 0", id)
		case !df && id == 0:
			return fmt.Errorf("identification 0 without DF")
		}
		if fragment := flags&0x3fff != 0; fragment {
			ids["IPv4"] = append(ids["IPv4"], uint32(id))
		} else if ip[9] == protoIPv6 && len(ip) >= 68 && ip[26] == protoFragment {
			ids["IPv6"] = append(ids["IPv6"], binary.BigEndian.Uint32(ip[64:]))
		}
	}
	for version, ids := range ids {
		if len(slices.Compact(ids)) > 1 {
			return fmt.Errorf("%s fragments with identifications %#x", version, ids)
		}
	}
	return nil
}

// noise are packets that a router sends by itself: multicast listener reports, neighbour
// and router discovery, through the tunnel or outside it; and sixfourd's probes of the
// peer, through the tunnel or, if that has no IPv6 layer, outside it.
var noise = regexp.MustCompile(`^[^{]*\| ICMP6 (13[0-6]|143)/|^IP4 [^{]*\| IP6 (fc00::1|fe80::cb00:7101)>[^{]*\| ICMP6 128/|^IP4 203\.0\.113\.1>[^|]*\| ICMP 8/|^IP6 2001:db8:ffff::1>[^|]*\| ICMP6 128/`)

func isNoise(frame []byte) bool { return noise.MatchString(decode(frame)) }

// sequenced subtracts the numbers of noise packets from a frame's GRE sequence number (RFC
// 2890 section 2.2), and returns how many such numbers the frame has.
func sequenced(frame []byte, noisy uint32) uint32 {
	ip := frame[ethernetLen:]
	if ip[0]>>4 != 4 || ip[9] != protoGRE || ip[20]&0x10 == 0 {
		return 0
	}
	gre := ip[20:]
	at := 4 // after the checksum and the key, if they are there
	for _, flag := range []byte{0x80, 0x20} {
		if gre[0]&flag != 0 {
			at += 4
		}
	}
	sound := sum(0, gre) == 0xffff
	binary.BigEndian.PutUint32(gre[at:], binary.BigEndian.Uint32(gre[at:])-noisy)
	if gre[0]&0x80 != 0 && sound {
		setSum(gre, 4, 0)
	}
	return 1
}
