package seal

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"math/rand/v2"
	"testing"
	"time"

	"sixfour/encap/drop"
	"sixfour/encap/header"
)

var noon = time.Date(2026, 12, 1, 12, 0, 0, 0, time.UTC)

// packet returns a packet of an IP version with n bytes of payload, and options in IPv4.
func packet(version, n, options int) []byte {
	if version == 6 {
		b := make([]byte, header.IPv6Len+n)
		b[0], b[6], b[7] = 0x62, 17, 61
		binary.BigEndian.PutUint16(b[4:], uint16(n))
		copy(b[8:], "source of packetdestination of a")
		fill(b[header.IPv6Len:])
		return b
	}
	head := header.IPv4Len + options
	b := make([]byte, head+n)
	b[0], b[1], b[4], b[5], b[6], b[8], b[9] = 0x40|byte(head/4), 2, 1, 2, 0x40, 61, 6
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
	copy(b[12:], "\xc0\x00\x02\x01\xc6\x33\x64\x02")
	for i := header.IPv4Len; i < head; i++ {
		b[i] = 1
	}
	fill(b[head:])
	header.IPv4(b[:head]).SetChecksum()
	return b
}

func fill(b []byte) {
	for i := range b {
		b[i] = byte(i * 7)
	}
}

// pieces cuts a packet as the datapath does.
func pieces(t *testing.T, pkt []byte, most int, id uint32) [][]byte {
	t.Helper()
	n, ok := First(pkt, len(pkt), most)
	if !ok {
		t.Fatalf("%d bytes do not go into two pieces of %d", len(pkt), most)
	}
	at := len(pkt) - Payload(pkt, len(pkt))
	var all [][]byte
	for i, part := range [][]byte{pkt[at : at+n], pkt[at+n:]} {
		b := make([]byte, 200, 2000)
		head := PutHead(b, pkt, Header{Offset: i * n, More: i == 0, ID: id}, len(part))
		p := append(b[:head], part...)
		if _, r := header.Parse(p, header.Version(pkt)); r != drop.None || len(p) > most || !IsPiece(p) {
			t.Fatalf("piece %d: %v, %d bytes, a piece: %v", i, r, len(p), IsPiece(p))
		}
		all = append(all, p)
	}
	return all
}

// The headers of the vectors SEAL-1, SEAL-2a and SEAL-2b of the draft's format.
func TestHeader(t *testing.T) {
	for _, c := range []struct {
		bytes string
		want  Header
	}{
		{"2900000201020304", Header{Next: 41, ID: 0x01020304}},
		{"2900000301020305", Header{Next: 41, More: true, ID: 0x01020305}},
		{"290004e201020305", Header{Next: 41, Offset: 1248, ID: 0x01020305}},
	} {
		b, _ := hex.DecodeString(c.bytes)
		if h, ok := Parse(b); !ok || h != c.want {
			t.Errorf("%s: %+v, %v", c.bytes, h, ok)
		}
		got := make([]byte, HeaderLen)
		if c.want.Put(got); !bytes.Equal(got, b) {
			t.Errorf("%x, want %s", got, c.bytes)
		}
		if _, ok := Parse(b[:7]); ok {
			t.Errorf("%s: seven bytes are taken", c.bytes)
		}
		b[3] &^= 2
		if _, ok := Parse(b); ok || isPiece(b) {
			t.Errorf("%s: taken without S", c.bytes)
		}
	}
}

// Packets pass in two pieces, in either order, with everything in their headers.
func TestPieces(t *testing.T) {
	for _, c := range []struct{ version, payload, options, most int }{
		{6, 1460, 0, 1240}, {6, 1460, 0, 1280}, {6, 1460, 0, 784}, {6, 1233, 0, 1280}, {6, 1232, 0, 1279},
		{4, 1480, 0, 1220}, {4, 1480, 0, 1260}, {4, 1480, 0, 776}, {4, 1440, 40, 1220},
	} {
		pkt := packet(c.version, c.payload, c.options)
		was := bytes.Clone(pkt)
		for turn := range 2 {
			var j Joiner
			var w Window
			two := pieces(t, pkt, c.most, 77)
			whole, r, other := j.Add(two[turn], &w, noon)
			if whole != nil || r != drop.None || other != drop.None {
				t.Errorf("%+v: the first one: %d bytes, %v, %v", c, len(whole), r, other)
			}
			if whole, r, _ = j.Add(two[1-turn], &w, noon); !bytes.Equal(whole, was) || r != drop.None {
				t.Errorf("%+v: %v\n%x\n%x", c, r, whole, was)
			}
		}
		if !bytes.Equal(pkt, was) {
			t.Errorf("%+v: the packet was changed", c)
		}
	}
}

// A packet that two pieces cannot carry is refused.
func TestTooLargeForTwo(t *testing.T) {
	for _, c := range []struct {
		version, payload, most int
		ok                     bool
	}{
		{6, 1460, 780, true}, {6, 1460, 779, false}, {6, 1460, 40, false}, {6, 1460, 0, false}, {6, 1460, -1, false}, {6, 0, 1280, false},
		{4, 1480, 776, true}, {4, 1480, 767, false},
	} {
		pkt := packet(c.version, c.payload, 0)
		if n, ok := First(pkt, len(pkt), c.most); ok != c.ok {
			t.Errorf("%+v: %d, %v", c, n, ok)
		}
	}
}

// The congestion mark of either piece is that of the packet.
func TestCongestion(t *testing.T) {
	for _, version := range []int{4, 6} {
		for marked := range 2 {
			pkt := packet(version, 1400, 0)
			var j Joiner
			var w Window
			two := pieces(t, pkt, 1000, 5)
			markCE(two[marked])
			j.Add(two[0], &w, noon)
			whole, r, _ := j.Add(two[1], &w, noon)
			if r != drop.None || !isCE(whole) {
				t.Errorf("IPv%d, piece %d: %v", version, marked, r)
			}
			if _, r := header.Parse(whole, version); r != drop.None {
				t.Errorf("IPv%d: %v", version, r)
			}
		}
	}
}

