package heartbeat

import (
	"bytes"
	"encoding/hex"
	"errors"
	"net/netip"
	"os"
	"strings"
	"testing"
)

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

const (
	aiccu = "91915d757a09bfc94d5028832d85cc0d" // the password of HB-3 and HB-5
	inner = "2001:db8:2ff:2::2"
)

// published are messages with digests of others: the first four are in
// draft-massar-v6ops-heartbeat-01 and in the manual of SixXS' client.
var published = []struct {
	secret, text string
	m            Message
}{
	{"hartslag", "HEARTBEAT TUNNEL 2001:db8::2 10.100.13.42 1063665852 da46fdc28f568bb62d29661f73758095",
		Message{Tunnel, addr("2001:db8::2"), addr("10.100.13.42"), 1063665852}},
	{"hartslag", "HEARTBEAT TUNNEL 2001:db8::2 192.0.2.2 1051480800 3f0a026edb1b15e7c1a7a2d92b3c446a",
		Message{Tunnel, addr("2001:db8::2"), addr("192.0.2.2"), 1051480800}},
	{"hartslag", "DISABLE TUNNEL 2001:db8::2 192.0.2.2 1055628000 53d5bb7bfe4a3a80da01227da02cda24",
		Message{Disable, addr("2001:db8::2"), addr("192.0.2.2"), 1055628000}},
	{"point", "HEARTBEAT HOST 2001:db8::2 409100400 bd72fb8d98b8698fa70cdfeb33bb7342",
		Message{Command: Host, Inner: addr("2001:db8::2"), Epoch: 409100400}},
}

// packets are the vectors, with what they say.
var packets = map[string]struct {
	secret string
	m      Message
	ends   string // after the digest
}{
	"HB-1": {"hartslag", Message{Command: Tunnel, Inner: addr(inner), Epoch: 1700000000}, "\x00"},
	"HB-2": {"hartslag", Message{Tunnel, addr(inner), addr("192.0.2.1"), 1700000000}, ""},
	"HB-3": {aiccu, Message{Command: Tunnel, Inner: addr(inner), Epoch: 1796032981}, ""},
	"HB-5": {aiccu, Message{Command: Disable, Inner: addr(inner), Epoch: 1700000000}, "\x00"},
}

// vectors returns the payloads of testdata/vectors.txt.
func vectors(t testing.TB) map[string][]byte {
	t.Helper()
	text, err := os.ReadFile("testdata/vectors.txt")
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[string][]byte)
	for line := range strings.Lines(string(text)) {
		if name, digits, ok := strings.Cut(strings.TrimSpace(line), ": "); ok && strings.HasPrefix(name, "HB-") {
			b, err := hex.DecodeString(digits)
			if err != nil {
				t.Fatal(err)
			}
			all[name] = b[28:] // behind the IPv4 and UDP headers
		}
	}
	return all
}

func TestPublished(t *testing.T) {
	for _, p := range published {
		if got := string(Append(nil, p.m, p.secret, MD5)); got != p.text+"\x00" {
			t.Errorf("%q, want %q", got, p.text)
		}
		r, err := Parse([]byte(p.text))
		if err != nil || r.Message != p.m || !r.Verify(p.secret, MD5) {
			t.Errorf("%q is read as %+v, %v", p.text, r.Message, err)
		}
		if r.Verify(p.secret+"x", MD5) || r.Verify("", MD5) {
			t.Errorf("%q: another secret is right, too", p.text)
		}
	}
}

