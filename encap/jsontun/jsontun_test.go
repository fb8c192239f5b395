package jsontun

import (
	"bytes"
	"strings"
	"testing"

	"sixfour/internal/vectors"
)

// The messages of the original program, byte by byte.
func TestVectors(t *testing.T) {
	all := vectors.Read(t)
	for _, c := range []struct {
		name string
		m    Message
	}{
		{"JSON-1", Message{ID: "00:11:22:aa:bb:cc"}},
		{"JSON-2", Message{Prefix: "2001:db8:77:5::/64"}},
		{"JSON-4", Message{ID: "d6:dd:71:4f:5c:db"}},
		{"JSON-5", Message{Prefix: "2001:db8:77::/64"}},
		{"JSON-7", Message{Error: "out of prefixes"}},
	} {
		b := all[c.name]
		if got := c.m.Append(nil); !bytes.Equal(got, b) {
			t.Errorf("%s: written as %q, want %q", c.name, got, b)
		}
		m, n, err := Parse(b)
		if m != c.m || n != len(b) || err != nil {
			t.Errorf("%s: read as %+v, %d, %v", c.name, m, n, err)
		}
	}
	for _, name := range []string{"JSON-2", "JSON-5"} {
		m, _, _ := Parse(all[name])
		if p, err := ParsePrefix(m.Prefix); err != nil || p.String() != m.Prefix {
			t.Errorf("%s: %v, %v", name, p, err)
		}
	}
}

// JSON-3 is two packets in one segment, JSON-6 one: wherever the stream is cut, they are the same.
func TestCutPacket(t *testing.T) {
	all := vectors.Read(t)
	stream := append(bytes.Clone(all["JSON-3"]), all["JSON-6"]...)
	for i := range len(stream) {
		var got [][]byte
		var b []byte
		for _, part := range [][]byte{stream[:i], stream[i:]} {
			b = append(b, part...)
			for {
				n, err := CutPacket(b)
				if err != nil {
					t.Fatal(err)
				}
				if n == 0 {
					break
				}
				got = append(got, b[:n])
				b = b[n:]
			}
		}
		if len(got) != 3 || len(b) != 0 {
			t.Fatalf("cut at %d: %d packets, %d bytes left", i, len(got), len(b))
		}
		for j, p := range got {
			if want := stream[j*56 : j*56+56]; !bytes.Equal(p, want) {
				t.Errorf("cut at %d: packet %d is %x, want %x", i, j, p, want)
			}
		}
	}
	for _, c := range []struct {
		name string
		b    []byte
	}{
		{"IPv4", []byte{0x45}},
		{"JSON", []byte("{")},
		{"too long", append([]byte{0x60, 0, 0, 0, 0xff, 0xff}, make([]byte, 34)...)},
		{"one byte too long", append([]byte{0x60, 0, 0, 0, (MaxPacket - 39) >> 8, (MaxPacket - 39) & 0xff}, make([]byte, 34)...)},
	} {
		if n, err := CutPacket(c.b); n != 0 || err == nil {
			t.Errorf("%s: %d, %v", c.name, n, err)
		}
	}
	longest := append([]byte{0x60, 0, 0, 0, (MaxPacket - 40) >> 8, (MaxPacket - 40) & 0xff}, make([]byte, MaxPacket-6)...)
	if n, err := CutPacket(longest); n != MaxPacket || err != nil {
		t.Errorf("the longest packet: %d, %v", n, err)
	}
}