// What cannot be two pieces of one packet makes none, under its reason.
func TestRefused(t *testing.T) {
	two := pieces(t, packet(6, 1400, 0), 1000, 5)
	change := func(i int, h Header, cut int) []byte {
		b := bytes.Clone(two[i])
		h.Put(b[header.IPv6Len:])
		b = b[:len(b)-cut]
		binary.BigEndian.PutUint16(b[4:], uint16(len(b)-header.IPv6Len))
		return b
	}
	for _, c := range []struct {
		name  string
		piece []byte
		want  drop.Reason
	}{
		{"empty", change(1, Header{Next: 17, Offset: 952, ID: 5}, len(two[1])-header.IPv6Len-HeaderLen), drop.Fragment},
		{"a middle one", change(0, Header{Next: 17, Offset: 8, More: true, ID: 5}, 0), drop.Fragment},
		{"a first one of 951 bytes", change(0, Header{Next: 17, More: true, ID: 5}, 1), drop.Fragment},
		{"beyond the limit", change(1, Header{Next: 17, Offset: 1<<16 - 8, ID: 5}, 0), drop.Fragment},
		{"another offset", change(1, Header{Next: 17, Offset: 960, ID: 5}, 0), drop.Fragment},
		{"another protocol", change(1, Header{Next: 6, Offset: 952, ID: 5}, 0), drop.None},
		{"another identification", change(1, Header{Next: 17, Offset: 952, ID: 6}, 0), drop.None},
		{"an identification from far away", change(1, Header{Next: 17, Offset: 952, ID: 5 + 1<<17}, 0), drop.Sequence},
		{"twice", two[0], drop.None},
	} {
		var j Joiner
		var w Window
		j.Add(two[0], &w, noon)
		if whole, r, _ := j.Add(c.piece, &w, noon); whole != nil || r != c.want {
			t.Errorf("%s: %d bytes, %v, want %v", c.name, len(whole), r, c.want)
		}
	}
	var j Joiner
	var w Window
	if whole, r, _ := j.Add(change(0, Header{Next: 17, ID: 5}, 0), &w, noon); r != drop.None || len(whole) != len(two[0])-HeaderLen {
		t.Errorf("in one piece: %v", r)
	}
	if j.Add(two[0], &w, noon); true {
		if whole, _, _ := j.Add(two[1], &w, noon.Add(Timeout+1)); whole != nil {
			t.Error("a piece waits for too long")
		}
	}
}

// A sender that starts again with another identification is heard after a pause.
func TestWindow(t *testing.T) {
	var w Window
	for i, c := range []struct {
		id   uint32
		at   time.Duration
		want bool
	}{
		{1<<32 - 3, 0, true}, {1<<32 - 1, 0, true}, {0, 0, true}, {1<<32 - 2, 0, true}, {7, 0, true},
		{1 << 20, time.Second, false}, {1 << 20, windowTime, true}, {1<<20 + windowSize, windowTime, true}, {7, windowTime, false},
	} {
		if got := w.admit(c.id, noon.Add(c.at)); got != c.want {
			t.Errorf("step %d: %v", i, got)
		}
	}
}

// A flood of first pieces takes a fixed amount of memory, and genuine pieces that follow each
// other pass.
func TestFlood(t *testing.T) {
	var j Joiner
	var w, hostile Window
	pkt := packet(6, 1460, 0)
	lost := 0
	for i := range 10000 {
		forged := pieces(t, packet(6, 1460, 0), 1240, rand.Uint32())
		hostile = Window{}
		_, _, other := j.Add(forged[i%2], &hostile, noon)
		if other != drop.None {
			lost++
		}
		if i%100 == 0 {
			two := pieces(t, pkt, 1240, uint32(i))
			j.Add(two[0], &w, noon)
			if whole, _, _ := j.Add(two[1], &w, noon); !bytes.Equal(whole, pkt) {
				t.Fatalf("packet %d does not pass", i)
			}
		}
	}
	size := 0
	for i := range j.held {
		size += cap(j.held[i].pkt)
	}
	if size > maxHeld*2048 || lost < 9800 {
		t.Errorf("%d bytes, %d lost", size, lost)
	}
}

// FuzzAdd: whatever arrives, what comes out is a valid packet.
func FuzzAdd(f *testing.F) {
	for _, version := range []int{4, 6} {
		pkt := packet(version, 100, 0)
		n, _ := First(pkt, len(pkt), 110)
		b := make([]byte, 60)
		at := len(pkt) - Payload(pkt, len(pkt))
		head := PutHead(b, pkt, Header{More: true, ID: 1}, n)
		first := append(bytes.Clone(b[:head]), pkt[at:at+n]...)
		head = PutHead(b, pkt, Header{Offset: n, ID: 1}, len(pkt)-at-n)
		f.Add(first, append(bytes.Clone(b[:head]), pkt[at+n:]...))
	}
	f.Fuzz(func(t *testing.T, a, b []byte) {
		var j Joiner
		var w Window
		for _, p := range [][]byte{a, b, a, b} {
			p, r := header.Parse(bytes.Clone(p), header.Version(p))
			if r != drop.None || !IsPiece(p) {
				return
			}
			whole, _, _ := j.Add(p, &w, noon)
			if whole == nil {
				continue
			}
			if got, r := header.Parse(whole, header.Version(whole)); r != drop.None || len(got) != len(whole) {
				t.Fatalf("%v: %x", r, whole)
			}
		}
	})
}
