package differential

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"
)

// Another program made the texts: if it reads a frame as we do, both are right.
func TestDecode(t *testing.T) {
	other := map[string]bool{"wrong inner version": true, "inner IHL 4": true} // it reads invalid packets in its own way
	for _, row := range rows {
		x := readText(t, row.capture)
		for i, f := range readFrames(t, row.capture) {
			want := ""
			if i < len(x.lines) {
				want = strings.ReplaceAll(x.lines[i], "::203.0.113.2>", "::cb00:7102>") // both are right (RFC 5952 section 5)
			}
			got := fmt.Sprintf("%3d %s %s", i+1, marks[string(f[6:12])].text, decode(f))
			if got != want && !other[x.labels[i]] {
				t.Errorf("%s\n got %s\nwant %s", row.capture, got, want)
			}
		}
	}
}

// A frame of gre-all, whose tunnel has "key 7 csum seq", and one to a neighbour with
// another address.
func TestDecodeOthers(t *testing.T) {
	for _, c := range []struct{ frame, want string }{
		{
			"020000000bfe 020000000b01 0800" + // Ethernet
				"4500006000004000 3f2f0000 cb007101 cb007102" + // IPv4, without its checksum
				"b0000800 cc960000 00000007 00000000" + // GRE
				"4500003c10010000 3f11e74b c0a8010a c0a8020a" + // IPv4
				"03e907d000287e7f 000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f", // UDP
			"IP4 203.0.113.1>203.0.113.2 tos=00 ttl=63 id=rnd DF len=96 BADSUM | GRE flags=b000 proto=0800 csum=ok key=00000007 seq=0 | IP4 192.168.1.10>192.168.2.10 tos=00 ttl=63 id=1001 len=60 | UDP 1001>2000 len=40",
		},
		{
			"020000000bf9 020000000b01 0800" +
				"4500001600004000 3ffd0000 c0a80101 cb007109" + // IPv4, without its checksum
				"abcd",
			"[to 02:00:00:00:0b:f9] IP4 192.168.1.1>203.0.113.9 tos=00 ttl=63 id=rnd DF len=22 BADSUM | proto 253 [2] abcd",
		},
	} {
		frame, err := hex.DecodeString(strings.ReplaceAll(c.frame, " ", ""))
		if err != nil {
			t.Fatal(err)
		}
		if got := decode(frame); got != c.want {
			t.Errorf("\n got %s\nwant %s", got, c.want)
		}
	}
}

// The results of correct for recorded errors; decode would show a wrong checksum.
func TestCorrect(t *testing.T) {
	for _, c := range []struct {
		capture string
		n       int
		oldnew  []string // words of the text that change; none: no byte changes
	}{
		{"sit-errors", 1, []string{"id=1077", "id=0"}},
		{"sit-errors", 31, []string{"id=1077", "id=0"}}, // 28 bytes quoted
		{"sit-errors", 52, nil},                         // to 203.0.113.99
		{"sit-pmtu", 1, nil},                            // the same
		{"sit-pmtu", 4, []string{"id=1077 DF len=100", "id=0 DF len=1500 (have 100)", "plen=40", "plen=1440 (have 40)", "UDP 1030>2000 len=40", "UDP 1030>2000 len=1440 (have 40)"}},
		{"sit-pmtu", 11, []string{"id=1077 DF len=100", "id=0 DF len=1500", "600000000028113f", "6000000005a0113f"}},
		{"sit-pmtu", 2, nil}, // no error
		{"double-errors4", 1, []string{"id=1077", "id=0"}},
		{"ipip-pmtu", 17, []string{"id=1077 DF len=80", "id=0 DF len=1500", "4500003c", "450005c8"}}, // 28 bytes quoted
		{"gre-v4-pmtu", 6, []string{"id=1077 DF len=84", "id=0 DF len=1500 (have 84)", "id=101e len=60", "id=101e len=1476 (have 60)", "UDP 1030>2000 len=40", "UDP 1030>2000 len=1456 (have 40)"}},
		{"ip6ip6-errors", 1, nil},
		{"ip6ip6-errors", 33, []string{"plen=88", "plen=1460 (have 88)", "hl=63 plen=40", "hl=63 plen=1412 (have 40)", "UDP 1030>2000 len=40", "UDP 1030>2000 len=1412 (have 40)"}},
		{"double-errors6", 1, nil},
		{"double-errors6", 33, []string{"plen=68", "plen=1440 (have 68)", "id=101e len=60", "id=101e len=1432 (have 60)", "UDP 1030>2000 len=40", "UDP 1030>2000 len=1412 (have 40)"}},
	} {
		f := readFrames(t, c.capture)[c.n-1]
		want := strings.NewReplacer(c.oldnew...).Replace(decode(f))
		if got := decode((&sent{fullSize}).correct(f)); got != want || (want == decode(f)) != (c.oldnew == nil) {
			t.Errorf("%s, frame %d\n got %s\nwant %s", c.capture, c.n, got, want)
		}
	}
}

