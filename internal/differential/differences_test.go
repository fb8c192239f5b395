package differential

import (
	"slices"
	"strings"
	"testing"
)

// difference is one way in which sixfourd does otherwise than the kernel, on
// purpose: the answers to some of a recording's frames.
type difference struct {
	captures []string
	frames   []int // numbers of the injected frames
	link     link
	instead  rewrite // of what the kernel answered on that link
	why      string
}

// rewrite makes our answers of the kernel's.
type rewrite func(kernel []string) []string

// The errors that become of errors which quote the packet of 60 or 80 bytes.
const (
	unreachable6 = "IP6 2001:db8:1::1>2001:db8:1::10 tc=00 fl=rnd hl=64 plen=88 | ICMP6 1/3 arg=0x0 quote[80] {IP6 2001:db8:1::10>2001:db8:2::10 tc=00 fl=0 hl=63 plen=40 | UDP 1030>2000 len=40}"
	prohibited6  = "IP6 2001:db8:1::1>2001:db8:1::10 tc=00 fl=rnd hl=64 plen=88 | ICMP6 1/1 arg=0x0 quote[80] {IP6 2001:db8:1::10>2001:db8:2::10 tc=00 fl=0 hl=63 plen=40 | UDP 1030>2000 len=40}"
	unreachable4 = "IP4 192.168.1.1>192.168.1.10 tos=c0 ttl=64 id=rnd len=88 | ICMP 3/1 arg=0x0 quote[60] {IP4 192.168.1.10>192.168.2.10 tos=00 ttl=63 id=101e len=60 | UDP 1030>2000 len=40}"
	noNetwork4   = "IP4 192.168.1.1>192.168.1.10 tos=c0 ttl=64 id=rnd len=88 | ICMP 3/0 arg=0x0 quote[60] {IP4 192.168.1.10>192.168.2.10 tos=00 ttl=63 id=101e len=60 | UDP 1030>2000 len=40}"
	prohibited4  = "IP4 192.168.1.1>192.168.1.10 tos=c0 ttl=64 id=rnd len=88 | ICMP 3/13 arg=0x0 quote[60] {IP4 192.168.1.10>192.168.2.10 tos=00 ttl=63 id=101e len=60 | UDP 1030>2000 len=40}"
)

