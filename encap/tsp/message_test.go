package tsp_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"sixfour/encap/tsp"
)

// The nibble 0xf is in the first byte or in the fourth one.
func TestHeader(t *testing.T) {
	for name, signal := range map[string]bool{
		"f0000001 656f1a00": true, "f00000f0 0000025f": true, "010000f0 00000000": true, "ffffffff 00000000": true,
		"60000000 00000000": false, "600000f0 00000000": false, "450000f0 00000000": false, "00000000 00000000": false, "f00000f0 000000": false, "": false,
	} {
		b := unhex(t, strings.ReplaceAll(name, " ", ""))
		h, text, ok := tsp.Parse(append(b, "text"[:4*min(len(b)/8, 1)]...))
		if ok != signal || ok && (!bytes.Equal(h.Append(nil), b) || string(text) != "text") {
			t.Errorf("%s: %v, %v, %q", name, ok, h, text)
		}
	}
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestLines(t *testing.T) {
	for text, want := range map[string]string{"VERSION=2.0.2\r\n": "2.0.2", "version=2.0.0 \r\n\x00": "2.0.0", "VERSION=1.0.1\n": "1.0.1"} {
		if got, ok := tsp.ParseVersion([]byte(text)); !ok || got != want {
			t.Errorf("%q: %q, %v", text, got, ok)
		}
	}
	for text, want := range map[string]tsp.Auth{
		"AUTHENTICATE DIGEST-MD5\r\n\x00": tsp.DigestMD5, "authenticate plain\r\n": tsp.Plain, "AUTHENTICATE ANONYMOUS\r\b": tsp.Anonymous, "AUTHENTICATE X": "X",
	} {
		if got, ok := tsp.ParseAuthenticate([]byte(text)); !ok || got != want {
			t.Errorf("%q: %q, %v", text, got, ok)
		}
	}
	c, ok := tsp.ParseCapability([]byte("CAPABILITY TUNNEL=V6V4 TUNNEL=v6udpv4 TUNNEL=V4V6 AUTH=ANONYMOUS AUTH=plain AUTH=PASSDSS-3DES-1 X=Y\r\n"))
	if !ok || !slices.Equal(c.Tunnels, []tsp.Type{tsp.V6V4, tsp.V6UDPV4, "v4v6"}) || !slices.Equal(c.Auths, []tsp.Auth{tsp.Anonymous, tsp.Plain, "PASSDSS-3DES-1"}) {
		t.Errorf("the capability is %v, %v", c, ok)
	}
	for _, test := range []struct {
		want tsp.Auth
		user bool
		auth tsp.Auth
		ok   bool
	}{{tsp.Auto, true, tsp.Plain, true}, {tsp.Auto, false, tsp.Anonymous, true}, {tsp.DigestMD5, true, tsp.DigestMD5, false}, {tsp.Anonymous, true, tsp.Anonymous, true}} {
		if a, ok := c.Choose(test.want, test.user); ok != test.ok || ok && a != test.auth {
			t.Errorf("%q, user %v: %q, %v", test.want, test.user, a, ok)
		}
	}
	for text, want := range map[string]tsp.Status{
		"200 Success\r\n": {200, "Success"}, "300 Authentication failed": {300, "Authentication failed"}, "1302 x\x1b[2Jy\r\nmore": {1302, "x"}, "310\r\n": {310, ""},
	} {
		if got, _, ok := tsp.ParseStatus([]byte(text)); !ok || got != want {
			t.Errorf("%q: %v, %v", text, got, ok)
		}
	}
	for _, text := range []string{"", "20 x", "abc", "12345 x", "-200 x", "c2Vydm 1"} {
		if got, _, ok := tsp.ParseStatus([]byte(text)); ok {
			t.Errorf("%q is the result %v", text, got)
		}
	}
}

// Credentials of PLAIN come with an authorization identity or without, and with NUL or CR LF
// between.
func TestPlain(t *testing.T) {
	for text, want := range map[string][2]string{
		"\x00alice\x00wonder\r\n": {"alice", "wonder"}, "admin\x00alice\x00wonder\r\n": {"alice", "wonder"}, "\x00\x00alice\x00wonder\r\n": {"alice", "wonder"},
		"\x00alice\r\nwonder\r\n": {"alice", "wonder"}, "alice\r\nwonder\r\n": {"alice", "wonder"}, string(tsp.AppendPlain(nil, "ζωή", "a b")): {"ζωή", "a b"},
	} {
		if user, password, ok := tsp.ParsePlain([]byte(text)); !ok || user != want[0] || password != want[1] {
			t.Errorf("%q: %q, %q, %v", text, user, password, ok)
		}
	}
	for _, text := range []string{"", "\x00", "\x00alice\x00\r\n", "a\x00b\x00c\x00d"} {
		if user, password, ok := tsp.ParsePlain([]byte(text)); ok {
			t.Errorf("%q: %q, %q", text, user, password)
		}
	}
}

// A stream is divided into its messages, wherever its segments end.
func TestSplit(t *testing.T) {
	stream := "VERSION=2.0.2\r\nAUTHENTICATE PLAIN\r\n\x00\x00alice\x00wonder\r\nContent-length: 33\r\n<tunnel action=\"accept\"></tunnel>\r\n" +
		"Content-length: 35\r\n<tunnel action=\"delete\"></tunnel>\r\n"
	want := []string{
		"VERSION=2.0.2\r\n", "AUTHENTICATE PLAIN\r\n", "alice\x00wonder\r\n", "Content-length: 33\r\n<tunnel action=\"accept\">",
		"Content-length: 35\r\n<tunnel action=\"delete\">",
	}
	for size := range len(stream) {
		var got []string
		var b []byte
		for at := 0; at < len(stream); at += size + 1 {
			b = append(b, stream[at:min(at+size+1, len(stream))]...)
			for {
				text, rest, ok, err := tsp.Split(b)
				if err != nil {
					t.Fatal(err)
				}
				b = rest
				if !ok {
					break
				}
				got = append(got, string(text))
				if message, _, ok := strings.Cut(string(text), "</tunnel>"); ok { // its CR LF may not have come yet
					got[len(got)-1] = message
				}
			}
		}
		if !slices.Equal(got, want) {
			t.Fatalf("in pieces of %d bytes: %q", size+1, got)
		}
	}
	// Two bytes that are counted and do not come are not waited for.
	if text, _, ok, err := tsp.Split([]byte("Content-length: 35\r\n<tunnel action=\"accept\"></tunnel>")); !ok || err != nil || len(text) == 0 {
		t.Errorf("%q, %v, %v", text, ok, err)
	}
	for name, text := range map[string]string{
		"line without an end":   strings.Repeat("x", 10000),
		"long line":             strings.Repeat("x", 10000) + "\n",
		"length without an end": "Content-length: " + strings.Repeat("1", 10000),
		"length":                "Content-length: 99999999\r\n",
		"no length":             "Content-length: x\r\n",
	} {
		if _, _, _, err := tsp.Split([]byte(text)); !errors.Is(err, tsp.ErrTooLong) && !errors.Is(err, tsp.ErrLength) {
			t.Errorf("%s: the error is %v", name, err)
		}
	}
}

// A message is sent again with the same sequence number and a new time, each time later, and
// not for ever.
func TestExchange(t *testing.T) {
	now := time.Unix(1000, 0)
	x := tsp.NewExchange(now, tsp.FirstSequence, tsp.FirstWait)
	first, _, _ := tsp.Parse(x.Send([]byte("a"), now))
	if first != (tsp.Header{Sequence: tsp.FirstSequence}) {
		t.Errorf("the first header is %v", first)
	}
	for i, wait := range []int{1, 2, 4, 8, 16} {
		at, ok := x.Due()
		if !ok || at.Sub(now) != time.Duration(wait)*time.Second {
			t.Fatalf("repetition %d comes after %v", i, at.Sub(now))
		}
		now = at
		h, text, _ := tsp.Parse(x.Repeat(now))
		if h.Sequence != first.Sequence || h.Timestamp != uint32(now.Sub(time.Unix(1000, 0)).Milliseconds()) || string(text) != "a" {
			t.Errorf("repetition %d is %v %q", i, h, text)
		}
	}
	if b := x.Repeat(now); b != nil {
		t.Errorf("one more repetition: %q", b)
	}
	if x.Answers(first) {
		t.Error("an answer after the end counts")
	}
	for i := range 20 {
		h, _, _ := tsp.Parse(x.Send(nil, now))
		if want := uint32(0xf00000f0 + (i+1)%16); h.Sequence != want {
			t.Errorf("message %d has the sequence number %x, not %x", i, h.Sequence, want)
		}
		if x.Answers(tsp.Header{Sequence: h.Sequence + 1}) || !x.Answers(h) || x.Answers(h) {
			t.Error("not exactly the answer counts, once")
		}
	}
}

// Answers are found for messages that come twice, not for others, and not for ever.
func TestCache(t *testing.T) {
	var c tsp.Cache
	for i := range uint32(10) {
		c.Keep(i, []byte{byte(i)}, []byte{byte(i), 1})
	}
	for i := range uint32(11) {
		answer, known := c.Find(i, []byte{byte(i)})
		if known != (i >= 2 && i < 10) || known && !bytes.Equal(answer, []byte{byte(i), 1}) {
			t.Errorf("message %d: %x, %v", i, answer, known)
		}
	}
	if _, known := c.Find(5, []byte("other")); known {
		t.Error("another text has the answer")
	}
	for range 100 {
		c.Find(5, []byte{5})
	}
	if answer, known := c.Find(5, []byte{5}); answer != nil || !known {
		t.Errorf("the answer is given without end: %x, %v", answer, known)
	}
}