func TestVectors(t *testing.T) {
	all := vectors(t)
	if len(all) != len(packets)+1 {
		t.Fatalf("%d vectors", len(all))
	}
	for name, p := range packets {
		b := all[name]
		r, err := Parse(b)
		if err != nil || r.Message != p.m || !r.Verify(p.secret, MD5) {
			t.Errorf("%s is read as %+v, %v", name, r.Message, err)
		}
		if got, want := Append(nil, p.m, p.secret, MD5), append(bytes.TrimSuffix(b, []byte(p.ends)), 0); !bytes.Equal(got, want) {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if _, err := Parse(all["HB-D2"]); !errors.Is(err, ErrDigest) {
		t.Errorf("HB-D2, with an upper-case digest: %v", err)
	}
}

// Any number of NUL, CR and LF may follow, as from "echo | nc", and nothing else.
func TestEnds(t *testing.T) {
	b := vectors(t)["HB-3"]
	for _, end := range []string{"", "\x00", "\n", "\r\n", "\r\n\x00", strings.Repeat("\x00", MaxLen-len(b))} {
		if r, err := Parse(append(bytes.Clone(b), end...)); err != nil || !r.Verify(aiccu, MD5) {
			t.Errorf("with %q at the end: %v", end, err)
		}
	}
	for _, end := range []string{" ", "x", "\x00x", " \n", "\t"} {
		if _, err := Parse(append(bytes.Clone(b), end...)); err == nil {
			t.Errorf("with %q at the end: accepted", end)
		}
	}
	if _, err := Parse(append(bytes.Clone(b), bytes.Repeat([]byte{0}, MaxLen+1-len(b))...)); !errors.Is(err, ErrLength) {
		t.Errorf("256 bytes: %v", err)
	}
}

// The digest covers the text as it was sent: a client that spells its address differently is
// understood.
func TestSpelling(t *testing.T) {
	for _, spelling := range []string{"2001:0db8:02ff:0002:0000:0000:0000:0002", "2001:DB8:2FF:2::2", "2001:db8:2ff:2:0:0:0:2"} {
		text := "HEARTBEAT TUNNEL " + spelling + " sender 01700000000"
		r, err := Parse(hex.AppendEncode([]byte(text+" "), compute([]byte(text), "hartslag", MD5)))
		if err != nil || r.Inner != addr(inner) || r.Epoch != 1700000000 || !r.Verify("hartslag", MD5) {
			t.Errorf("%s: %+v, %v", spelling, r.Message, err)
		}
	}
}

// The digests of the two other forms are computed by hashlib and hmac.
func TestOtherDigests(t *testing.T) {
	m := Message{Command: Tunnel, Inner: addr(inner), Epoch: 1700000000}
	for d, want := range map[Digest]string{
		SHA256: "3e043405db6c88b9c6ac39ac383caa49bc4039e39c99245bba8ce166fc7df635",
		HMAC:   "794a63ed1b4ea966a64c5c1966a9c38a24cdf73c974c0429b669dd0022c884e0",
	} {
		b := Append(nil, m, "hartslag", d)
		if !bytes.Contains(b, []byte(" "+want+"\x00")) {
			t.Errorf("%q, want the digest %s", b, want)
		}
		r, err := Parse(b)
		if err != nil {
			t.Fatal(err)
		}
		for _, other := range []Digest{MD5, SHA256, HMAC} {
			if got := r.Verify("hartslag", other); got != (other == d) {
				t.Errorf("digest %d where %d is accepted: %v", d, other, got)
			}
		}
	}
	r, _ := Parse(Append(nil, m, "hartslag", MD5))
	if !r.Verify("hartslag", HMAC) {
		t.Error("MD5 is refused where HMAC is accepted beside it")
	}
}

func TestMalformed(t *testing.T) {
	const digest = "9ebe6097013667a18f167a8080033cd8"
	for text, want := range map[string]error{
		"":                             ErrCommand,
		"HEARTBEAT":                    ErrCommand,
		"HEARTBEAT TUNNEL":             ErrAddress,
		"heartbeat tunnel ::1":         ErrCommand,
		"DISABLE HOST ::1 1 " + digest: ErrCommand,
		"HEARTBEAT  TUNNEL 2001:db8::2 sender 1 " + digest:                  ErrCommand,
		"HEARTBEAT TUNNEL  2001:db8::2 sender 1 " + digest:                  ErrAddress,
		"HEARTBEAT TUNNEL 2001:db8::g sender 1 " + digest:                   ErrAddress,
		"HEARTBEAT TUNNEL fe80::1%eth0 sender 1 " + digest:                  ErrAddress,
		"HEARTBEAT TUNNEL 2001:db8::2 receiver 1 " + digest:                 ErrAddress,
		"HEARTBEAT TUNNEL 2001:db8::2 192.0.2.256 1 " + digest:              ErrAddress,
		"HEARTBEAT TUNNEL 2001:db8::2 1 " + digest:                          ErrAddress,
		"HEARTBEAT TUNNEL 2001:db8::2 sender -1 " + digest:                  ErrEpoch,
		"HEARTBEAT TUNNEL 2001:db8::2 sender +1 " + digest:                  ErrEpoch,
		"HEARTBEAT TUNNEL 2001:db8::2 sender 0x1 " + digest:                 ErrEpoch,
		"HEARTBEAT TUNNEL 2001:db8::2 sender 1e9 " + digest:                 ErrEpoch,
		"HEARTBEAT TUNNEL 2001:db8::2 sender  " + digest:                    ErrEpoch,
		"HEARTBEAT TUNNEL 2001:db8::2 sender 9223372036854775808 " + digest: ErrEpoch,
		"HEARTBEAT TUNNEL 2001:db8::2 sender 1":                             ErrFields,
		"HEARTBEAT TUNNEL 2001:db8::2 sender 1 ":                            ErrFields,
		"HEARTBEAT TUNNEL 2001:db8::2 sender 1 " + digest[1:]:               ErrDigest,
		"HEARTBEAT TUNNEL 2001:db8::2 sender 1 " + digest + " ":             ErrDigest,
		"HEARTBEAT TUNNEL 2001:db8::2 sender 1 " + digest + digest[:8]:      ErrDigest,
		"HEARTBEAT TUNNEL 2001:db8::2 sender 1 2 " + digest:                 ErrDigest,
		"HEARTBEAT HOST 2001:db8::2 sender 1 " + digest:                     ErrEpoch,
	} {
		if _, err := Parse([]byte(text)); !errors.Is(err, want) {
			t.Errorf("%q: %v, want %v", text, err, want)
		}
	}
}

// A message that differs in one byte is refused.
func TestEveryByte(t *testing.T) {
	whole := vectors(t)["HB-2"]
	for i := range whole {
		for _, bit := range []byte{1, 2, 0x20, 0x80} {
			b := bytes.Clone(whole)
			b[i] ^= bit
			if r, err := Parse(b); err == nil && r.Verify("hartslag", MD5) {
				t.Errorf("%q is accepted", b)
			}
		}
		if r, err := Parse(whole[:i]); err == nil && r.Verify("hartslag", MD5) {
			t.Errorf("%q is accepted", whole[:i])
		}
	}
}

// FuzzParse passes any bytes. What is read must be written as something that is read the same.
func FuzzParse(f *testing.F) {
	for _, b := range vectors(f) {
		f.Add(b)
	}
	for _, p := range published {
		f.Add([]byte(p.text))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := Parse(b)
		if err != nil {
			return
		}
		if len(b) > MaxLen || r.Verify("a secret that the corpus does not have", SHA256) {
			t.Fatalf("%q is accepted", b)
		}
		again, err := Parse(Append(nil, r.Message, "x", MD5))
		if err != nil || again.Message != r.Message || !again.Verify("x", MD5) {
			t.Fatalf("%q: %+v became %+v, %v", b, r.Message, again.Message, err)
		}
	})
}