// After a router has reported 1400, and 1300, no longer packet can be quoted.
func TestCorrectAfterErrors(t *testing.T) {
	frames := readFrames(t, "ipip-pmtu")
	s := sent{fullSize}
	for i, c := range []struct {
		n    int
		want string
	}{{6, "id=0 DF len=1500"}, {17, "id=0 DF len=1400 (have 28)"}, {32, "id=0 DF len=1300"}, {47, "id=0 DF len=1290"}} {
		if got := decode(s.correct(frames[c.n-1])); !strings.Contains(got, c.want) {
			t.Errorf("%d: %s, want %s", i, got, c.want)
		}
	}
}

// The kernel's identifications, and those that RFC 6864 requires.
func TestCheckIDs(t *testing.T) {
	atomic := readFrames(t, "sit-encap")[1]       // DF, with an identification
	fragments := readFrames(t, "sit-nopmtu")[3:5] // of one packet
	change := func(f []byte, at int, to byte) []byte {
		f = bytes.Clone(f)
		f[ethernetLen+at] = to
		return f
	}
	for name, c := range map[string]struct {
		frames [][]byte
		wrong  bool
	}{
		"one with DF":               {[][]byte{atomic}, true},
		"none with DF":              {[][]byte{change(change(atomic, 4, 0), 5, 0)}, false},
		"none without DF":           {[][]byte{change(change(fragments[0], 4, 0), 5, 0)}, true},
		"fragments":                 {fragments, false},
		"fragments that differ":     {[][]byte{fragments[0], change(fragments[1], 5, ^fragments[1][ethernetLen+5])}, true},
		"what is not from a tunnel": {[][]byte{readFrames(t, "double-decap")[38]}, false},
	} {
		if err := checkIDs(c.frames); (err != nil) != c.wrong {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestNoise(t *testing.T) {
	for line, want := range map[string]bool{
		"IP6 fe80::1>ff02::16 tc=00 fl=0 hl=1 plen=36 | HBH 050200000100 | ICMP6 143/0 arg=0x1 data[20]":                                true,
		"IP6 fe80::1>ff02::2 tc=00 fl=0 hl=255 plen=16 | ICMP6 133/0 arg=0x0 data[8]":                                                   true,
		"IP4 203.0.113.1>203.0.113.2 tos=00 ttl=64 id=rnd DF len=88 | IP6 fc00::1>fc00::2 tc=00 fl=rnd hl=64 plen=28 | ICMP6 128/0 arg": true,
		"IP6 2001:db8:1::1>2001:db8:1::10 tc=00 fl=rnd hl=64 plen=60 | ICMP6 3/0 arg=0x0 quote[52] {IP6 fc00::1>fc00::2 | ICMP6 143/0":  false,
		"IP4 203.0.113.1>203.0.113.2 tos=00 ttl=64 id=rnd DF len=88 | IP6 fc00::1>fc00::2 tc=00 fl=rnd hl=64 plen=28 | ICMP6 129/0 arg": false,
	} {
		if noise.MatchString(line) != want {
			t.Errorf("noise %v, want %v: %s", !want, want, line)
		}
	}
}

// Frames of gre-all, from the third on after a noise packet, and one without a number.
func TestSequenced(t *testing.T) {
	frames := readFrames(t, "gre-all")
	for n, want := range map[int]string{4: "csum=ok key=00000007 seq=0", 6: "csum=ok key=00000007 seq=1"} {
		f := frames[n-1]
		if sequenced(f, 1) != 1 || !strings.Contains(decode(f), want) {
			t.Errorf("frame %d, want %s: %s", n, want, decode(f))
		}
	}
	for _, n := range []int{1, 3, 8} {
		f := bytes.Clone(frames[n-1])
		if sequenced(f, 1) != 0 || !bytes.Equal(f, frames[n-1]) {
			t.Errorf("frame %d changes: %s", n, decode(f))
		}
	}
}
