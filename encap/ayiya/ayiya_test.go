package ayiya

import (
	"bytes"
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"encoding"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"sixfour/internal/vectors"
)

const password = "f3d47c2de40fb698e1ab15d757a09bfc" // of the vectors

// payload returns the UDP payload of a vector.
func payload(t testing.TB, name string) []byte {
	t.Helper()
	b, ok := vectors.Read(t)[name]
	if !ok {
		t.Fatalf("there is no vector %s", name)
	}
	return bytes.Clone(b[28:])
}

// What our end reads from each packet of the vectors, and that it writes the same packet.
func TestVectors(t *testing.T) {
	const client, server = "2001:db8:2ff:1::2", "2001:db8:2ff:1::1"
	for _, v := range []struct {
		name   string
		hash   Hash
		op     OpCode
		next   byte
		epoch  uint32
		from   string
		length int // of the payload
	}{
		{"AYIYA-1", SHA1, Noop, NextNone, 1700000000, client, 0},
		{"AYIYA-2", SHA1, Forward, NextIPv6, 1700000001, client, 56},
		{"AYIYA-3", SHA1, Forward, NextIPv6, 1700000002, server, 56},
		{"AYIYA-4", SHA256, Noop, NextNone, 1700000000, client, 0},
		{"AYIYA-5", SHA1, Noop, NextNone, 0x6b0d4973, client, 0},
		{"AYIYA-6a", SHA1, Forward, NextIPv6, 0x6b0d4978, client, 56},
		{"AYIYA-6b", SHA1, Forward, NextIPv6, 0x6b0d4978, server, 56},
		{"AYIYA-7", SHA1, Forward, NextIPv6, 0x6b0d4973, client, 48},
		{"AYIYA-8", SHA1, EchoRequest, NextNone, 1700000000, client, 7},
		{"AYIYA-9", SHA1, EchoResponse, NextNone, 1700000000, server, 7},
	} {
		t.Run(v.name, func(t *testing.T) {
			b := payload(t, v.name)
			was := bytes.Clone(b)
			m, err := Parse(b)
			if err != nil {
				t.Fatal(err)
			}
			id, ok := m.Address()
			if !ok || netip.AddrFrom16(id) != netip.MustParseAddr(v.from) {
				t.Errorf("the identity is %x, want %s", m.Identity, v.from)
			}
			if m.Hash != v.hash || m.Op != v.op || m.Next != v.next || m.Epoch != v.epoch || len(m.Payload) != v.length {
				t.Errorf("parsed %+v", m)
			}
			key := NewKey(v.hash, password)
			if !m.Verify(&key) {
				t.Error("the signature is refused")
			}
			if !bytes.Equal(b, was) {
				t.Error("Verify has changed the packet")
			}
			for _, other := range []Key{NewKey(v.hash, password+"0"), NewKey(v.hash, ""), NewKey(MD5, password), {}} {
				if m.Verify(&other) {
					t.Errorf("the signature is accepted for another %v", other)
				}
			}
			own := make([]byte, v.hash.HeaderLen()+v.length)
			copy(own[v.hash.HeaderLen():], m.Payload)
			Sign(own, &Header{Op: v.op, Next: v.next, Epoch: v.epoch, Identity: id}, &key)
			if !bytes.Equal(own, was) {
				t.Errorf("we write\n%x, the vector is\n%x", own, was)
			}
		})
	}
}

func TestBadVectors(t *testing.T) {
	key := NewKey(SHA1, password)
	if _, err := Parse(payload(t, "AYIYA-D1")); err != ErrLength { //nolint:errorlint // it is this very error
		t.Errorf("length extension: %v", err)
	}
	for _, name := range []string{"AYIYA-D2", "AYIYA-D4"} {
		m, err := Parse(payload(t, name))
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if m.Verify(&key) {
			t.Errorf("%s is accepted", name)
		}
	}
}

// newPacket returns a signed packet.
func newPacket(k Key, op OpCode, next byte, payload []byte) []byte {
	b := append(make([]byte, k.hash.HeaderLen()), payload...)
	Sign(b, &Header{op, next, 1700000000, Identity(netip.MustParseAddr("2001:db8:2ff:1::2"))}, &k)
	return b
}

var ipv4 = []byte{0x45, 0, 0, 20, 0, 0, 0, 0, 64, 17, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2}

func ipv6(length int) []byte {
	b := make([]byte, 40+length)
	b[0] = 0x60
	binary.BigEndian.PutUint16(b[4:], uint16(length))
	return b
}

