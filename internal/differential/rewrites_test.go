package differential

import (
	"fmt"
	"strings"
)

// rewrite turns the kernel's answers into ours.
type rewrite func(kernel []string) []string

// Our errors to inner senders about errors that quote a packet of 60 or 80 bytes.
const (
	unreachable6 = "IP6 2001:db8:1::1>2001:db8:1::10 tc=00 fl=rnd hl=64 plen=88 | ICMP6 1/3 arg=0x0 quote[80] {IP6 2001:db8:1::10>2001:db8:2::10 tc=00 fl=0 hl=63 plen=40 | UDP 1030>2000 len=40}"
	prohibited6  = "IP6 2001:db8:1::1>2001:db8:1::10 tc=00 fl=rnd hl=64 plen=88 | ICMP6 1/1 arg=0x0 quote[80] {IP6 2001:db8:1::10>2001:db8:2::10 tc=00 fl=0 hl=63 plen=40 | UDP 1030>2000 len=40}"
	unreachable4 = "IP4 192.168.1.1>192.168.1.10 tos=c0 ttl=64 id=rnd len=88 | ICMP 3/1 arg=0x0 quote[60] {IP4 192.168.1.10>192.168.2.10 tos=00 ttl=63 id=101e len=60 | UDP 1030>2000 len=40}"
	noNetwork4   = "IP4 192.168.1.1>192.168.1.10 tos=c0 ttl=64 id=rnd len=88 | ICMP 3/0 arg=0x0 quote[60] {IP4 192.168.1.10>192.168.2.10 tos=00 ttl=63 id=101e len=60 | UDP 1030>2000 len=40}"
	prohibited4  = "IP4 192.168.1.1>192.168.1.10 tos=c0 ttl=64 id=rnd len=88 | ICMP 3/13 arg=0x0 quote[60] {IP4 192.168.1.10>192.168.2.10 tos=00 ttl=63 id=101e len=60 | UDP 1030>2000 len=40}"
)

// prepend returns the kernel's answers with a text in front of each line.
func prepend(text string) rewrite {
	return func(kernel []string) []string {
		ours := make([]string, len(kernel))
		for i, line := range kernel {
			ours[i] = text + line
		}
		return ours
	}
}

// next returns a text for the packet after the one that it is about.
func next(text string) string {
	return strings.NewReplacer("101e", "101f", "1030", "1031").Replace(text)
}

// tooBig6 returns our packet too big for an error about a packet of the largest size, of
// which the error quotes 80 bytes.
func tooBig6(mtu string, size int) string {
	return fmt.Sprintf("IP6 2001:db8:1::1>2001:db8:1::10 tc=00 fl=rnd hl=64 plen=88 | ICMP6 2/0 arg=%[1]s"+
		" quote[80] {IP6 2001:db8:1::10>2001:db8:2::10 tc=00 fl=0 hl=63 plen=%[2]d (have 40) | UDP 1030>2000 len=%[2]d (have 40)}", mtu, size-40)
}

// Lengths of the headers that pieces4 adds.
const (
	ipipHeader = 20
	greHeader  = 24
)

// pieces4 returns the recordings' nth IPv4 packet, of size bytes, in fragments that fit a
// path with the header in front.
func pieces4(overhead, path, n, size int) rewrite {
	gre := ""
	if overhead == greHeader {
		gre = " GRE flags=0000 proto=0800 |"
	}
	df := " DF"
	if path <= 552 { // the lowest value that is believed: the true one may be lower
		df = ""
	}
	most := (path - overhead - 20) &^ 7
	var lines []string
	for off := 0; off < size-20; off += most {
		length, mf := min(most, size-20-off), ""
		if off+length < size-20 {
			mf = " MF"
		}
		upper := fmt.Sprintf("off=%d len=%d | proto 17 fragment[%d]", off, 20+length, length)
		if off == 0 {
			upper = fmt.Sprintf("len=%d | UDP %d>2000 len=%d (have %d)", 20+length, 1000+n, size-20, length)
		}
		lines = append(lines, fmt.Sprintf("IP4 203.0.113.1>203.0.113.2 tos=00 ttl=63 id=rnd%s len=%d |%s IP4 192.168.1.10>192.168.2.10 tos=00 ttl=63 id=%x%s %s",
			df, overhead+20+length, gre, 0x1000+n, mf, upper))
	}
	return answer(lines...)
}

// pieces6 returns the recordings' nth IPv6 packet, of size bytes, in two fragments of the
// packet of a layer over IPv6, to a path of 1280: 1232 bytes each, including the option.
func pieces6(n, size int) rewrite {
	const outer = "IP6 2001:db8:ffff::1>2001:db8:ffff::2 tc=00 fl=rnd hl=64 "
	return answer(
		fmt.Sprintf(outer+"plen=1240 | FRAG off=0 mf=1 | DSTOPT 040104010100 | IP6 2001:db8:1::10>2001:db8:2::10 tc=00 fl=0 hl=63 plen=%[1]d (have 1184) | UDP %[2]d>2000 len=%[1]d (have 1184)", size-40, 1000+n),
		fmt.Sprintf(outer+"plen=%d | FRAG off=1232 mf=0 | proto 60 fragment[%d]", 8+size-1224, size-1224))
}

// answer returns our answer, whatever the kernel sent.
func answer(lines ...string) rewrite { return func([]string) []string { return lines } }

// replace returns the kernel's answers with old words replaced by new ones, in pairs.
func replace(oldnew ...string) rewrite {
	return func(kernel []string) []string {
		ours := make([]string, len(kernel))
		for i, line := range kernel {
			ours[i] = strings.NewReplacer(oldnew...).Replace(line)
		}
		return ours
	}
}
