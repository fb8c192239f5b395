package teredo

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strings"
	"testing"

	"sixfour/encap/header"
	"sixfour/internal/vectors"
)

// payloads returns the UDP payloads of the vectors.
func payloads(t testing.TB) map[string][]byte {
	t.Helper()
	all := map[string][]byte{}
	for name, b := range vectors.Read(t) {
		if strings.HasPrefix(name, "TEREDO-") {
			all[name] = b[header.IPv4Len+8:]
		}
	}
	if len(all) < 25 {
		t.Fatalf("only %d vectors", len(all))
	}
	return all
}

// Every vector is read, and written again as it was.
func TestVectors(t *testing.T) {
	data := map[string]bool{"TEREDO-6": true, "TEREDO-7": true, "TEREDO-14a": true, "TEREDO-14b": true, "TEREDO-15d": true, "TEREDO-17a": true, "TEREDO-17e": true, "TEREDO-17f": true, "TEREDO-17g": true, "TEREDO-D1": true}
	for name, b := range payloads(t) {
		m, err := Parse(b)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got := Append(nil, &m); !bytes.Equal(got, b) {
			t.Errorf("%s: written as %x", name, got)
		}
		if IsData(b) != data[name] {
			t.Errorf("%s: data: %v", name, IsData(b))
		}
	}
}

func TestSolicitation(t *testing.T) {
	v := payloads(t)
	m := Message{Auth: &Auth{Nonce: 0x0102030405060708}, Packet: AppendSolicitation(nil, SolicitationSource)}
	if got := Append(nil, &m); !bytes.Equal(got, v["TEREDO-1"]) {
		t.Errorf("%x", got)
	}
	m = Message{Auth: &Auth{ID: []byte("alice"), Nonce: 0x0102030405060708}, Packet: m.Packet}
	m.Sign([]byte("teredo-secret"))
	if got := Append(nil, &m); !bytes.Equal(got, v["TEREDO-8"]) || !m.Verify([]byte("teredo-secret")) || m.Verify([]byte("other")) {
		t.Errorf("%x", got)
	}
	if cone, ok := Solicitation(m.Packet); cone || !ok {
		t.Error("not recognized")
	}
}

func TestAdvertisement(t *testing.T) {
	v := payloads(t)
	server := header.Mapping{Addr: 0x4136e378, Port: Port}
	m := Message{Auth: &Auth{Nonce: 0x0102030405060708}, Origin: header.Mapping{Addr: 0xc000022d, Port: 40000}, Packet: AppendAdvertisement(nil, server, SolicitationSource)}
	if got := Append(nil, &m); !bytes.Equal(got, v["TEREDO-2"]) {
		t.Errorf("%x\n%x", got, v["TEREDO-2"])
	}
	if at, ok := Advertisement(m.Packet); !ok || at != server.Addr {
		t.Errorf("%x, %v", at, ok)
	}
	for i := 6; i < len(m.Packet); i++ { // behind what Parse checks
		b := header.IPv6(bytes.Clone(m.Packet))
		b[i] ^= 0x01
		if _, ok := Advertisement(b); ok {
			t.Errorf("accepted with another byte %d", i)
		}
	}
}

func TestBubbles(t *testing.T) {
	v := payloads(t)
	a, b := Address(0x4136e378, header.Mapping{Addr: 0xc000022d, Port: 40000}, 0), Address(0x4136e378, header.Mapping{Addr: 0xcb007107, Port: 50505}, 0)
	bubble := AppendBubble(nil, a, b)
	if !bytes.Equal(bubble, v["TEREDO-3"]) || !IsBubble(bubble) {
		t.Errorf("%x", bubble)
	}
	if got := append(AppendOrigin(nil, ClientOf(a)), bubble...); !bytes.Equal(got, v["TEREDO-4"]) {
		t.Errorf("%x", got)
	}
	if got := AppendNonce(bytes.Clone(bubble), 0xcafebabe); !bytes.Equal(got, v["TEREDO-9"]) {
		t.Errorf("%x", got)
	}
	if a.Addr().String() != "2001:0:4136:e378:0:63bf:3fff:fdd2" || ServerOf(a) != 0x4136e378 {
		t.Errorf("%v", a.Addr())
	}
	if f := RandomFlags(0xffff); f != 0x3cff {
		t.Errorf("%#x", f)
	}
	m, err := Parse(v["TEREDO-9"])
	if n, ok := m.Nonce(); err != nil || !ok || n != 0xcafebabe {
		t.Error("nonce")
	}
}

func TestTrailers(t *testing.T) {
	bubble := AppendBubble(nil, Address(1, header.Mapping{Addr: 1, Port: 1}, 0), Address(1, header.Mapping{Addr: 2, Port: 2}, 0))
	at := []header.Mapping{{Addr: 0x0a000005, Port: 50001}, {Addr: 0x0a000006, Port: 50002}}
	for _, k := range []struct {
		name     string
		trailers []byte
		err      error
		others   int
		solicits bool
	}{
		{"alternate addresses", AppendAlternates(nil, at), nil, 2, false},
		{"five of them", append([]byte{3, 32}, make([]byte, 32)...), nil, 0, false},
		{"discovery", []byte{4, 4, 0, 0, 0, 0}, nil, 0, true},
		{"advertised", []byte{4, 4, 1, 0, 0, 0}, nil, 0, false},
		{"unknown, to be skipped", []byte{0x90, 1, 7, 0x06, 0}, nil, 0, false},
		{"unknown, to be discarded", []byte{0x41, 0}, errTrailer, 0, false},
		{"cut off", []byte{1, 4, 0}, errTrailer, 0, false},
		{"one byte", []byte{1}, errTrailer, 0, false},
	} {
		m, err := Parse(append(bytes.Clone(bubble), k.trailers...))
		if !errors.Is(err, k.err) || len(m.Alternates()) != k.others || m.Solicits() != k.solicits {
			t.Errorf("%s: %v, %v, %v", k.name, err, m.Alternates(), m.Solicits())
		}
		if k.others == 2 && (m.Alternates()[0] != at[0] || m.Alternates()[1] != at[1]) {
			t.Errorf("%v", m.Alternates())
		}
	}
}

func TestConnectivityTest(t *testing.T) {
	nonce := [16]byte{1, 2, 15: 9}
	b := header.IPv6(AppendTest(nil, header.Word6{Hi: 1}, header.Word6{Hi: 2}, nonce))
	b[40], b[42], b[43] = echoReply, 0, 0
	if !IsEchoReply(b) {
		t.Fatal("no reply")
	}
	if _, ok := TestNonce(b); ok {
		t.Error("a wrong checksum")
	}
	binary.BigEndian.PutUint16(b[42:], ^header.Sum(b[40:], header.PseudoSum(b[8:24], b[24:40], len(b)-40, header.ICMPv6)))
	if got, ok := TestNonce(b); !ok || got != nonce {
		t.Errorf("%x, %v", got, ok)
	}
}

// Parse does not panic, and what it accepts is written as it was.
func FuzzParse(f *testing.F) {
	for _, b := range payloads(f) {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		IsData(b)
		m, err := Parse(b)
		if err != nil {
			return
		}
		if got := Append(nil, &m); m.Origin != (header.Mapping{}) && !bytes.Equal(got, b) { // an origin of zero is not written
			t.Errorf("%x is written as %x", b, got)
		}
		Advertisement(m.Packet)
		Solicitation(m.Packet)
		TestNonce(m.Packet)
		m.Verify([]byte("key"))
	})
}
