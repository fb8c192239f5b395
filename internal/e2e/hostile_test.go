package e2e

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"sixfour/encap"
	"sixfour/encap/drop"
	"sixfour/encap/header"
	"sixfour/encap/source"
	"sixfour/internal/rig"
)

// forge is an outer packet from b to a, as b's daemon would make it, and its
// sender may spoil: with an inner packet of 100 bytes from 10.0.0.2 to 10.0.0.1.
func forge(t *testing.T) []byte {
	t.Helper()
	inner := make([]byte, encap.Headroom+100)
	ip := inner[encap.Headroom:]
	ip[0], ip[8], ip[9] = 0x45, 64, header.UDP
	binary.BigEndian.PutUint16(ip[2:], 100)
	copy(ip[12:], inB.AsSlice())
	copy(ip[16:], inA.AsSlice())
	header.IPv4(ip).SetChecksum()
	m, _ := encap.ModeByName("4in6in4")
	s, err := encap.New(m.Between(encap.Endpoints{Local: outerB, Remote: outerA, Local6: in6B, Remote6: in6A}), 1500,
		encap.DefaultOptions, source.New(nil, nil, false), encap.NewRecord())
	must(t, err)
	pkt, r := s.Encapsulate(inner, encap.Headroom)
	if r != drop.None {
		t.Fatal(r)
	}
	return pkt
}

const (
	mid    = header.IPv4Len       // offset of the IPv6 header
	inside = mid + header.IPv6Len // of the inner IPv4 header
)

// A peer whose network card computes checksums, but with no card between us (virtio, veth),
// sends packets with incomplete checksums.
func TestPartialChecksum(t *testing.T) {
	h := newHosts(t, 1500)
	a := start(t, h.a, configA())
	start(t, h.b, configB())
	reachable(t, h.a, inB)
	conn, err := h.a.ListenUDP(netip.AddrPortFrom(inA, 0))
	must(t, err)
	defer conn.Close()
	pkt := forge(t)
	ip := header.IPv4(pkt[inside:])
	udp := ip.Payload()
	binary.BigEndian.PutUint16(udp[0:], 4000)
	binary.BigEndian.PutUint16(udp[2:], conn.LocalAddr().(*net.UDPAddr).AddrPort().Port())
	binary.BigEndian.PutUint16(udp[4:], uint16(len(udp)))
	binary.BigEndian.PutUint16(udp[6:], header.Fold(header.PseudoSum(ip.Source(), ip.Dest(), len(udp), header.UDP)))
	copy(udp[8:], "half done")
	raw, err := h.b.OpenRaw()
	must(t, err)
	defer raw.Close()
	must(t, raw.Send(pkt))
	must(t, conn.SetReadDeadline(time.Now().Add(patience)))
	got := make([]byte, 100)
	n, err := conn.Read(got)
	must(t, err)
	if want := udp[8:]; !bytes.Equal(got[:n], want) {
		t.Errorf("got %x, want %x", got[:n], want)
	}
	if _, s := a.status(t); len(s.In.Drops) > 0 {
		t.Errorf("drops: %+v", s.In)
	}
}

// The kernel writes into record route and timestamp options of packets that it receives,
// after it has verified the checksum, which is then wrong.
func TestOuterOptions(t *testing.T) {
	h := newHosts(t, 1500)
	a := start(t, h.a, configA())
	start(t, h.b, configB())
	reachable(t, h.a, inB)
	conn, err := h.a.ListenUDP(netip.AddrPortFrom(inA, 0))
	must(t, err)
	defer conn.Close()
	raw, err := h.b.OpenRaw()
	must(t, err)
	defer raw.Close()
	for _, options := range [][]byte{
		{7, 15, 4, 12: 0, 15: 0}, // record route (RFC 791 section 3.1)
		{0x44, 12, 5, 0, 11: 0},  // timestamp
		{0x44, 12, 5, 1, 11: 0},  // with addresses
		{0x94, 4, 0, 0},          // router alert (RFC 2113)
		{1, 1, 1, 0},             // nothing
	} {
		pkt := slices.Insert(forge(t), header.IPv4Len, options...)
		pkt[0] += byte(len(options) / 4)
		binary.BigEndian.PutUint16(pkt[2:], uint16(len(pkt)))
		header.IPv4(pkt).SetChecksum()
		udp := header.IPv4(pkt[inside+len(options):]).Payload()
		binary.BigEndian.PutUint16(udp[2:], conn.LocalAddr().(*net.UDPAddr).AddrPort().Port())
		binary.BigEndian.PutUint16(udp[4:], uint16(len(udp)))
		must(t, raw.Send(pkt))
		must(t, conn.SetReadDeadline(time.Now().Add(patience)))
		if _, err := conn.Read(make([]byte, 100)); err != nil {
			t.Errorf("options %x: %v", options, err)
		}
	}
	if _, s := a.status(t); len(s.In.Drops) > 0 {
		t.Errorf("drops: %+v", s.In)
	}
}

