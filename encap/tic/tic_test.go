package tic

import (
	"errors"
	"io"
	"net/netip"
	"os"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

const (
	md5Reverse    = "848b4c0f455377fdfcc23483a4c45e34"
	sha256Usual   = "83ed4b160fa7f97f21bbe27104c820960f1f33ae6b0a81ebf2f11211a5f8c099"
	sha256Reverse = "1098675992c8ebcc5850f614acfa351df50adec3929decc93442259c9e0fd008"
)

// AICCU 2007.01.15 answered the challenge so with the password "secret", and a server accepted
// it. The other digests are computed by hashlib.
func TestAnswer(t *testing.T) {
	const challenge = "0123456789abcdef0123456789abcdef"
	for _, c := range []struct {
		method        Method
		answer, other string
	}{
		{MD5, "0b18c965ed880d8cf9c24b9f721fe793", md5Reverse},
		{SHA256, sha256Usual, sha256Reverse},
		{Clear, "secret", ""},
	} {
		if got := c.method.Answer(challenge, "secret"); got != c.answer {
			t.Errorf("%s: %s, want %s", c.method, got, c.answer)
		}
		if !c.method.Verify(c.answer, challenge, "secret") || c.other != "" && !c.method.Verify(c.other, challenge, "secret") {
			t.Errorf("%s: the right answer is refused", c.method)
		}
		for _, wrong := range []string{"", "0", c.answer + "0", c.answer[1:], strings.ToUpper(c.answer), c.method.sum("secret"), c.method.Answer(challenge, "Secret"), c.method.Answer(challenge+"0", "Secret")} {
			if c.method.Verify(wrong, challenge, "secret") {
				t.Errorf("%s: %q is accepted", c.method, wrong)
			}
		}
	}
}

func TestLines(t *testing.T) {
	long := strings.Repeat("x", MaxLine)
	for in, want := range map[string][]string{
		"a\nb\r\n\n":             {"a", "b", "", "EOF"},
		"a\rb\n":                 {"a\rb", "EOF"},
		"":                       {"EOF"},
		"cut":                    {"unexpected EOF"},
		long + "\n":              {long, "EOF"},
		long + "\r\n":            {long, "EOF"},
		long + "x\n":             {ErrLine.Error()},
		long + "xx\n":            {ErrLine.Error()},
		strings.Repeat("x", 1e6): {ErrLine.Error()},
	} {
		for _, reader := range []io.Reader{strings.NewReader(in), iotest.OneByteReader(strings.NewReader(in))} {
			r := NewReader(reader)
			for _, w := range want {
				got, err := r.Line()
				if err != nil {
					got = err.Error()
				}
				if got != w {
					t.Errorf("%.20q: %.20q, want %.20q", in, got, w)
				}
			}
		}
	}
}

func TestParseReply(t *testing.T) {
	for line, want := range map[string]Reply{
		"200 Client Identity accepted": {200, "Client Identity accepted"},
		"200":                          {200, ""},
		"202 ":                         {202, ""},
		"200-more":                     {200, "more"},
		"400 TLS not supported ":       {400, "TLS not supported"},
		"299 x":                        {299, "x"},
	} {
		if r, err := ParseReply(line); err != nil || r != want {
			t.Errorf("%q: %+v, %v", line, r, err)
		}
	}
	for _, line := range []string{"", "2", "20", "2000", "two", "-20 x", "20x y", " 200 x", "２００ x", "200x"} {
		if r, err := ParseReply(line); !errors.Is(err, ErrReply) {
			t.Errorf("%q: %+v, %v", line, r, err)
		}
	}
}

func TestParseCommand(t *testing.T) {
	for line, want := range map[string]Command{
		"":                         {},
		"  \t ":                    {},
		"QUIT We just stopped":     {Name: "quit", Args: []string{"We", "just", "stopped"}, Rest: "just stopped"},
		"Tunnel  SHOW T17":         {Name: "tunnel show", Args: []string{"T17"}, Rest: "SHOW T17"},
		"tunnel":                   {Name: "tunnel", Args: []string{}},
		"STARTTLS":                 {Name: "starttls", Args: []string{}},
		"get unixtime":             {Name: "get unixtime", Args: []string{}},
		"authenticate clear a  b ": {Name: "authenticate", Args: []string{"clear", "a", "b"}, Rest: "a  b "},
	} {
		if got := ParseCommand(line); !reflect.DeepEqual(got, want) {
			t.Errorf("%q: %#v, want %#v", line, got, want)
		}
	}
}

// shown returns the answer to "tunnel show" in a recorded dialogue.
func shown(t testing.TB, file string) (lines []string) {
	t.Helper()
	b, err := os.ReadFile("testdata/" + file)
	if err != nil {
		t.Fatal(err)
	}
	in := false
	for line := range strings.Lines(string(b)) {
		line, ok := strings.CutPrefix(strings.TrimSpace(line), "S: ")
		switch {
		case strings.Contains(line, "tunnel show"):
			in = true
		case in && ok && strings.HasPrefix(line, "202"):
			return lines
		case in && ok && !strings.HasPrefix(line, "20"):
			lines = append(lines, line)
		}
	}
	t.Fatalf("%s has no answer to tunnel show", file)
	return nil
}

// recorded is the tunnel in testdata/aiccu.txt.
var recorded = Tunnel{ID: "T5072", Type: TypeAYIYA, Client: netip.MustParseAddr("2001:db8:2ff:1::2"), Broker: netip.MustParseAddr("2001:db8:2ff:1::1"),
	Bits: 64, MTU: 1280, Name: "My Tunnel", POP: "chtst01", Server: netip.MustParseAddr("198.51.100.2"),
	Password: "f3d47c2de40fb698e1ab15d757a09bfc", Interval: time.Minute}

// The answer that AICCU has accepted is read, and written byte by byte.
func TestShow(t *testing.T) {
	lines := shown(t, "aiccu.txt")
	got, err := ParseShow(lines)
	if err != nil || got != recorded {
		t.Errorf("%+v, %v, want %+v", got, err, recorded)
	}
	if written := recorded.Lines(); !reflect.DeepEqual(written, lines) {
		t.Errorf("written as\n%q, want\n%q", written, lines)
	}
	if got, want := recorded.Listed(), "T5072 2001:db8:2ff:1::2 ayiya chtst01"; got != want {
		t.Errorf("listed as %q, want %q", got, want)
	}
}

// Tunnels of every type are read as they were written.
func TestShowTypes(t *testing.T) {
	for _, c := range []struct {
		change func(*Tunnel)
		line   string
	}{
		{func(t *Tunnel) { t.Type = TypeHeartbeat }, "IPv4 Endpoint: heartbeat"},
		{func(t *Tunnel) { t.Type, t.Outer = Type6in4, netip.MustParseAddr("192.0.2.45") }, "IPv4 Endpoint: 192.0.2.45"},
		{func(t *Tunnel) { t.Disabled = "user" }, "UserState: disabled"},
		{func(t *Tunnel) { t.Disabled = "administrator" }, "AdminState: disabled"},
		{func(t *Tunnel) { t.MTU, t.Bits, t.Interval = 1480, 127, 30*time.Second }, "Tunnel MTU: 1480"},
	} {
		want := recorded
		c.change(&want)
		lines := want.Lines()
		if got, err := ParseShow(lines); err != nil || got != want {
			t.Errorf("%+v, %v, want %+v", got, err, want)
		}
		if !strings.Contains(strings.Join(lines, "\n"), c.line) {
			t.Errorf("%q has no %q", lines, c.line)
		}
	}
}

// Another server, for an Android client, writes other capitals, other names and fewer lines.
func TestShowElsewhere(t *testing.T) {
	got, err := ParseShow([]string{"TunnelId:  5072", "TYPE:AYIYA", "IPv6 Endpoint: 2001:db8:2ff:1::2", "IPv6 PoP: 2001:0db8:02ff:0001::0001",
		"PoP Name: chtst01", "IPv4 PoP: 198.51.100.2", "Password: f3d47c2de40fb698e1ab15d757a09bfc", "Heartbeat_Interval: 60", "Tunnel Name: My Tunnel", "Expires: never", "nonsense", ""})
	want := recorded
	if want.ID = "5072"; err != nil || got != want {
		t.Errorf("%+v, %v, want %+v", got, err, want)
	}
}

func TestShowImpossible(t *testing.T) {
	for line, want := range map[string]string{
		"Type:":                            `does not say "Type"`,
		"IPv6 Endpoint:":                   `"IPv6 Endpoint": ""`,
		"IPv6 Endpoint: 192.0.2.1":         `"IPv6 Endpoint": "192.0.2.1"`,
		"IPv6 Endpoint: ::ffff:192.0.2.1":  "not possible",
		"IPv6 Endpoint: ff02::1":           "not possible",
		"IPv6 Endpoint: ::":                "not possible",
		"IPv6 Endpoint: fe80::1%eth0":      "not possible",
		"IPv6 Endpoint: 2001:db8:2ff:1::1": "both ends",
		"IPv6 POP: 2001:db8::/64":          "not possible",
		"IPv4 POP: tic.example":            "not possible",
		"IPv4 POP: 255.255.255.255":        "not possible",
		"IPv4 POP: 224.0.0.1":              "not possible",
		"IPv4 POP: 2001:db8::1":            "not possible",
		"IPv6 PrefixLength: 0":             "not possible",
		"IPv6 PrefixLength: 128":           "not possible",
		"IPv6 PrefixLength: 64x":           "not possible",
		"Tunnel MTU: 1279":                 "not possible",
		"Tunnel MTU: 65536":                "not possible",
		"Tunnel MTU: 99999999999999999999": "not possible",
		"Heartbeat_Interval: -1":           "not possible",
		"Password: a\x00b":                 "characters",
	} {
		key, _, _ := strings.Cut(line, ":")
		lines := []string{}
		for _, l := range recorded.Lines() {
			if !strings.HasPrefix(l, key+":") {
				lines = append(lines, l)
			}
		}
		if got, err := ParseShow(append(lines, line)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %+v, %v, want %q", line, got, err, want)
		}
	}
	for key := range map[string]bool{"Type": true, "IPv6 Endpoint": true, "IPv6 POP": true, "IPv4 POP": true} {
		lines := []string{}
		for _, l := range recorded.Lines() {
			if !strings.HasPrefix(l, key+":") {
				lines = append(lines, l)
			}
		}
		if _, err := ParseShow(lines); err == nil || !strings.Contains(err.Error(), key) {
			t.Errorf("without %q: %v", key, err)
		}
	}
	for value, want := range map[string]time.Duration{"0": time.Minute, "1": 5 * time.Second, "1000000": time.Hour} {
		if got, err := ParseShow(append(recorded.Lines(), "Heartbeat_Interval: "+value)); err != nil || got.Interval != want {
			t.Errorf("interval %s: %v, %v", value, got.Interval, err)
		}
	}
}

func TestParseListed(t *testing.T) {
	for line, want := range map[string]string{"T17 2001:db8::2 ayiya pop": "T17", "T17": "T17", "  T18 name": "T18", "": "", "  ": "", "T\x00 x": ""} {
		if got, ok := ParseListed(line); got != want || ok != (want != "") {
			t.Errorf("%q: %q, %v", line, got, ok)
		}
	}
}

func TestPrintable(t *testing.T) {
	for in, want := range map[string]string{"plain": "plain", "a\x1b[31mb\r\n": "a?[31mb??", "gr\xfcn": "gr?n", "grün": "grün", strings.Repeat("ü", 200): strings.Repeat("ü", 160) + "…"} {
		if got := Printable(in); got != want {
			t.Errorf("%q: %q", in, got)
		}
	}
}

func TestPOP(t *testing.T) {
	p := POP{ID: "pop1", City: "Bern", Country: "ch", IPv4: netip.MustParseAddr("198.51.100.2"), Short: "x"}
	want := []string{"POPId: pop1", "City: Bern", "Country: ch", "IPv4: 198.51.100.2", "ISP Short: x"}
	if got := p.Lines(); !reflect.DeepEqual(got, want) {
		t.Errorf("%q", got)
	}
}

// FuzzShow passes any lines. What is read must be written as lines that are read the same.
func FuzzShow(f *testing.F) {
	f.Add(strings.Join(shown(f, "aiccu.txt"), "\n"))
	f.Add(strings.Join(recorded.Lines(), "\r\n") + "\nTunnel MTU: 99999999999")
	f.Fuzz(func(t *testing.T, text string) {
		var lines []string
		for r := NewReader(strings.NewReader(text)); ; {
			l, err := r.Line()
			if err != nil {
				break
			}
			lines = append(lines, l)
		}
		got, err := ParseShow(lines)
		if err != nil {
			return
		}
		if got.MTU < minMTU || got.MTU > maxMTU || got.Bits < 1 || got.Bits > 127 || got.Interval < minInterval || got.Interval > maxInterval || !got.Client.Is6() || !got.Server.Is4() {
			t.Fatalf("%q is read as %+v", text, got)
		}
		again, err := ParseShow(got.Lines())
		if again.Disabled = got.Disabled; err != nil || again != got {
			t.Fatalf("%q: %+v became %+v, %v", text, got, again, err)
		}
	})
}

// FuzzCommand passes any line to what reads commands and answers.
func FuzzCommand(f *testing.F) {
	for _, l := range []string{"tunnel show T1", "authenticate clear  a b", "200 x", "  ", "QUIT"} {
		f.Add(l)
	}
	f.Fuzz(func(t *testing.T, line string) {
		c := ParseCommand(line)
		if c.Name == "" && strings.TrimSpace(line) != "" || len(c.Rest) > len(line) {
			t.Fatalf("%q: %+v", line, c)
		}
		if r, err := ParseReply(line); err == nil && (r.Code < 0 || r.Code > 999) {
			t.Fatalf("%q: %+v", line, r)
		}
		if p := Printable(line); Printable(p) != p && len([]rune(p)) < 160 {
			t.Fatalf("%q is not printable", p)
		}
	})
}
