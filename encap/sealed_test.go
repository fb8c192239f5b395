package encap

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"net/netip"
	"testing"
	"time"

	"sixfour/encap/drop"
	"sixfour/encap/framing"
	"sixfour/encap/header"
	"sixfour/encap/seal"
	"sixfour/encap/source"
)

// Vectors of draft-templin-intarea-seal-68: a packet in one piece, and both pieces of another.
const (
	sealWhole = "45000054100100003f2c7f46c0000201c633640229000002010203046000000000103a3f20010db800010000000000000000000120010db80002000000000000" +
		"00000002800044a112340001736978666f757221"
	sealFirst = "450004fc100200003f2c7a9dc0000201c6336402290000030102030560000000051c3a3f20010db800010000000000000000000120010db80002000000000000" +
		"000000028000f15812340001000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f202122232425262728292a2b2c2d2e2f30313233" +
		"3435363738393a3b3c3d3e3f404142434445464748494a4b4c4d4e4f505152535455565758595a5b5c5d5e5f606162636465666768696a6b6c6d6e6f70717273" +
		"7475767778797a7b7c7d7e7f808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9fa0a1a2a3a4a5a6a7a8a9aaabacadaeafb0b1b2b3" +
		"b4b5b6b7b8b9babbbcbdbebfc0c1c2c3c4c5c6c7c8c9cacbcccdcecfd0d1d2d3d4d5d6d7d8d9dadbdcdddedfe0e1e2e3e4e5e6e7e8e9eaebecedeeeff0f1f2f3" +
		"f4f5f6f7f8f9fafbfcfdfeff000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f202122232425262728292a2b2c2d2e2f30313233" +
		"3435363738393a3b3c3d3e3f404142434445464748494a4b4c4d4e4f505152535455565758595a5b5c5d5e5f606162636465666768696a6b6c6d6e6f70717273" +
		"7475767778797a7b7c7d7e7f808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9fa0a1a2a3a4a5a6a7a8a9aaabacadaeafb0b1b2b3" +
		"b4b5b6b7b8b9babbbcbdbebfc0c1c2c3c4c5c6c7c8c9cacbcccdcecfd0d1d2d3d4d5d6d7d8d9dadbdcdddedfe0e1e2e3e4e5e6e7e8e9eaebecedeeeff0f1f2f3" +
		"f4f5f6f7f8f9fafbfcfdfeff000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f202122232425262728292a2b2c2d2e2f30313233" +
		"3435363738393a3b3c3d3e3f404142434445464748494a4b4c4d4e4f505152535455565758595a5b5c5d5e5f606162636465666768696a6b6c6d6e6f70717273" +
		"7475767778797a7b7c7d7e7f808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9fa0a1a2a3a4a5a6a7a8a9aaabacadaeafb0b1b2b3" +
		"b4b5b6b7b8b9babbbcbdbebfc0c1c2c3c4c5c6c7c8c9cacbcccdcecfd0d1d2d3d4d5d6d7d8d9dadbdcdddedfe0e1e2e3e4e5e6e7e8e9eaebecedeeeff0f1f2f3" +
		"f4f5f6f7f8f9fafbfcfdfeff000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f202122232425262728292a2b2c2d2e2f30313233" +
		"3435363738393a3b3c3d3e3f404142434445464748494a4b4c4d4e4f505152535455565758595a5b5c5d5e5f606162636465666768696a6b6c6d6e6f70717273" +
		"7475767778797a7b7c7d7e7f808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9fa0a1a2a3a4a5a6a7a8a9aaabacadaeafb0b1b2b3" +
		"b4b5b6b7b8b9babbbcbdbebfc0c1c2c3c4c5c6c7c8c9cacbcccdcecfd0d1d2d3d4d5d6d7d8d9dadbdcdddedfe0e1e2e3e4e5e6e7e8e9eaebecedeeeff0f1f2f3" +
		"f4f5f6f7f8f9fafbfcfdfeff000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f202122232425262728292a2b2c2d2e2f30313233" +
		"3435363738393a3b3c3d3e3f404142434445464748494a4b4c4d4e4f505152535455565758595a5b5c5d5e5f606162636465666768696a6b6c6d6e6f70717273" +
		"7475767778797a7b7c7d7e7f808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9fa0a1a2a3a4a5a6a7a8a9aaabacadaeaf"
	sealSecond = "45000080100300003f2c7f18c0000201c6336402290004e201020305b0b1b2b3b4b5b6b7b8b9babbbcbdbebfc0c1c2c3c4c5c6c7c8c9cacbcccdcecfd0d1d2d3" +
		"d4d5d6d7d8d9dadbdcdddedfe0e1e2e3e4e5e6e7e8e9eaebecedeeeff0f1f2f3f4f5f6f7f8f9fafbfcfdfeff000102030405060708090a0b0c0d0e0f10111213"
)

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func sealStack(t testing.TB, path PathMTU, local, remote string) *Stack {
	t.Helper()
	return sealStackOf(t, InSEAL, path, local, remote)
}