// A hostile sender on the path: each packet is dropped under one reason, and the tunnel
// continues.
func TestHostileSender(t *testing.T) {
	h := newHosts(t, 1500)
	a := start(t, h.a, configA())
	start(t, h.b, configB())
	reachable(t, h.a, inB)
	raw, err := h.b.OpenRaw()
	must(t, err)
	defer raw.Close()
	sum := func(b []byte, off int) { header.IPv4(b[off:]).SetChecksum() }
	cases := []struct {
		name  string
		spoil func(b []byte) []byte
		want  drop.Reason
		stray bool // belongs to no tunnel
	}{
		{"foreign source", func(b []byte) []byte { copy(b[12:], []byte{203, 0, 113, 99}); return b }, drop.ForeignSource, true},
		{"nothing inside", func(b []byte) []byte { return b[:20] }, drop.Truncated, false},
		{"half an IPv6 header", func(b []byte) []byte { return b[:40] }, drop.Truncated, false},
		{"inner packet cut", func(b []byte) []byte { return b[:len(b)-1] }, drop.Truncated, false},
		{"IPv4 where IPv6 should be", func(b []byte) []byte { return append(b[:20:20], b[inside:]...) }, drop.WrongVersion, false},
		{"inner IHL of 4", func(b []byte) []byte { b[inside] = 0x44; return b }, drop.LyingLength, false},
		{"inner length below its header", func(b []byte) []byte { b[inside+3] = 10; sum(b, inside); return b }, drop.LyingLength, false},
		{"inner checksum", func(b []byte) []byte { b[inside+10] ^= 0x10; return b }, drop.BadChecksum, false},
		{"foreign IPv6 source", func(b []byte) []byte { b[mid+8+15] = 9; return b }, drop.ForeignSource, false},
		{"our own inner source", func(b []byte) []byte { copy(b[inside+12:], inA.AsSlice()); sum(b, inside); return b }, drop.OwnSource, false},
		{"loopback inside", func(b []byte) []byte { copy(b[inside+12:], []byte{127, 0, 0, 1}); sum(b, inside); return b }, drop.Martian, false},
		{"a tunnel in the tunnel", func(b []byte) []byte {
			b[inside+9] = header.ProtoIPv6
			copy(b[inside+16:], outerA.AsSlice())
			sum(b, inside)
			return b
		}, drop.Nested, false},
		{"the same, in IPv6", func(b []byte) []byte { b[mid+6] = header.ProtoIPv6; return b }, drop.Nested, false},
		{"congestion mark on what cannot have one", func(b []byte) []byte { b[1] |= header.CE; return b }, drop.Congestion, false},
		{"endless options", func(b []byte) []byte {
			b[mid+6] = header.DestOptions
			b[inside], b[inside+1] = header.DestOptions, 255
			return b
		}, drop.BadExtension, false},
		{"inner TTL 0", func(b []byte) []byte { b[inside+8] = 0; sum(b, inside); return b }, drop.TTLExpired, false},
		{"fragment of the IPv6 layer", func(b []byte) []byte {
			frag := []byte{header.ProtoIPv4, 0, 0, 1, 0, 0, 0, 7}
			b = slices.Insert(b, inside, frag...)
			b[mid+6] = header.FragmentHdr
			binary.BigEndian.PutUint16(b[mid+4:], uint16(len(b)-inside))
			return b
		}, drop.Fragment, false},
	}
	want := map[string]uint64{}
	strays := map[string]uint64{}
	for _, c := range cases {
		must(t, raw.Send(c.spoil(forge(t))))
		if c.stray {
			strays[c.want.String()]++
		} else {
			want[c.want.String()]++
		}
	}
	eventually(t, "every packet counted", func() error {
		s, tun := a.status(t)
		if fmt.Sprint(tun.In.Drops) != fmt.Sprint(want) || fmt.Sprint(s.Stray.Drops) != fmt.Sprint(strays) {
			return fmt.Errorf("drops %v and %v, want %v and %v", tun.In.Drops, s.Stray.Drops, want, strays)
		}
		return nil
	})
	pings(t, h.a, inB, rig.PingOptions{})

	// A flood of such packets does not fill the log: there is one line a second for each
	// goroutine.
	before := strings.Count(a.log.String(), "dropped")
	bad := cases[0].spoil(forge(t))
	for range 20000 {
		if err := raw.Send(bad); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the flood counted", func() error {
		s, _ := a.status(t)
		if s.Stray.Drops["foreign_source"] < 10000 { // the socket's queue may lose some
			return errors.New("not yet")
		}
		return nil
	})
	if lines := strings.Count(a.log.String(), "dropped") - before; lines > 20 {
		t.Errorf("%d log lines about 20000 packets", lines)
	}
	pings(t, h.a, inB, rig.PingOptions{})
	if !strings.Contains(a.log.String(), `"reason": "foreign_source"`) {
		t.Errorf("no word of it in the log:\n%s", a.log.String())
	}
}