// Each rule for the bytes of a packet, by one wrong field at a time. The signatures are right.
func TestRules(t *testing.T) {
	key := NewKey(SHA1, password)
	forward := newPacket(key, Forward, NextIPv6, ipv6(8))
	with := func(at int, value byte) []byte {
		b := bytes.Clone(forward)
		b[at] = value
		return b
	}
	for _, c := range []struct {
		name string
		b    []byte
		want error
	}{
		{"as it should be", forward, nil},
		{"IPv4", newPacket(key, Forward, NextIPv4, ipv4), nil},
		{"empty", nil, ErrTruncated},
		{"7 bytes", forward[:7], ErrTruncated},
		{"8 bytes", forward[:8], ErrTruncated},
		{"without signature", forward[:43], ErrTruncated},
		{"only a header", forward[:44], ErrLength},
		{"a byte is missing", forward[:len(forward)-1], ErrLength},
		{"a byte more", append(bytes.Clone(forward), 0), ErrLength},
		{"identity of 1 byte", with(0, 0x01), ErrNextHeader},
		{"identity of 32768 bytes", with(0, 0xf1), ErrTruncated},
		{"no identity, but a length", with(0, 0x40), ErrIdentity},
		{"identity of type 3", with(0, 0x43), ErrIdentity},
		{"identity of type 15", with(0, 0x4f), ErrIdentity},
		{"signature of 16 bytes", with(1, 0x42), ErrHash},
		{"signature of 24 bytes", with(1, 0x62), ErrHash},
		{"no signature, but SHA-1", with(1, 0x02), ErrHash},
		{"signature without a hash", with(1, 0x50), ErrHash},
		{"no hash, but authentication", with(1, 0x00), ErrAuthentication},
		{"MD5 with 20 bytes", with(1, 0x51), ErrHash},
		{"UMAC with 8 bytes", with(1, 0x23), ErrHash},
		{"UMAC with 20 bytes", with(1, 0x53), ErrHash},
		{"SHA-256 with 20 bytes", with(1, 0x54), ErrHash},
		{"hash 5", with(1, 0x55), ErrHash},
		{"hash 15", with(1, 0x5f), ErrHash},
		{"public key", with(2, 0x21), ErrAuthentication},
		{"authentication 15", with(2, 0xf1), ErrAuthentication},
		{"heartbeat with a payload", with(2, 0x10), ErrNextHeader},
		{"operation 8", with(2, 0x18), ErrOperation},
		{"operation 15", with(2, 0x1f), ErrOperation},
		{"IPv4, but the packet is IPv6", with(3, NextIPv4), ErrNextHeader},
		{"nothing inside a forward", with(3, NextNone), ErrNextHeader},
		{"UDP inside a forward", with(3, 17), ErrNextHeader},
		{"version 4", with(44, 0x45), ErrNextHeader},
		{"version 0", with(44, 0x00), ErrNextHeader},
		{"inner length too small", with(49, 7), ErrLength},
		{"inner length too large", with(49, 9), ErrLength},
		{"inner length 65535", with(48, 0xff), ErrLength},
		{"IPv4 with a header of 16 bytes", newPacket(key, Forward, NextIPv4, append([]byte{0x44}, ipv4[1:]...)), ErrLength},
		{"IPv4 with a header of 24 bytes", newPacket(key, Forward, NextIPv4, append([]byte{0x46}, ipv4[1:]...)), ErrLength},
		{"IPv4 with a byte behind it", newPacket(key, Forward, NextIPv4, append(bytes.Clone(ipv4), 0)), ErrLength},
		{"IPv6 of 39 bytes", newPacket(key, Forward, NextIPv6, ipv6(0)[:39]), ErrLength},
		{"heartbeat", newPacket(key, Noop, NextNone, nil), nil},
		{"heartbeat with a byte", newPacket(key, Noop, NextNone, []byte{0}), ErrLength},
		{"heartbeat of IPv6", newPacket(key, Noop, NextIPv6, nil), ErrNextHeader},
		{"echo request", newPacket(key, EchoRequest, NextNone, []byte("x")), nil},
		{"echo request of nothing", newPacket(key, EchoRequest, NextNone, nil), nil},
		{"echo request of IPv6", newPacket(key, EchoRequest, NextIPv6, ipv6(0)), ErrNextHeader},
		{"echo and forward", newPacket(key, EchoForward, NextIPv6, ipv6(0)), nil},
		{"echo and forward of nothing", newPacket(key, EchoForward, NextNone, nil), ErrNextHeader},
		{"echo response of IPv6", newPacket(key, EchoResponse, NextIPv6, ipv6(0)), ErrNextHeader},
		{"message of the day", newPacket(key, MOTD, NextNone, []byte("0\nx")), nil},
		{"query", newPacket(key, QueryRequest, NextNone, []byte("\x00\x00\x00\x01version")), nil},
		{"query without number", newPacket(key, QueryRequest, NextNone, []byte("\x00\x00\x00")), ErrLength},
		{"answer without number", newPacket(key, QueryResponse, NextNone, nil), ErrLength},
	} {
		if _, err := Parse(c.b); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
}

// A packet that is changed in any bit is not accepted.
func TestEachBit(t *testing.T) {
	for _, h := range []Hash{MD5, SHA1, SHA256} {
		key := NewKey(h, password)
		good := newPacket(key, Forward, NextIPv6, ipv6(8))
		for i := range 8 * len(good) {
			b := bytes.Clone(good)
			b[i/8] ^= 1 << (i % 8)
			if m, err := Parse(b); err == nil && m.Verify(&key) {
				t.Errorf("%v: accepted with bit %d changed", h, i)
			}
		}
		if m, err := Parse(good); err != nil || !m.Verify(&key) {
			t.Errorf("%v: the packet itself is refused: %v", h, err)
		}
	}
}

// An unsigned packet of a hash whose signature field is zero while it is computed (AutMeth 0).
func TestHashWithoutSecret(t *testing.T) {
	key := NewKey(SHA1, password)
	b := newPacket(key, Noop, NextNone, nil)
	b[2] = 0
	clear(b[24:44])
	s := sha1.Sum(b)
	copy(b[24:], s[:])
	m, err := Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	if m.Verify(&key) || m.Verify(&Key{}) || m.Verify(&Key{hash: SHA1}) {
		t.Error("accepted without a secret")
	}
}

// extend computes, without the password, a packet that begins with another one and has a
// valid signature.
func extend(t *testing.T, b []byte, add string) []byte {
	t.Helper()
	m, _ := Parse(b)
	var h hash.Hash
	var magic string
	var little bool
	switch m.Hash {
	case MD5:
		h, magic, little = md5.New(), "md5\x01", true
	case SHA1:
		h, magic = sha1.New(), "sha\x01"
	case SHA256:
		h, magic = sha256.New(), "sha\x03"
	}
	padded := append(bytes.Clone(b), 0x80)
	for len(padded)%64 != 56 {
		padded = append(padded, 0)
	}
	if little {
		padded = binary.LittleEndian.AppendUint64(padded, 8*uint64(len(b)))
	} else {
		padded = binary.BigEndian.AppendUint64(padded, 8*uint64(len(b)))
	}
	// The state of the hash after these blocks is the signature.
	state := append([]byte(magic), m.Signature()...)
	for i := len(magic); little && i < len(state); i += 4 {
		slices.Reverse(state[i : i+4])
	}
	state = append(state, make([]byte, 64)...)
	state = binary.BigEndian.AppendUint64(state, uint64(len(padded)))
	if err := h.(encoding.BinaryUnmarshaler).UnmarshalBinary(state); err != nil {
		t.Fatal(err)
	}
	h.Write([]byte(add))
	b = append(padded, add...)
	copy(b[24:], h.Sum(nil))
	return b
}

// Packets of all kinds and lengths, extended by somebody who does not know the password. Their
// signatures are right, and they are refused nevertheless.
func TestExtension(t *testing.T) {
	for _, h := range []Hash{MD5, SHA1, SHA256} {
		key := NewKey(h, password)
		for n := range 200 {
			text := bytes.Repeat([]byte("e"), n)
			for _, good := range [][]byte{
				newPacket(key, Noop, NextNone, nil),
				newPacket(key, Forward, NextIPv6, ipv6(n)),
				newPacket(key, EchoForward, NextIPv6, ipv6(n)),
				newPacket(key, EchoRequest, NextNone, text),
				newPacket(key, EchoResponse, NextNone, text),
				newPacket(key, MOTD, NextNone, text),
				newPacket(key, QueryRequest, NextNone, append(make([]byte, 4), text...)),
				newPacket(key, QueryResponse, NextNone, append(make([]byte, 4), text...)),
			} {
				m, err := Parse(good)
				if err != nil || !m.Verify(&key) {
					t.Fatalf("%v, operation %d, %d bytes: %v", h, m.Op, n, err)
				}
				for _, add := range []string{"", "x", strings.Repeat("y", 150)} {
					b := extend(t, good, add)
					bad := m
					bad.signed, bad.Payload = b, b[h.HeaderLen():]
					if !bad.Verify(&key) {
						t.Fatalf("%v, operation %d, %d bytes, %d more: the extension is not what it should be", h, m.Op, n, len(add))
					}
					if _, err := Parse(b); err == nil {
						t.Errorf("%v, operation %d, %d bytes: accepted with %d bytes more", h, m.Op, n, len(add))
					}
				}
			}
		}
	}
}

func TestIdentities(t *testing.T) {
	for _, c := range []struct {
		head []byte // up to the epoch
		id   []byte
		ok   bool
	}{
		{[]byte{0x41, 0x52, 0x10, 59}, make([]byte, 16), true},
		{[]byte{0x42, 0x52, 0x10, 59}, []byte("client\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"), false},
		{[]byte{0x21, 0x52, 0x10, 59}, []byte{192, 0, 2, 1}, false},
		{[]byte{0x00, 0x52, 0x10, 59}, nil, false},
		{[]byte{0x51, 0x52, 0x10, 59}, make([]byte, 32), false},
	} {
		b := append(append(append(bytes.Clone(c.head), 0, 0, 0, 0), c.id...), make([]byte, 20)...)
		m, err := Parse(b)
		if err != nil {
			t.Errorf("%x: %v", c.head, err)
			continue
		}
		if _, ok := m.Address(); ok != c.ok || !bytes.Equal(m.Identity, c.id) {
			t.Errorf("%x: the identity is %x, an address: %v", c.head, m.Identity, ok)
		}
	}
}

// signedAt returns a message of an epoch, with a signature that depends on the number.
func signedAt(epoch uint32, number int) *Message {
	m := &Message{Hash: SHA1, Epoch: epoch, signed: make([]byte, 44), at: 24}
	s := sha1.Sum(fmt.Append(nil, number))
	copy(m.signed[24:], s[:])
	return m
}

// Equal packets of one second are different on the wire, and valid.
func TestSigner(t *testing.T) {
	key := NewKey(SHA1, password)
	var s Signer
	sent := map[string]bool{}
	for i := range 50 {
		for _, n := range []int{0, 8} {
			b := newPacket(key, Forward, NextIPv6, ipv6(n))
			s.Sign(b, &Header{Op: Forward, Next: NextIPv6, Epoch: 1700000000}, &key)
			m, err := Parse(b)
			if err != nil || !m.Verify(&key) {
				t.Fatalf("packet %d is refused: %v", i, err)
			}
			if sent[string(b)] {
				t.Errorf("packet %d was sent before", i)
			}
			sent[string(b)] = true
			if d := 1700000000 - m.Epoch; d > 100 || i == 0 && d != 0 {
				t.Errorf("packet %d has epoch %d", i, m.Epoch)
			}
		}
	}
}

func TestQueries(t *testing.T) {
	key := NewKey(SHA1, password)
	query := func(text string) *Message {
		m, err := Parse(newPacket(key, QueryRequest, NextNone, AppendQuery(nil, 7, text)))
		if err != nil {
			t.Fatal(err)
		}
		return &m
	}
	for text, want := range map[string]string{
		"version": QueryVersion, "Outer-Endpoint": QueryOuterEndpoint, "SHUTDOWN\x00": QueryShutdown,
		"": "", strings.Repeat("a", 65): "",
	} {
		if number, name := query(text).Query(); number != 7 || name != want {
			t.Errorf("%q: query %d for %q", text, number, name)
		}
	}
	if number, text, ok := query("AYIYA/draft-02 x\x1b[2J\xff").Answer(); number != 7 || text != "AYIYA/draft-02 x[2J" || !ok {
		t.Errorf("answer %d: %q, %v", number, text, ok)
	}
	if _, text, ok := query("").Answer(); text != "" || ok {
		t.Errorf("refusal: %q, %v", text, ok)
	}
}

func TestNotices(t *testing.T) {
	key := NewKey(SHA1, password)
	read := func(text string) (Notice, error) {
		m, err := Parse(newPacket(key, MOTD, NextNone, []byte(text)))
		if err != nil {
			t.Fatal(err)
		}
		return m.Notice()
	}
	full := Notice{time.Unix(1700000000, 0), "Maintenance", "https://broker.example/", "Tonight. Sorry."}
	if got, err := read(string(AppendNotice(nil, full))); err != nil || got != full {
		t.Errorf("%+v, %v", got, err)
	}
	for text, want := range map[string]Notice{
		"1700000000\nOnly a title":                {Time: full.Time, Title: "Only a title"},
		"1700000000\nt\n\nfirst\nsecond\x1b[0m\n": {Time: full.Time, Title: "t", Text: "first second[0m"},
		"0\n": {Time: time.Unix(0, 0)},
	} {
		if got, err := read(text); err != nil || got != want {
			t.Errorf("%q: %+v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "1700000000", "now\ntitle", "-1\ntitle", "99999999999999999999\nt", strings.Repeat("1", 5000)} {
		if got, err := read(text); err == nil {
			t.Errorf("%q: %+v", text, got)
		}
	}
}

func TestHashNames(t *testing.T) {
	for _, h := range []Hash{MD5, SHA1, SHA256} {
		if got, err := ParseHash(h.String()); err != nil || got != h {
			t.Errorf("%v: %v, %v", h, got, err)
		}
	}
	for _, name := range []string{"", "none", "umac", "sha512"} {
		if h, err := ParseHash(name); err == nil {
			t.Errorf("%q is %v", name, h)
		}
	}
}

// A key is not in what a program prints.
func TestKeyIsHidden(t *testing.T) {
	k := NewKey(SHA1, password)
	for _, format := range []string{"%v", "%+v", "%#v", "%s"} {
		for _, v := range []any{k, &k} {
			if got := fmt.Sprintf(format, v); got != "sha1 key" {
				t.Errorf("%s of %T: %q", format, v, got)
			}
		}
	}
}

func TestNoAllocs(t *testing.T) {
	for _, h := range []Hash{MD5, SHA1, SHA256} {
		key := NewKey(h, password)
		b := newPacket(key, Forward, NextIPv6, ipv6(1000))
		var r Recent
		var s Signer
		var epoch uint32
		if n := testing.AllocsPerRun(1000, func() {
			epoch++
			s.Sign(b, &Header{Forward, NextIPv6, epoch, [16]byte{15: 1}}, &key)
			m, err := Parse(b)
			if _, ok := m.Address(); !ok || err != nil || !m.Verify(&key) || r.Check(&m) == Copy {
				t.Error("refused")
			}
			r.Add(&m, DefaultWindow)
		}); n != 0 {
			t.Errorf("%v: %v allocations", h, n)
		}
	}
}

func FuzzParse(f *testing.F) {
	for name := range vectors.Read(f) {
		if strings.HasPrefix(name, "AYIYA-") {
			f.Add(payload(f, name))
		}
	}
	key := NewKey(SHA1, password)
	f.Add(newPacket(key, MOTD, NextNone, []byte("0\ntitle\n\ntext")))
	f.Add(newPacket(key, QueryRequest, NextNone, []byte("\x00\x00\x00\x01version")))
	f.Fuzz(func(t *testing.T, b []byte) {
		was := bytes.Clone(b)
		m, err := Parse(b)
		if err != nil {
			return
		}
		if n := len(b) - len(m.Payload); n < 8 || n != 8+len(m.Identity)+len(m.Signature()) {
			t.Fatalf("the header has %d bytes, identity %d, signature %d", n, len(m.Identity), len(m.Signature()))
		}
		k := NewKey(m.Hash, "x")
		m.Verify(&k)
		if !bytes.Equal(b, was) {
			t.Fatal("Verify has changed the packet")
		}
		switch m.Op {
		case MOTD:
			_, _ = m.Notice()
		case QueryRequest:
			m.Query()
		case QueryResponse:
			m.Answer()
		}
		// What is accepted is written the same, but for the signature.
		if id, ok := m.Address(); ok && m.secret {
			own := append(make([]byte, m.Hash.HeaderLen()), m.Payload...)
			Sign(own, &Header{m.Op, m.Next, m.Epoch, id}, &k)
			copy(own[24:], m.Signature())
			if !bytes.Equal(own, was) {
				t.Fatalf("written as\n%x, read was\n%x", own, was)
			}
		}
	})
}

func BenchmarkVerify(b *testing.B) {
	for _, h := range []Hash{MD5, SHA1, SHA256} {
		for _, n := range []int{0, 1360} {
			b.Run(fmt.Sprintf("%v/%d", h, n), func(b *testing.B) {
				key := NewKey(h, password)
				pkt := newPacket(key, Forward, NextIPv6, ipv6(n))
				b.SetBytes(int64(len(pkt)))
				b.ReportAllocs()
				for b.Loop() {
					if m, err := Parse(pkt); err != nil || !m.Verify(&key) {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