func TestParse(t *testing.T) {
	hello := `{"Id":"a"}`
	for _, c := range []struct {
		name, b string
		want    Message
		n       int
	}{
		{"other case", `{"iD":"a"}`, Message{ID: "a"}, 10},
		{"unknown members", `{"x":{"y":[1,"}"]},"Id":"a","z":null}`, Message{ID: "a"}, 37},
		{"null", `{"Id":null}`, Message{}, 11},
		{"twice", `{"Id":"b","ID":"a"}`, Message{ID: "a"}, 19},
		{"escapes", `{"Id":"\"}\u0061\\"}`, Message{ID: `"}a\`}, 20},
		{"space", " \r\n\t" + hello + " ", Message{ID: "a"}, 14},
		{"a packet behind it", hello + "`\x00", Message{ID: "a"}, 10},
		{"as long as allowed", hello[:9] + strings.Repeat(" ", MaxMessage-10) + "}", Message{ID: "a"}, MaxMessage},
		{"as deep as allowed", `{"x":` + strings.Repeat("[", MaxDepth-1) + strings.Repeat("]", MaxDepth-1) + `}`, Message{}, 2*MaxDepth - 2 + 6},
	} {
		if m, n, err := Parse([]byte(c.b)); m != c.want || n != c.n || err != nil {
			t.Errorf("%s: %+v, %d, %v", c.name, m, n, err)
		}
		for i := range strings.LastIndexByte(c.b, '}') {
			if m, n, err := Parse([]byte(c.b[:i])); n != 0 || m != (Message{}) || err != nil {
				t.Errorf("%s, %d bytes of it: %+v, %d, %v", c.name, i, m, n, err)
			}
		}
	}
	for _, c := range []struct{ name, b, want string }{
		{"a packet", "`\x00\x00", "begin with {"},
		{"an array", `["Id"]`, "begin with {"},
		{"TLS", "\x16\x03\x01", "begin with {"},
		{"HTTP", "GET / HTTP/1.1\r\n", "begin with {"},
		{"number", `{"Id":5}`, "Id is a JSON number"},
		{"object", `{"Id":{"a":"b"}}`, "Id is a JSON object"},
		{"no JSON", `{Id:a}`, "not valid JSON"},
		{"brackets", `{]`, "not valid JSON"},
		{"not UTF-8", "{\"Id\":\"\xff\"}", "UTF-8"},
		{"deep", `{"x":` + strings.Repeat("[", 1000), "levels"},
		{"deep objects", strings.Repeat(`{"Id":`, 1000), "levels"},
		{"without end", `{"Id":"` + strings.Repeat("a", MaxMessage), "more than 4096 bytes"},
		{"a backslash at the limit", `{"Id":"` + strings.Repeat("a", MaxMessage-8) + `\`, "more than 4096 bytes"},
		{"1 MB", `{"Id":"` + strings.Repeat("a", 1<<20) + `"}`, "more than 4096 bytes"},
		{"space without end", strings.Repeat(" ", MaxMessage), "more than 4096 bytes"},
		{"one byte too long", hello[:9] + strings.Repeat(" ", MaxMessage-9) + "}", "more than 4096 bytes"},
	} {
		if m, n, err := Parse([]byte(c.b)); n != 0 || m != (Message{}) || err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %+v, %d, %v", c.name, m, n, err)
		}
	}
}

func TestCheckID(t *testing.T) {
	for _, id := range []string{"00:11:22:aa:bb:cc", "ü", "a b", strings.Repeat("a", MaxID)} {
		if err := CheckID(id); err != nil {
			t.Errorf("%q: %v", id, err)
		}
	}
	for _, id := range []string{"", "a\nb", "a\x00", "\x7f", "\xff", "\u202e", strings.Repeat("a", MaxID+1)} {
		if CheckID(id) == nil {
			t.Errorf("%q is valid", id)
		}
	}
}

// The proof was computed with: printf 'laptop\0008f4c2a' | openssl dgst -sha256 -hmac 'open sesame'
func TestProof(t *testing.T) {
	const want = "0a0b2f8c69d1c1c208481a9bdc4630c98587da5efdb58112dd14fa5e2ec76921"
	secret := []byte("open sesame")
	if got := Proof(secret, "laptop", "8f4c2a"); got != want {
		t.Errorf("%s", got)
	}
	m := Message{Auth: strings.ToUpper(want)}
	if !m.Proves(secret, "laptop", "8f4c2a") {
		t.Error("upper-case digits are refused")
	}
	for _, other := range []string{"", want[2:], want + "00", "x" + want[1:], Proof(secret, "laptop", "8f4c2b"), Proof(nil, "laptop", "8f4c2a"), Proof(secret, "lapto", "p8f4c2a")} {
		if (&Message{Auth: other}).Proves(secret, "laptop", "8f4c2a") {
			t.Errorf("%q is taken for a proof", other)
		}
	}
	if a, b := NewNonce(), NewNonce(); a == b || len(a) != 2*nonceLen {
		t.Errorf("%q and %q", a, b)
	}
}

func TestParsePrefix(t *testing.T) {
	for s, want := range map[string]string{
		"2001:db8:77:5::/64": "2001:db8:77:5::/64", "2001:db8:77:5::1/64": "2001:db8:77:5::/64", "2a00::/48": "2a00::/48", "2001:db8:1:0:8000::/80": "2001:db8:1:0:8000::/80", "2001:db8:77:500::/56": "2001:db8:77:500::/56",
	} {
		if p, err := ParsePrefix(s); err != nil || p.String() != want {
			t.Errorf("%s: %v, %v", s, p, err)
		}
	}
	for _, s := range []string{
		"", "2001:db8::", "2001:db8::/32", "2001:db8::/47", "2001:db8::/121", "2001:db8::1/128", "::/0", "::/64", "fe80::/64", "ff02::/64", "fd00::/64", "10.0.0.0/8",
		"::ffff:10.0.0.0/64", "fe80::%eth0/64", strings.Repeat("2", 1000),
	} {
		if p, err := ParsePrefix(s); err == nil || len(err.Error()) > 200 {
			t.Errorf("%q: %v, %v", s, p, err)
		}
	}
}

// What Parse accepts is written so that it is read again as the same, and nothing beyond the
// limits is accepted.
func FuzzParse(f *testing.F) {
	for _, s := range []string{`{"Id":"00:11:22:aa:bb:cc"}`, ` {"Nonce":"\u0000"}x`, `{"a":{"b":[[1]]},"Error":"\\"}`, strings.Repeat("{", 20), `{"Id":"\`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, n, err := Parse(b)
		if n < 0 || n > len(b) || n > MaxMessage || n > 0 && err != nil || n == 0 && m != (Message{}) {
			t.Fatalf("%+v, %d, %v", m, n, err)
		}
		if n == 0 {
			return
		}
		text := m.Append(nil)
		if again, k, err := Parse(text); len(text) <= MaxMessage && (again != m || k != len(text) || err != nil) {
			t.Fatalf("%q is %+v, %d, %v, want %+v", text, again, k, err, m)
		}
		if more, k, _ := Parse(append(b[:n:n], "`abc"...)); more != m || k != n {
			t.Fatalf("with more behind it: %+v, %d", more, k)
		}
	})
}

func FuzzCutPacket(f *testing.F) {
	f.Add([]byte{0x60, 0, 0, 0, 0, 1, 59, 64, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7})
	f.Add([]byte("E"))
	f.Fuzz(func(t *testing.T, b []byte) {
		n, err := CutPacket(b)
		switch {
		case n < 0 || n > len(b) || n > MaxPacket || n > 0 && (err != nil || n < 40):
			t.Fatalf("%d, %v", n, err)
		case len(b) > 0 && b[0]>>4 != 6 && err == nil:
			t.Fatal("no error")
		}
	})
}