func sealStackOf(t testing.TB, k Kind, path PathMTU, local, remote string) *Stack {
	t.Helper()
	o := DefaultOptions
	o.TTL = InheritTTL
	s, err := New([]Layer{{Kind: k, Local: netip.MustParseAddr(local), Remote: netip.MustParseAddr(remote)}}, path, o, source.New(nil, nil, false), NewRecord())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

const (
	sealA = "192.0.2.1"
	sealB = "198.51.100.2"
)

// joinSealed does what the end of a tunnel does with packets, and returns the inner ones.
func joinSealed(t *testing.T, s *Stack, outers ...[]byte) (all [][]byte) {
	t.Helper()
	var j seal.Joiner
	var w seal.Window
	for _, b := range outers {
		inner, r := s.Decapsulate(bytes.Clone(b))
		if r == drop.Fragment && inner != nil {
			whole, why, _ := j.Add(inner, &w, time.Now())
			if why != drop.None {
				t.Fatal(why)
			}
			if whole == nil {
				continue
			}
			inner, r = s.DecapsulateJoined(whole)
		}
		if r != drop.None {
			t.Fatal(r)
		}
		all = append(all, inner)
	}
	return all
}

// sameButIDs compares outer packets, except for the identifications of IPv4, which differ.
func sameButIDs(t *testing.T, got, want []byte) {
	t.Helper()
	got, want = bytes.Clone(got), bytes.Clone(want)
	for _, b := range [][]byte{got, want} {
		if ip, r := header.ParseIPv4(b); r != drop.None || len(ip) != len(b) {
			t.Fatalf("%v: %x", r, b)
		}
		clear(b[4:6])
		clear(b[10:12])
	}
	if !bytes.Equal(got, want) {
		t.Errorf("\n got %x\nwant %x", got[:60], want[:60])
	}
}

// The vectors are opened, and made again.
func TestSEALVectors(t *testing.T) {
	a, b := sealStackOf(t, InSEAL.With(framing.SEAL{First: 0x01020304, Given: true}), 1280, sealA, sealB), sealStack(t, 1280, sealB, sealA)
	whole := unhex(t, sealWhole)
	got := joinSealed(t, b, whole)
	if len(got) != 1 || !bytes.Equal(got[0], whole[28:]) {
		t.Fatalf("%x", got)
	}
	outer, r := a.Encapsulate(append(make([]byte, Headroom), got[0]...), Headroom)
	if r != drop.None {
		t.Fatal(r)
	}
	sameButIDs(t, outer, whole)

	first, second := unhex(t, sealFirst), unhex(t, sealSecond)
	for _, order := range [][][]byte{{first, second}, {second, first}} {
		if got = joinSealed(t, b, order...); len(got) != 1 || len(got[0]) != 1348 || !bytes.Equal(got[0], append(bytes.Clone(first[28:]), second[28:]...)) {
			t.Fatalf("%x", got)
		}
	}
	if !a.InPieces(got[0], len(got[0])) {
		t.Fatal("the packet is not cut")
	}
	var pieces [][]byte
	for p, r := range a.EncapsulatePieces(append(make([]byte, Headroom), got[0]...), Headroom, make([]byte, Headroom+1500)) {
		if r != drop.None {
			t.Fatal(r)
		}
		pieces = append(pieces, bytes.Clone(p))
	}
	if len(pieces) != 2 {
		t.Fatalf("%d pieces", len(pieces))
	}
	sameButIDs(t, pieces[0], first)
	sameButIDs(t, pieces[1], second)
	if bytes.Equal(pieces[0][4:6], pieces[1][4:6]) {
		t.Errorf("identifications %x %x of IPv4", pieces[0][4:6], pieces[1][4:6])
	}
}

// In UDP, the SEAL header of the vector follows a UDP header without a checksum. Identifications
// begin with the given one, also with 0 and with the largest one.
func TestSEALInUDP(t *testing.T) {
	whole := unhex(t, sealWhole)
	for _, first := range []uint32{0x01020304, 0, 1, 1<<32 - 1} {
		f := framing.FOU{Local: 45000, Remote: 45000, NoChecksum: true, Inside: framing.SEAL{First: first, Given: true}}
		a, b := sealStackOf(t, InSEAL.With(f), 1500, sealA, sealB), sealStackOf(t, InSEAL.With(f), 1500, sealB, sealA)
		for i := range uint32(3) {
			outer, r := a.Encapsulate(append(make([]byte, Headroom), whole[28:]...), Headroom)
			if r != drop.None {
				t.Fatal(r)
			}
			want := append([]byte{0xaf, 0xc8, 0xaf, 0xc8, 0, 72, 0, 0}, whole[20:24]...)
			want = append(binary.BigEndian.AppendUint32(want, first+i), whole[28:]...)
			if ip := header.IPv4(outer); ip.Protocol() != header.UDP || !bytes.Equal(ip.Payload(), want) {
				t.Errorf("\n got %x\nwant %x", outer[20:], want)
			}
			if inner, r := b.Decapsulate(outer); r != drop.None || !bytes.Equal(inner, whole[28:]) {
				t.Errorf("%v: %x", r, inner)
			}
		}
	}
}

// DF is set in packets that not every path carries; identifications increase.
func TestSEALHeader(t *testing.T) {
	a := sealStack(t, 1500, sealA, sealB)
	last := uint32(0)
	for i, c := range []struct {
		size int
		df   bool
	}{{100, false}, {1252, false}, {1253, true}, {1472, true}} {
		pkt := make([]byte, c.size)
		pkt[0], pkt[7] = 0x60, 9
		binary.BigEndian.PutUint16(pkt[4:], uint16(c.size-header.IPv6Len))
		outer, r := a.Encapsulate(append(make([]byte, Headroom), pkt...), Headroom)
		if r != drop.None {
			t.Fatal(r)
		}
		h, ok := seal.Parse(outer[header.IPv4Len:])
		if ip := header.IPv4(outer); !ok || ip.MayFragment() == c.df || ip.TTL() != 9 || h.More || h.Offset != 0 || h.Next != header.ProtoIPv6 {
			t.Errorf("%d bytes: %x", c.size, outer[:28])
		}
		if i > 0 && h.ID != last+1 {
			t.Errorf("identification %d after %d", h.ID, last)
		}
		last = h.ID
	}
}

// What is no SEAL packet is dropped under its reason.
func TestSEALRefused(t *testing.T) {
	b := sealStack(t, 1500, sealB, sealA)
	change := func(at int, value byte) []byte {
		p := unhex(t, sealWhole)
		p[at] = value
		return p
	}
	for _, c := range []struct {
		name string
		pkt  []byte
		want drop.Reason
	}{
		{"without S", change(23, 0), drop.UnknownProtocol},
		{"TCP inside", change(20, 6), drop.UnknownProtocol},
		{"IPv4 said, IPv6 there", change(20, 4), drop.WrongVersion},
	} {
		if _, r := b.Decapsulate(c.pkt); r != c.want {
			t.Errorf("%s: %v, want %v", c.name, r, c.want)
		}
	}
	joined := []byte{0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6, 0, 0, 192, 0, 2, 1, 198, 51, 100, 2}
	if _, r := b.DecapsulateJoined(append(joined, make([]byte, 20)...)); r != drop.UnknownProtocol {
		t.Errorf("joined TCP: %v", r)
	}
}
