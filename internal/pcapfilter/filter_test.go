package pcapfilter

import (
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// packets are the packets of the table below. Their checksums are not used.
var packets = func() (all [][]byte) {
	const (
		fc1, fc2 = "fc000000000000000000000000000001", "fc000000000000000000000000000002"
		db1      = "20010db8000000000000000000000001"
	)
	for _, s := range []string{
		// 0: IPv4, ICMP echo request 10.0.0.1 > 10.0.0.2
		"45000020 00010000 40010000 0a000001 0a000002 0800000000010001 61626364",
		// 1: TCP SYN 10.0.0.1:1234 > 192.168.2.5:80
		"45000028 00024000 40060000 0a000001 c0a80205 04d20050 00000001 00000000 50020200 00000000",
		// 2: TCP ACK back
		"45000028 00034000 40060000 c0a80205 0a000001 005004d2 00000001 00000002 50100200 00000000",
		// 3: UDP 10.0.0.1:5353 > 10.0.0.2:53
		"45000020 00040000 40110000 0a000001 0a000002 14e90035 000c0000 71717171",
		// 4: IPv4 203.0.113.10 > 203.0.113.20, protocol 41, IPv6 fc00::1 > fc00::2, no next header
		"4500003c 00054000 40290000 cb00710a cb007114 60000000 00003b40 " + fc1 + fc2,
		// 5: IPv6, ICMPv6 echo request fc00::1 > fc00::2
		"60000000 00083a40 " + fc1 + fc2 + " 8000000000010001",
		// 6: IPv6, TCP ACK and PSH fc00::2:40000 > 2001:db8::1:443
		"60000000 00140640 " + fc2 + db1 + " 9c4001bb 00000001 00000001 50180200 00000000",
		// 7: IPv6, first fragment of UDP fc00::1:7 > fc00::2:53
		"60000000 00102c40 " + fc1 + fc2 + " 1100000100000001 00070035 00100000",
		// 8: IPv4 203.0.113.20 > 203.0.113.10, GRE
		"45000018 00060000 402f0000 cb007114 cb00710a 00000800",
		// 9: a later fragment of UDP 10.0.0.1 > 10.0.0.2; the bytes look like port 53
		"4500001c 00070001 40110000 0a000001 0a000002 00350035 00000000",
		// 10: the first fragment of it: port 99 > 53
		"4500001c 00072000 40110000 0a000001 0a000002 00630035 00100000",
		// 11: IPv4 with options, TCP RST 172.16.5.4:22 > 10.0.0.1:2222
		"47000030 00080000 40060000 ac100504 0a000001 01010101 01010100 001608ae 00000000 00000000 50040000 00000000",
		// 12: UDP to a group, 10.0.0.1:9 > 239.1.2.3:9
		"4500001c 00090000 01110000 0a000001 ef010203 00090009 00080000",
		// 13: IPv6 neighbour solicitation fc00::1 > ff02::1:ff00:2
		"60000000 00183aff " + fc1 + "ff0200000000000000000001ff000002 8700000000000000" + fc2,
		// 14: SCTP 10.0.0.1:5000 > 10.0.0.2:80
		"45000020 000a0000 40840000 0a000001 0a000002 13880050 00000000 00000000",
		// 15: five bytes
		"4500000500",
		// 16: IPv6 with hop-by-hop options, TCP behind them
		"60000000 001c0040 " + fc1 + fc2 + " 0600010400000000 00160016 00000000 00000000 50020000 00000000",
		// 17: ICMP unreachable, fragmentation needed, 203.0.113.1 > 203.0.113.10
		"4500001c 000b0000 40010000 cb007101 cb00710a 0304000000000514",
		// 18: UDP 10.1.2.3:33000 > 8.8.8.8:123 with 100 bytes
		"45c00080 000c0000 40110000 0a010203 08080808 80e8007b 006c0000 " + strings.Repeat("00", 100),
	} {
		b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
		if err != nil {
			panic(err)
		}
		all = append(all, b)
	}
	return all
}()

// chosen are the packets that each expression selects. All except those of the last
// group were compared with the selection of tcpdump 4.99 with libpcap 1.10 from a file
// of them.
var chosen = []struct{ expression, want string }{
	{"ip", "0 1 2 3 4 8 9 10 11 12 14 15 17 18"},
	{"ip6", "5 6 7 13 16"},
	{"tcp", "1 2 6 11"},
	{"udp", "3 7 9 10 12 18"},
	{"icmp", "0 17"},
	{"icmp6", "5 13"},
	{"sctp", "14"},
	{"ip proto 41", "4"},
	{"ip proto 47", "8"},
	{"proto 6", "1 2 6 11"},
	{"ip6 proto 17", "7"},
	{"ip6 proto 0", "16"},
	{`ip proto \icmp`, "0 17"},
	{"ip proto 1", "0 17"},
	{"host 10.0.0.1", "0 1 2 3 9 10 11 12 14"},
	{"src host 10.0.0.1", "0 1 3 9 10 12 14"},
	{"dst 10.0.0.1", "2 11"},
	{"src or dst host 192.168.2.5", "1 2"},
	{"src and dst net 10", "0 3 9 10 14"},
	{"host fc00::1", "5 7 13 16"},
	{"ip6 src fc00::2", "6"},
	{"net 10", "0 1 2 3 9 10 11 12 14 18"},
	{"net 10.0.0", "0 1 2 3 9 10 11 12 14"},
	{"net 10.0.0.0/8", "0 1 2 3 9 10 11 12 14 18"},
	{"net 10.0.0.0 mask 255.0.0.0", "0 1 2 3 9 10 11 12 14 18"},
	{"dst net 192.168.2.0/24", "1"},
	{"net 2001:db8::/32", "6"},
	{"net fc00::/7", "5 6 7 13 16"},
	{"port 80", "1 2 14"},
	{"tcp port 80", "1 2"},
	{"src port 80", "2"},
	{"tcp dst port 80 or 443", "1 6"},
	{"port 80 or 443", "1 2 6 14"},
	{"port (53 or 443)", "3 6 10"},
	{"udp port 53", "3 10"},
	{"src and dst port 9", "12"},
	{"portrange 20-99", "1 2 3 10 11 14"},
	{"tcp src portrange 20-99", "2 11"},
	{"not (tcp or udp)", "0 4 5 8 13 14 16 17"},
	{"! ip", "5 6 7 13 16"},
	{"host 10.0.0.2 and udp", "3 9 10"},
	{"host 10.0.0.1 and not (port 53 or icmp)", "1 2 9 11 12 14"},
	{"icmp or udp and host 10.1.2.3", "18"}, // and has the same precedence as or
	{"icmp or (udp and host 10.1.2.3)", "0 17 18"},
	{"not host 10.0.0.1 and 10.1.2.3", "18"},
	{"less 30", "8 9 10 12 15 17"},
	{"greater 128", "18"},
	{"len > 60", "13 16 18"},
	{"len = 5", "15"},
	{"tcp[tcpflags] & tcp-syn != 0", "1"},
	{"tcp[tcpflags] & (tcp-syn|tcp-rst) != 0", "1 11"},
	{"tcp[13] = 2", "1"},
	{"(tcp[tcpflags] & tcp-syn) != 0 and dst port 80", "1"},
	{"ip[6:2] & 0x1fff = 0 and udp", "3 10 12 18"},
	{"ip[6:2] & 0x3fff != 0", "9 10"},
	{"ip[0] & 0xf > 5", "11"},
	{"ip[1] >> 2 = 48", "18"},
	{"ip[2:2] = len", "0 1 2 3 4 8 9 10 11 12 14 15 17 18"},
	{"udp[0:2] + udp[2:2] = 5406", "3"},
	{"icmp[icmptype] = icmp-echo", "0"},
	{"icmp[icmptype] = icmp-unreach and icmp[icmpcode] = 4", "17"},
	{"icmp6[icmp6type] = icmp6-echo", "5"},
	{"icmp6[0] = 135", "13"},
	{"ip6[6] = 44", "7"},
	{"ip6[40] = 17", "7"},
	{"tcp[0:2] * 2 - 60 = 100", "2"},
	{"udp[100000] = 1 or icmp", "0 17"},
	{"not udp[100000] = 1", "0 1 2 4 5 6 7 8 9 11 13 14 16 17"}, // beyond the end
	{"ip multicast", "12"},
	{"ip6 multicast", "13"},
	{"1 = 1", "0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18"},
	{"ip[2:2] % 10 = 2", "0 3 14"},
	{"port domain", "3 10"},
	{"tcp port http or ssh", "1 2 11"},
	{"net 172.16.0.0/12 or 192.168.0.0/16", "1 2 11"},
	{"src host (10.0.0.1 or 10.1.2.3)", "0 1 3 9 10 12 14 18"},
	{"ip host 10.0.0.2 && !icmp", "3 9 10 14"},
	{"tcp[12] >> 4 = 5", "1 2 11"},
	{"-1 > 0", "0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18"},
	{"not port 53", "0 1 2 4 5 6 7 8 9 11 12 13 14 16 17 18"},
	{"ip[ip[0] & 0xf * 4] = 8", ""},
	{"ip[(ip[0] & 0xf) * 4] = 8", "0"},

	{"gre", "8"},
	{"", "0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18"},
	{"10.0.0.0/8 and not 10.0.0.1", "18"},
	{"10.0.0.1 || fc00::1", "0 1 2 3 5 7 9 10 11 12 13 14 16"},
	{"inbound", "0 2 4 6 8 10 12 14 16 18"}, // packets with even numbers come in
	{"outbound and tcp", "1 11"},
	{"ip proto gre", "8"},
	{"path 2", "2 5 8 11 14 17"}, // packets use no path, path 1, path 2 in turn
	{"path 1 and inbound or path 2 and udp", "10"},
	{"not path 1 and not path 2", "0 3 6 9 12 15 18"},
	{"tcp port 22 or path 1", "1 4 7 10 11 13 16"},
}

func choose(t *testing.T, expression string) string {
	t.Helper()
	f, err := Compile(expression)
	if err != nil {
		t.Errorf("%v", err)
		return ""
	}
	var got []string
	for i, pkt := range packets {
		if f.Match(slices.Clip(pkt), i%2 == 0, i%2 == 1, i%3) {
			got = append(got, fmt.Sprint(i))
		}
	}
	return strings.Join(got, " ")
}

func TestChosen(t *testing.T) {
	for _, c := range chosen {
		if got := choose(t, c.expression); got != c.want {
			t.Errorf("%q chooses %q, want %q", c.expression, got, c.want)
		}
	}
}

// TestErrors: errors are reported with their column.
func TestErrors(t *testing.T) {
	for _, c := range []struct {
		expression string
		column     int
		text       string
	}{
		{"tcp prot 80", 5, `"and" or "or" is missing before "prot"`},
		{"path", 5, "the number of a path (1, 2, …) is missing"},
		{"path 0", 6, "the number of a path (1, 2, …) is missing"},
		{"path tcp", 6, "the number of a path (1, 2, …) is missing"},
		{"host", 5, "missing at the end of the expression"},
		{"host 10.0.0.300", 6, "neither an address nor"},
		{"host example.org", 6, "host names are not resolved"},
		{"host 10.0.0.0/8", 14, "a host has no mask"},
		{"net 10.0.0.1/8", 5, "has bits set after the prefix: use 10.0.0.0/8"},
		{"net 10.0.0.0/33", 5, "at most 32 bits"},
		{"net fc00::/129", 12, "length of a prefix"},
		{"net 10.0.0.0 mask 255.0.255.0", 19, "is not contiguous"},
		{"tcp host 10.0.0.1", 10, "tcp has no hosts"},
		{"ip host fc00::1", 9, "fc00::1 is not an IPv4 address"},
		{"ip6 host 10.0.0.1", 10, "10.0.0.1 is not an IPv6 address"},
		{"host 10", 6, "use net 10, or port 10"},
		{"port 70000", 6, `"70000" is not a port`},
		{"port nonsense", 6, "is not a port"},
		{"icmp port 7", 11, "icmp has no ports"},
		{"portrange 1-", 11, "is not a port"},
		{"ip proto 256", 10, "from 0 to 255"},
		{"tcp proto 6", 11, "tcp has no protocols"},
		{"src proto 6", 11, "no source"},
		{"tcp and", 8, "missing at the end of the expression"},
		{"(tcp", 5, `")" is missing`},
		{"tcp)", 4, `before ")"`},
		{"tcp[", 5, "missing"},
		{"tcp[13", 7, `"]" is missing`},
		{"tcp[13:3] = 1", 8, "the size must be 1, 2 or 4"},
		{"tcp[tcp] = 1", 5, "offset must be a number"},
		{"tcp[13] & tcp", 11, "a number must follow"},
		{"tcp[13]", 1, "a number is not a condition"},
		{"80 or tcp", 1, "a number is not a condition"},
		{"not 80", 5, "a number is not a condition"},
		{"len = tcp", 7, "compared with a number"},
		{"ip[0] / 0 = 1", 9, "division by 0"},
		{"less tcp", 6, "a length in bytes"},
		{"ether host 00:00:00:00:00:01", 1, "begin with their IP header"},
		{"vlan 5", 1, "not supported"},
		{"multicast", 1, "use ip multicast"},
		{"ip broadcast", 4, "not supported"},
		{"tcp; udp", 4, "unexpected character"},
		{`ip proto \`, 10, "backslash"},
		{"host %wlan0", 6, "missing"},
	} {
		_, err := Compile(c.expression)
		var e *Error
		if !errors.As(err, &e) || e.Column != c.column || !strings.Contains(e.Text, c.text) {
			t.Errorf("%q: %v, want column %d: %s", c.expression, err, c.column, c.text)
		}
	}
	if _, err := Compile(strings.Repeat("(", MaxLen+1)); err == nil || len(err.Error()) > 200 {
		t.Errorf("too long: %v", err)
	}
	if _, err := Compile(strings.Repeat("(", MaxLen)); err == nil {
		t.Error("open parentheses")
	}
}

// FuzzFilter: any expression can be evaluated for any bytes.
func FuzzFilter(f *testing.F) {
	for _, c := range chosen {
		f.Add(c.expression, packets[1])
	}
	f.Add("tcp[0-1:4] > 1 or ip[0xffffffff:4] = 3", packets[15])
	f.Fuzz(func(t *testing.T, expression string, pkt []byte) {
		filter, err := Compile(expression)
		if err != nil {
			var e *Error
			if !errors.As(err, &e) || e.Column < 1 || e.Column > max(len(expression), MaxLen)+1 || e.Text == "" {
				t.Fatalf("%q: %v", expression, err)
			}
			return
		}
		before := string(pkt)
		first := filter.Match(pkt, true, false, 1)
		if filter.Match(pkt, true, false, 1) != first || string(pkt) != before {
			t.Errorf("%q: another answer the second time", expression)
		}
		for n := range len(pkt) {
			filter.Match(pkt[:n:n], false, true, 2)
		}
	})
}
