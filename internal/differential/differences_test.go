package differential

import (
	"slices"
	"testing"
)

// difference is an intended difference between sixfourd and the kernel: other answers to
// some of a recording's frames.
type difference struct {
	captures []string
	frames   []int // numbers of the injected frames
	link     link
	instead  rewrite // from the kernel's answers on that link
	why      string
}

// differences are all intended differences, except one that is in every frame: the
// identification of outer headers, which decode leaves out and checkIDs verifies. Each was
// reviewed. A difference that changes nothing, or whose frame is answered as by the kernel,
// fails the test, and must be removed.
var differences = []difference{
	// ECN, RFC 6040 section 4.1, normal mode: an inner CE becomes an outer CE. The kernel
	// still makes it ECT(0), as in RFC 3168 section 9.1.1.
	{[]string{"sit-encap", "sit-tos-fixed"}, []int{11, 13}, wan, replace("tos=02", "tos=03", "tos=2a", "tos=2b"),
		"RFC 6040 section 4.1: CE is copied"},
	{[]string{"double-encap", "double-none-encap"}, []int{11, 13}, wan, replace("tos=02", "tos=03", "tc=02", "tc=03"),
		"RFC 6040 section 4.1: CE is copied, by each layer"},
	{[]string{"ipip-encap", "gre-v4-encap"}, []int{11, 13}, wan, replace("203.0.113.2 tos=02", "203.0.113.2 tos=03"),
		"RFC 6040 section 4.1: CE is copied"},
	{[]string{"ipip6-encap", "ipip6-none", "ip6ip6-encap", "ip6ip6-none"}, []int{11, 13}, wan, replace("ffff::2 tc=02", "ffff::2 tc=03"),
		"RFC 6040 section 4.1: CE is copied"},
	{[]string{"ip6gre"}, []int{7, 31}, wan, replace("ffff::2 tc=00", "ffff::2 tc=01"),
		"RFC 6040 section 4.1: ECN is copied, which the kernel's ip6gre never does"},
	{[]string{"ip6gre"}, []int{9, 33}, wan, replace("ffff::2 tc=00", "ffff::2 tc=02"), "the same"},
	{[]string{"ip6gre"}, []int{11, 13, 35, 37}, wan, replace("ffff::2 tc=00", "ffff::2 tc=03"), "the same"},

	// Packets from unknown sources. The kernel's tunnels answer with ICMP 3/3.
	{[]string{"ipip-bad", "gre-v4-bad"}, []int{1}, wan, answer(),
		"RFC 4213 section 3.6 and RFC 2003 section 6.2: who we are is not told to a source that is no peer"},
	{[]string{"gre-key"}, []int{7, 9}, wan, answer(),
		"RFC 2890 section 2.1: another key is another tunnel, of which we know nothing; no RFC asks for an answer"},
	{[]string{"6rd", "6rd-relay"}, []int{10}, lan, answer(),
		"RFC 5969 section 12: what comes from outside the domain must come from the border relay, which the kernel does not ask"},
	{[]string{"6to4-decap"}, []int{10}, lan, answer(),
		"RFC 3964 section 5.3.2: the source ::203.0.113.2 is no address of 6to4's"},
	{[]string{"6to4-decap"}, []int{12}, wan, answer(),
		"the same of link-local addresses; the kernel sends an error to one, through the relay"},
	{[]string{"isatap"}, []int{16}, lan, answer("IP6 2001:db7:9::5efe:cb00:7109>2001:db8:1::10 tc=00 fl=0 hl=63 plen=40 | UDP 1010>2000 len=40"),
		"RFC 5214 section 7.3: an ISATAP address that embeds the outer source is correct; only routers ask for its prefix as well"},
	{[]string{"isatap"}, []int{16}, wan, answer(), "the recording's user tried a ping there"},

	// Where packets go.
	{[]string{"6to4-stale-onlink"}, []int{3}, wan, prepend("[to 02:00:00:00:0b:f9] "),
		"each packet goes its own way: the kernel's sit device sends everything where its first packet went"},
	{[]string{"6to4-stale-gw"}, []int{5}, wan, prepend("[to 02:00:00:00:0b:f9] "), "the same"},
	{[]string{"6to4-stale-gw"}, []int{7}, wan, answer(), "RFC 3964 section 5.3.1: 127.0.0.1 is nobody else's"},
	{[]string{"6to4-stale-gw"}, []int{7}, lan, answer("IP6 2002:cb00:7101:1::1>2002:cb00:7101:1::10 tc=00 fl=rnd hl=64 plen=88 | ICMP6 1/1 arg=0x0 quote[80] {IP6 2002:cb00:7101:1::10>2002:7f00:1::1 tc=00 fl=0 hl=63 plen=40 | UDP 1001>2000 len=40}"),
		"RFC 4443 section 3.1: the sender is told that we do not let it pass"},
	{[]string{"6rd"}, []int{12}, lan, replace("ICMP6 1/3", "ICMP6 1/1"), "the same of the embedded 224.0.0.1"},
	{[]string{"isatap"}, []int{7}, wan, answer("IP4 203.0.113.1>203.0.113.2 tos=00 ttl=63 id=rnd DF len=100 | IP6 2001:db8:1::10>2001:db8:9::1234 tc=00 fl=0 hl=63 plen=40 | UDP 1004>2000 len=40"),
		"mechanisms 12: what is no ISATAP address goes to the router, also with a prefix of the link, where the kernel sees nobody who could have it"},

	// ICMP errors that quote the inner packet. The kernel's sit tries to relay them from an
	// address that it may not use, and sends nothing.
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

	{[]string{"ipip-errors", "gre-v4-errors"}, []int{1}, lan, answer(noNetwork4),
		"RFC 2003 section 5: what quotes enough is told to its sender at once, not to that of the next packet; section 4.1: 3/0 is 3/0"},
	{[]string{"ipip-errors"}, []int{5, 9, 13, 24}, lan, answer(unreachable4),
		"the same; sections 4.1 and 4.4: 3/1, 3/2 (which Linux calls 3/3) and 11/0 become 3/1"},
	{[]string{"gre-v4-errors"}, []int{5, 9, 13, 23}, lan, answer(unreachable4),
		"the same, also for GRE (RFC 7588 says nothing else)"},
	{[]string{"ipip-errors"}, []int{20}, lan, answer(prohibited4), "RFC 1812 section 5.2.7.1: 3/13 is 3/13"},
	{[]string{"gre-v4-errors"}, []int{19}, lan, answer(prohibited4), "RFC 1812 section 5.2.7.1: 3/13 is 3/13"},
	{[]string{"ipip-errors"}, []int{2, 6, 10, 14, 21}, lan, answer(), "their senders know already"},
	{[]string{"gre-v4-errors"}, []int{2, 6, 10, 20}, lan, answer(), "their senders know already"},

	// ICMP errors that quote too few bytes: the next packet causes an error. The kernel
	// forgets Time Exceeded.
	{[]string{"sit-errors"}, []int{40}, lan, answer(unreachable6),
		"RFC 2003 section 4.4, for 6in4 as well: our packets do not arrive, so their sender is told"},
	{[]string{"double-errors4"}, []int{40}, lan, answer(unreachable4),
		"RFC 2003 section 4.4: Time Exceeded in the tunnel is Host Unreachable"},
	{[]string{"ipip-errors"}, []int{45}, lan, answer(unreachable4), "RFC 2003 section 4.4: Time Exceeded in the tunnel is Host Unreachable"},
	{[]string{"gre-v4-errors"}, []int{40, 43}, lan, answer(unreachable4),
		"RFC 2003 section 4.4, for GRE as well; the kernel's gre forgets 3/3, too"},
	{[]string{"double-errors6", "ipip6-errors"}, []int{31}, lan, answer(next(unreachable4)),
		"RFC 2003 section 5: what holds for too short a quote from IPv4 routers holds for IPv6; the kernel's ip6tnl forgets it"},
	{[]string{"ip6ip6-errors"}, []int{31}, lan, answer(next(unreachable6)), "the same"},

	// Path MTU.
	{[]string{"sit-pmtu"}, []int{4}, lan, answer(tooBig6("0x564", 1480)),
		"RFC 4213 section 3.4: fragmentation needed, with the inner packet quoted, is told to its sender at once"},
	{[]string{"sit-pmtu"}, []int{12}, lan, replace("arg=0x564", "arg=0x500"),
		"the kernel's route remembers 1380 and hides that the path MTU is 1300 now"},
	{[]string{"ip6ip6-errors"}, []int{33}, lan, answer(tooBig6("0x548", 1452)),
		"RFC 2473 section 7.1: too big, with the inner packet quoted, is told to its sender at once"},
	{[]string{"ip6ip6-errors"}, []int{38}, lan, answer(tooBig6("0x500", 1352)), "the same; IPv6 needs no less than 1280"},
	{[]string{"ip6ip6-errors"}, []int{39}, lan, replace("arg=0x548", "arg=0x500"),
		"the kernel's route remembers 1352 and hides that the path MTU is 1280 now"},
	{[]string{"ip6ip6-errors"}, []int{41}, lan, answer(), "RFC 2473 section 7.1 (b): what is no larger than 1280 is carried, not answered"},
	{[]string{"ip6ip6-errors"}, []int{41}, wan, pieces6(5, 1280), "RFC 2473 section 7.1 (b): in fragments of the tunnel's packet"},
	{[]string{"ip6ip6-lowmtu"}, []int{3, 5}, lan, answer(), "RFC 2473 section 7.1 (b): what is no larger than 1280 is carried, not answered"},
	{[]string{"ip6ip6-lowmtu"}, []int{3}, wan, pieces6(1233, 1233), "RFC 2473 section 7.1 (b): in fragments of the tunnel's packet"},
	{[]string{"ip6ip6-lowmtu"}, []int{5}, wan, pieces6(1280, 1280), "the same"},
	{[]string{"ip6ip6-lowmtu"}, []int{7}, lan, replace("hl=63", "hl=64"),
		"our interface has the MTU 1280, so that the router answers before the packet is forwarded into the tunnel"},
	{[]string{"double-errors6"}, []int{38}, lan, answer(),
		"RFC 2473 section 7.2 (b): DF is clear, so the sender is told nothing"},
	{[]string{"double-errors6"}, []int{38}, wan, answer(
		"IP4 203.0.113.1>203.0.113.2 tos=00 ttl=64 id=rnd DF len=1420 | IP6 fc00::1>fc00::2 tc=00 fl=rnd hl=64 plen=1360 | FRAG off=0 mf=1 | DSTOPT 040104010100 | IP4 192.168.1.10>192.168.2.10 tos=00 ttl=63 id=101e len=1432 (have 1344) | UDP 1030>2000 len=1412 (have 1324)",
		"IP4 203.0.113.1>203.0.113.2 tos=00 ttl=64 id=rnd DF len=156 | IP6 fc00::1>fc00::2 tc=00 fl=rnd hl=64 plen=96 | FRAG off=1352 mf=0 | proto 60 fragment[88]"),
		"RFC 2473 section 7.2 (b): DF is clear, so the tunnel's IPv6 packet is fragmented to the path MTU of 1400"},
	{[]string{"ipip6-errors"}, []int{38}, lan, answer(),
		"RFC 2473 section 7.2 (b): DF is clear, so the sender is told nothing"},
	{[]string{"ipip6-errors"}, []int{38}, wan, answer(
		"IP6 2001:db8:ffff::1>2001:db8:ffff::2 tc=00 fl=rnd hl=64 plen=1360 | FRAG off=0 mf=1 | DSTOPT 040104010100 | IP4 192.168.1.10>192.168.2.10 tos=00 ttl=63 id=101e len=1452 (have 1344) | UDP 1030>2000 len=1432 (have 1324)",
		"IP6 2001:db8:ffff::1>2001:db8:ffff::2 tc=00 fl=rnd hl=64 plen=116 | FRAG off=1352 mf=0 | proto 60 fragment[108]"),
		"RFC 2473 section 7.2 (b): DF is clear, so the tunnel's packet is fragmented to the path MTU of 1400"},

	// IPv4 that may be fragmented and exceeds a path MTU of 1400, 1300, 1290, 600 or 552,
	// the lowest value for an old router's 0. The kernel drops it without an error.
	{[]string{"ipip-pmtu"}, []int{9}, wan, pieces4(ipipHeader, 1400, 25, 1480), "RFC 2003 section 5.1: DF is clear, so the packet is fragmented before it is encapsulated"},
	{[]string{"ipip-pmtu"}, []int{16}, wan, pieces4(ipipHeader, 1400, 23, 1381), "the same"},
	{[]string{"ipip-pmtu"}, []int{20}, wan, pieces4(ipipHeader, 1300, 25, 1480), "the same"},
	{[]string{"ipip-pmtu"}, []int{27}, wan, pieces4(ipipHeader, 1300, 20, 1281), "the same"},
	{[]string{"ipip-pmtu"}, []int{35}, wan, pieces4(ipipHeader, 1290, 19, 1280), "the same"},
	{[]string{"ipip-pmtu"}, []int{38}, wan, pieces4(ipipHeader, 1290, 20, 1281), "the same"},
	{[]string{"ipip-pmtu"}, []int{42}, wan, pieces4(ipipHeader, 600, 19, 1280), "the same"},
	{[]string{"ipip-pmtu"}, []int{50}, wan, pieces4(ipipHeader, 552, 19, 1280), "the same; the kernel fragments outside"},
	{[]string{"gre-v4-pmtu"}, []int{9}, wan, pieces4(greHeader, 1400, 21, 1476), "RFC 7588 section 3.3: DF is clear, so the packet is fragmented before it is encapsulated"},
	{[]string{"gre-v4-pmtu"}, []int{16}, wan, pieces4(greHeader, 1400, 19, 1377), "the same"},
	{[]string{"gre-v4-pmtu"}, []int{20}, wan, pieces4(greHeader, 1300, 21, 1476), "the same"},
	{[]string{"gre-v4-pmtu"}, []int{27}, wan, pieces4(greHeader, 1300, 16, 1277), "the same"},
	{[]string{"gre-v4-pmtu"}, []int{30}, wan, pieces4(greHeader, 1300, 19, 1280), "the same"},
	{[]string{"gre-v4-pmtu"}, []int{34}, wan, pieces4(greHeader, 1290, 19, 1280), "the same"},
	{[]string{"gre-v4-pmtu"}, []int{37}, wan, pieces4(greHeader, 1290, 20, 1281), "the same"},
	{[]string{"gre-v4-pmtu"}, []int{41}, wan, pieces4(greHeader, 600, 19, 1280), "the same"},
	{[]string{"gre-v4-pmtu"}, []int{49}, wan, pieces4(greHeader, 552, 19, 1280), "the same; the kernel fragments outside"},
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
