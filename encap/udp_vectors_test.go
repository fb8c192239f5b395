package encap_test

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"strings"
	"testing"

	"sixfour/encap"
	"sixfour/encap/drop"
	"sixfour/encap/framing"
	"sixfour/encap/header"
	"sixfour/internal/vectors"
)

// udpVector is a packet to or from a kernel's tunnel in UDP.
type udpVector struct {
	outer []byte
	layer encap.Layer // of its sender
	inner int         // offset of the inner packet
	sent  bool        // we send the same
	want  drop.Reason
}

// udpVectors returns the vectors of FOU, GUE and GRE-in-UDP, by their names.
func udpVectors(t testing.TB) map[string]udpVector {
	t.Helper()
	all := make(map[string]udpVector)
	for name, outer := range vectors.Read(t) {
		if kind, _, _ := strings.Cut(name, "-"); kind != "FOU" && kind != "GUE" && kind != "GREUDP" {
			continue
		}
		v := udpVector{outer: outer, sent: true}
		at := header.IPv4Len
		if header.Version(outer) == 6 {
			at = header.IPv6Len
		}
		udp := outer[at:]
		f := framing.FOU{Local: binary.BigEndian.Uint16(udp), Remote: binary.BigEndian.Uint16(udp[2:]), NoChecksum: udp[6]|udp[7] == 0}
		var k framing.Framing
		switch {
		case strings.HasPrefix(name, "FOU-"):
			v.inner, k = at+8, f
		case strings.HasPrefix(name, "GREUDP-"):
			f.Inside = framing.GRE{}
			v.inner, k = at+12, f
		case strings.HasPrefix(name, "GUE-3"):
			f.Inside = framing.GRE{}
			v.inner, k = at+16, framing.GUE(f)
		case strings.HasPrefix(name, "GUE-"):
			v.inner, k = at+12, framing.GUE(f)
		}
		switch name {
		case "FOU-D1":
			v.want = drop.BadChecksum
		case "FOU-D2":
			v.want = drop.ForeignSource
		case "FOU-D3":
			v.want = drop.Congestion
		case "GUE-D1", "GUE-D3":
			v.want = drop.BadGUE
		case "GUE-4a", "GUE-5a": // variant 1
			v.inner, v.sent = at+8, false
		case "GUE-7a": // with private flags
			v.inner, v.sent = at+16, false
		case "GUE-9": // with private flags and two offsets
			v.inner, v.sent = at+20, false
		}
		if at == header.IPv4Len {
			ip := header.IPv4(outer)
			v.layer = encap.Layer{Kind: encap.SixInFour.With(k), Local: ip.Src(), Remote: ip.Dst()}
		} else {
			ip := header.IPv6(outer)
			v.layer = encap.Layer{Kind: encap.SixInSix.With(k), Local: ip.Src(), Remote: ip.Dst()}
		}
		v.sent = v.sent && v.want == drop.None
		all[name] = v
	}
	return all
}

// options returns the options of the tunnel that has sent the vector.
func (v *udpVector) options() encap.Options {
	o := vectorOptions(encap.NoEncapLimit)
	if header.Version(v.outer) == 6 {
		o.FlowLabel.Fixed = header.IPv6(v.outer).FlowLabel()
	}
	return o
}

// receiver returns the layers of the tunnel that gets the vector.
func (v *udpVector) receiver(name string) []encap.Layer {
	l := flip([]encap.Layer{v.layer})[0]
	switch f := l.Kind.Framing().(type) {
	case framing.FOU:
		f.Local, f.Remote = f.Remote, f.Local+1 // packets from any port arrive
		l.Kind = l.Kind.With(f)
	case framing.GUE:
		f.Local, f.Remote = f.Remote, f.Local+1
		l.Kind = l.Kind.With(f)
	}
	if name == "FOU-D2" {
		l.Remote = netip.MustParseAddr("203.0.113.2")
	}
	return []encap.Layer{l}
}

// completed returns the inner packet of GUE-9 with the checksum that its sender has left to
// the receiver.
func completed(t *testing.T, inner []byte) []byte {
	inner = bytes.Clone(inner)
	tcp := inner[header.IPv6Len:]
	ip := header.IPv6(inner)
	pseudo := header.PseudoSum(ip.Source(), ip.Dest(), len(tcp), header.TCP)
	if got := binary.BigEndian.Uint16(tcp[16:]); got != header.Fold(pseudo) {
		t.Fatalf("the checksum of TCP is %#x, and not the sum of the pseudo header", got)
	}
	tcp[16], tcp[17] = 0, 0
	binary.BigEndian.PutUint16(tcp[16:], ^header.Sum(tcp, pseudo))
	return inner
}