// differences are all that there are, but for one that is in every frame: what
// identification outer headers have, which decode hides and checkIDs looks after.
// Each is reviewed, and struck when it is no longer true: one that changes
// nothing, or whose frame is answered as the kernel did, fails the test.
var differences = []difference{
	// ECN, RFC 6040 section 4.1, normal mode: CE inside becomes CE outside. The
	// kernel still makes it ECT(0), as RFC 3168 section 9.1.1 said.
	{[]string{"sit-encap", "sit-tos-fixed"}, []int{11, 13}, wan, replace("tos=02", "tos=03", "tos=2a", "tos=2b"),
		"RFC 6040 section 4.1: CE is copied"},
	{[]string{"double-encap", "double-none-encap"}, []int{11, 13}, wan, replace("tos=02", "tos=03", "tc=02", "tc=03"),
		"RFC 6040 section 4.1: CE is copied, by each layer"},

	// ICMP errors that quote the inner packet. The kernel's sit wants to relay
	// them from an address that it may not send from, and says nothing.
	{[]string{"sit-errors"}, []int{1, 4, 7, 10, 19}, lan, answer(unreachable6),
		"RFC 4213 section 3.4: an error with enough of the inner packet becomes ICMPv6; 3/0 to 3/3 and 11/0 are 1/3"},
	{[]string{"sit-errors"}, []int{16}, lan, answer(prohibited6),
		"RFC 4443 section 3.1: 3/13 is 1/1"},
	{[]string{"double-errors4"}, []int{1}, lan, answer(noNetwork4),
		"RFC 2003 section 4.1: 3/0 must be 3/0, unless the inner destination is in a network of the encapsulator's"},
	{[]string{"double-errors4"}, []int{4, 7, 10, 19}, lan, answer(unreachable4),
		"RFC 2003 sections 4.1 and 4.4: 3/1, 3/2 (which Linux calls 3/3) and 11/0 become 3/1"},
	{[]string{"double-errors4"}, []int{16}, lan, answer(prohibited4),
		"RFC 1812 section 5.2.7.1: 3/13 is 3/13"},

	// ICMP errors that quote too little: the next packet draws one. The kernel
	// forgets Time Exceeded.
	{[]string{"sit-errors"}, []int{40}, lan, answer(unreachable6),
		"RFC 2003 section 4.4, for 6in4 as well: our packets do not arrive, so their sender is told"},
	{[]string{"double-errors4"}, []int{40}, lan, answer(unreachable4),
		"RFC 2003 section 4.4: Time Exceeded in the tunnel is Host Unreachable"},
	{[]string{"double-errors6"}, []int{31}, lan, answer(strings.NewReplacer("101e", "101f", "1030", "1031").Replace(unreachable4)),
		"RFC 2003 section 5: what holds for too short a quote from IPv4 routers holds for the IPv6 layer; the kernel's ip6tnl forgets it"},

	// Path MTU.
	{[]string{"sit-pmtu"}, []int{4}, lan, answer(tooBig6("0x564")),
		"RFC 4213 section 3.4: fragmentation needed, with the inner packet quoted, is told to its sender at once"},
	{[]string{"sit-pmtu"}, []int{20, 26}, lan, answer(tooBig6("0x500")),
		"the same; IPv6 needs no less than 1280 (RFC 4213 section 3.2.2)"},
	{[]string{"sit-pmtu"}, []int{12}, lan, replace("arg=0x564", "arg=0x500"),
		"the kernel's route remembers 1380 and hides that the path MTU is 1300 now"},
	{[]string{"sit-pmtu"}, []int{34}, wan, answer(
		"IP4 203.0.113.1>203.0.113.2 tos=00 ttl=63 id=rnd MF len=596 | IP6 2001:db8:1::10>2001:db8:2::10 tc=00 fl=0 hl=63 plen=1240 (have 536) | UDP 1019>2000 len=1240 (have 536)",
		"IP4 203.0.113.1>203.0.113.2 tos=00 ttl=63 id=rnd MF off=576 len=596 | proto 41 fragment[576]",
		"IP4 203.0.113.1>203.0.113.2 tos=00 ttl=63 id=rnd off=1152 len=148 | proto 41 fragment[128]"),
		"RFC 1191 section 5: an old router's 0 stands for the next plateau below the packet's 1500 bytes, 1492, and not for 552; and an MTU never increases by ICMP, so that it remains 600"},
	{[]string{"double-errors6"}, []int{38}, lan, answer(),
		"RFC 2473 section 7.2 (b): DF is clear, so the sender is told nothing"},
	{[]string{"double-errors6"}, []int{38}, wan, answer(
		"IP4 203.0.113.1>203.0.113.2 tos=00 ttl=64 id=rnd DF len=1420 | IP6 fc00::1>fc00::2 tc=00 fl=rnd hl=64 plen=1360 | FRAG off=0 mf=1 | DSTOPT 040104010100 | IP4 192.168.1.10>192.168.2.10 tos=00 ttl=63 id=101e len=1432 (have 1344) | UDP 1030>2000 len=1412 (have 1324)",
		"IP4 203.0.113.1>203.0.113.2 tos=00 ttl=64 id=rnd DF len=156 | IP6 fc00::1>fc00::2 tc=00 fl=rnd hl=64 plen=96 | FRAG off=1352 mf=0 | proto 60 fragment[88]"),
		"RFC 2473 section 7.2 (b): DF is clear, so the tunnel's IPv6 packet is fragmented to the path MTU of 1400"},
}

// tooBig6 is the packet too big that an error about a full-size packet becomes,
// of which the error quoted 80 bytes.
func tooBig6(mtu string) string {
	return "IP6 2001:db8:1::1>2001:db8:1::10 tc=00 fl=rnd hl=64 plen=88 | ICMP6 2/0 arg=" + mtu +
		" quote[80] {IP6 2001:db8:1::10>2001:db8:2::10 tc=00 fl=0 hl=63 plen=1440 (have 40) | UDP 1030>2000 len=1440 (have 40)}"
}

// answer is what we send, whatever the kernel sent.
func answer(lines ...string) rewrite { return func([]string) []string { return lines } }

// replace is what the kernel sent, with pairs of old and new words.
func replace(oldnew ...string) rewrite {
	return func(kernel []string) []string {
		ours := make([]string, len(kernel))
		for i, line := range kernel {
			ours[i] = strings.NewReplacer(oldnew...).Replace(line)
		}
		return ours
	}
}

// expect returns what we should answer to each step of a recording.
func expect(t *testing.T, capture string, steps []step) []answers {
	t.Helper()
	expected := make([]answers, len(steps))
	for i, s := range steps {
		expected[i] = s.answers
	}
	for _, d := range differences {
		if !slices.Contains(d.captures, capture) {
			continue
		}
		for _, n := range d.frames {
			i := slices.IndexFunc(steps, func(s step) bool { return s.n == n })
			if i < 0 {
				t.Errorf("frame %d of %s, of which a difference tells, was not injected (%s)", n, capture, d.why)
				continue
			}
			ours := d.instead(expected[i][d.link])
			if slices.Equal(ours, expected[i][d.link]) {
				t.Errorf("%v: a stale difference, it changes nothing (%s)", steps[i], d.why)
			}
			expected[i][d.link] = ours
		}
	}
	return expected
}