// Echo requests to the layer's address that the daemon answers itself: only valid ones are
// answered, and never more than arrived.
func TestHostileEcho(t *testing.T) {
	h := newHosts(t, 1500)
	a := start(t, h.a, configA(`address = ["10.0.0.1/30"]`))
	b := start(t, h.b, configB())
	a.answered(t)
	b.answered(t)
	_, before := a.status(t)
	raw, err := h.b.OpenRaw()
	must(t, err)
	defer raw.Close()
	echo := func() []byte {
		b := make([]byte, mid+header.IPv6Len+12)
		b[0], b[8], b[9] = 0x45, 64, header.ProtoIPv6
		binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
		copy(b[12:], outerB.AsSlice())
		copy(b[16:], outerA.AsSlice())
		b[mid], b[mid+5], b[mid+6], b[mid+7] = 0x60, 12, header.ICMPv6, 64
		copy(b[mid+8:], in6B.AsSlice())
		copy(b[mid+24:], in6A.AsSlice())
		b[inside] = 128
		return b
	}
	check := func(b []byte) []byte {
		ip, msg := header.IPv6(b[mid:]), b[inside:]
		binary.BigEndian.PutUint16(msg[2:], 0)
		binary.BigEndian.PutUint16(msg[2:], ^header.Sum(msg, header.PseudoSum(ip.Source(), ip.Dest(), len(msg), header.ICMPv6)))
		return b
	}
	refused := [][]byte{
		echo(), // no checksum
		func() []byte { b := echo(); b[inside+1] = 1; return check(b) }(),  // code 1
		func() []byte { b := echo(); b[mid+6] = header.UDP; return b }(),   // not ICMPv6
		func() []byte { b := echo(); b[mid+5] = 4; return b[:inside+4] }(), // too short
	}
	for _, b := range refused {
		binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
		must(t, raw.Send(b))
	}
	reply := echo() // perhaps to another program: no error, and not answered
	reply[inside] = 129
	must(t, raw.Send(check(reply)))
	must(t, raw.Send(check(echo())))
	eventually(t, "one answer, and four refusals", func() error {
		_, s := a.status(t)
		if s.Answered != before.Answered+1 || s.In.Drops["unknown_protocol"] != uint64(len(refused)) {
			return fmt.Errorf("%+v", s)
		}
		return nil
	})
}