// What kernels have sent is received, and what they have dropped is dropped. Where our
// headers are the same, the same bytes are sent.
func TestVectorsOfUDP(t *testing.T) {
	all := udpVectors(t)
	if len(all) != 35 {
		t.Fatalf("%d vectors", len(all))
	}
	for name, v := range all {
		inner := v.outer[v.inner:]
		if name == "GUE-9" {
			inner = completed(t, inner)
		}
		in := build(t, v.receiver(name), 1500, v.options())
		if got, r := in.Decapsulate(append(bytes.Clone(v.outer), 0, 0)); r != v.want || r == drop.None && !bytes.Equal(got, inner) {
			t.Errorf("%s: %v, want %v: %x", name, r, v.want, got)
		}
		at := header.HeadersLen(v.layer.Local)
		if got, r := in.Open(header.OuterOf(v.outer), bytes.Clone(v.outer[at:])); name != "FOU-D1" && r != v.want || r == drop.None && !bytes.Equal(got, inner) {
			t.Errorf("%s, without its UDP header: %v, want %v: %x", name, r, v.want, got)
		}
		if !v.sent {
			continue
		}
		s := build(t, []encap.Layer{v.layer}, 1500, v.options())
		got, r := encapsulate(s, inner)
		if r != drop.None {
			t.Errorf("%s: %v", name, r)
			continue
		}
		if header.Version(got) == 4 { // we send no identification with DF
			copy(got[4:6], v.outer[4:6])
			header.IPv4(got).SetChecksum()
		}
		if !bytes.Equal(got, v.outer) {
			t.Errorf("%s\n got %x\nwant %x", name, got, v.outer)
		}
		// Every part of it is recognized in an ICMP error, and no other ports are.
		for n := at; n <= len(got); n++ {
			if q, ok := s.Unquote(quoted(got, n)); !ok || n == len(got) && !bytes.Equal(q.Inner, inner) {
				t.Fatalf("%s, quoted to %d bytes: %v, %x", name, n, ok, q.Inner)
			}
		}
		for _, port := range []int{at - 7, at - 5} {
			other := quoted(got, len(got))
			other[port]++
			if _, ok := s.Unquote(other); ok {
				t.Errorf("%s: another port is unquoted", name)
			}
		}
	}
}

// Packets that are cut off at any byte are refused, whether the lengths in their headers say
// so or not, and change nothing outside them.
func TestUDPCutOff(t *testing.T) {
	for name, v := range udpVectors(t) {
		in, at := build(t, v.receiver(name), 1500, v.options()), header.HeadersLen(v.layer.Local)
		for n := range v.outer {
			if _, r := in.Decapsulate(bytes.Clone(v.outer[:n])); r == drop.None {
				t.Fatalf("%s: %d bytes are accepted", name, n)
			}
			if n < at {
				continue
			}
			cut := bytes.Clone(v.outer[:n])
			binary.BigEndian.PutUint16(cut[at-4:], uint16(n-at+header.UDPLen))
			cut[at-2], cut[at-1] = 0, 0
			if header.Version(cut) == 4 {
				binary.BigEndian.PutUint16(cut[2:], uint16(n))
				header.IPv4(cut).SetChecksum()
			} else {
				binary.BigEndian.PutUint16(cut[4:], uint16(n-header.IPv6Len))
			}
			if _, r := in.Decapsulate(cut); r == drop.None {
				t.Fatalf("%s: %d bytes are accepted with their lengths", name, n)
			}
		}
	}
}

// quoted returns the first n bytes of a packet of ours, with identification 0.
func quoted(pkt []byte, n int) []byte {
	b := bytes.Clone(pkt)
	if header.Version(b) == 4 {
		b[4], b[5] = 0, 0
		header.IPv4(b).SetChecksum()
	}
	return b[:n]
}

// An IPv4 packet on a port of FOU whose tunnel carries only IPv6 is dropped, and one on that
// of a tunnel that carries either is accepted by its first four bits.
func TestFOUOtherVersion(t *testing.T) {
	v := udpVectors(t)["FOU-7"]
	l := v.receiver("FOU-7")
	f := l[0].Kind.Framing().(framing.FOU)
	f.Version = 6
	l[0].Kind = l[0].Kind.With(f)
	if _, r := build(t, l, 1500, v.options()).Decapsulate(bytes.Clone(v.outer)); r != drop.UnknownProtocol {
		t.Errorf("%v", r)
	}
}
