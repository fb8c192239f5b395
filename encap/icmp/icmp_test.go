package icmp_test

import (
	"bytes"
	"encoding/binary"
	"testing"

	"sixfour/encap/header"
	"sixfour/encap/icmp"
)

// TestMeaning checks the table of mechanisms 1.6.
func TestMeaning(t *testing.T) {
	for _, c := range []struct {
		version    int
		typ, code  byte
		want       icmp.Meaning
		typ4, cod4 byte // what the sender of an inner IPv4 packet gets
		typ6, cod6 byte
	}{
		{4, 3, 0, icmp.NoNetwork, 3, 0, 1, 3},
		{4, 3, 1, icmp.Unreachable, 3, 1, 1, 3},
		{4, 3, 2, icmp.Unreachable, 3, 1, 1, 3},
		{4, 3, 3, icmp.Unreachable, 3, 1, 1, 3},
		{4, 3, 4, icmp.TooBig, 0, 0, 0, 0},
		{4, 3, 5, icmp.Nothing, 0, 0, 0, 0},
		{4, 3, 6, icmp.NoNetwork, 3, 0, 1, 3},
		{4, 3, 7, icmp.Unreachable, 3, 1, 1, 3},
		{4, 3, 9, icmp.Prohibited, 3, 13, 1, 1},
		{4, 3, 10, icmp.Prohibited, 3, 13, 1, 1},
		{4, 3, 13, icmp.Prohibited, 3, 13, 1, 1},
		{4, 3, 14, icmp.Nothing, 0, 0, 0, 0},
		{4, 3, 200, icmp.Nothing, 0, 0, 0, 0},
		{4, 4, 0, icmp.Nothing, 0, 0, 0, 0},
		{4, 5, 0, icmp.Nothing, 0, 0, 0, 0},
		{4, 11, 0, icmp.Unreachable, 3, 1, 1, 3},
		{4, 11, 1, icmp.Nothing, 0, 0, 0, 0},
		{4, 12, 0, icmp.Nothing, 0, 0, 0, 0},
		{6, 1, 0, icmp.Unreachable, 3, 1, 1, 3},
		{6, 1, 1, icmp.Unreachable, 3, 1, 1, 3},
		{6, 1, 4, icmp.Unreachable, 3, 1, 1, 3},
		{6, 2, 0, icmp.TooBig, 0, 0, 0, 0},
		{6, 3, 0, icmp.Unreachable, 3, 1, 1, 3},
		{6, 3, 1, icmp.Nothing, 0, 0, 0, 0},
		{6, 4, 0, icmp.Nothing, 0, 0, 0, 0}, // nothing is quoted
		{6, 4, 1, icmp.Nothing, 0, 0, 0, 0},
	} {
		m := icmp.Error{Version: c.version, Type: c.typ, Code: c.code}.Meaning()
		if m != c.want {
			t.Errorf("IPv%d %d/%d means %v, want %v", c.version, c.typ, c.code, m, c.want)
		}
		if m <= icmp.TooBig {
			continue
		}
		if typ, code := m.For(4); typ != c.typ4 || code != c.cod4 {
			t.Errorf("IPv%d %d/%d: %d/%d over IPv4", c.version, c.typ, c.code, typ, code)
		}
		if typ, code := m.For(6); typ != c.typ6 || code != c.cod6 {
			t.Errorf("IPv%d %d/%d: %d/%d over IPv6", c.version, c.typ, c.code, typ, code)
		}
	}
}

func TestMTU(t *testing.T) {
	for _, c := range []struct {
		version   int
		arg       uint32
		size, mtu int
	}{
		{4, 1400, 1500, 1400},
		{4, 68, 1500, 68},
		{4, 67, 1500, 0},
		{4, 1, 1500, 0},
		{4, 1500, 1500, 0},
		{4, 65535, 1500, 0},
		{4, 0, 1500, 1492}, // plateaus
		{4, 0, 1492, 1006},
		{4, 0, 1400, 1006},
		{4, 0, 508, 296},
		{4, 0, 69, 68},
		{4, 0, 68, 0},
		{6, 1400, 1480, 1400},
		{6, 600, 1480, 1280},
		{6, 0, 1480, 1280},
		{6, 600, 1280, 0},
		{6, 1<<32 - 1, 1480, 0},
	} {
		if got := (icmp.Error{Version: c.version, Type: 3, Code: 4, Arg: c.arg}).MTU(c.size); got != c.mtu {
			t.Errorf("IPv%d, MTU %d about %d bytes: %d, want %d", c.version, c.arg, c.size, got, c.mtu)
		}
	}
}

// packet returns an IP packet around a payload. The length of the source gives the
// version.
func packet(src, dst []byte, protocol byte, payload ...byte) []byte {
	if len(src) == 4 {
		b := make([]byte, 20, 20+len(payload))
		b[0], b[8], b[9] = 0x45, 64, protocol
		copy(b[12:], src)
		copy(b[16:], dst)
		binary.BigEndian.PutUint16(b[2:], uint16(20+len(payload)))
		header.IPv4(b).SetChecksum()
		return append(b, payload...)
	}
	b := make([]byte, 40, 40+len(payload))
	b[0], b[6], b[7] = 0x60, protocol, 64
	binary.BigEndian.PutUint16(b[4:], uint16(len(payload)))
	copy(b[8:], src)
	copy(b[24:], dst)
	return append(b, payload...)
}

func TestMayAnswer(t *testing.T) {
	a4, b4 := []byte{192, 0, 2, 1}, []byte{198, 51, 100, 1}
	a6 := []byte{0x20, 0x01, 0x0d, 0xb8, 15: 1}
	b6 := []byte{0x20, 0x01, 0x0d, 0xb8, 15: 2}
	many6 := []byte{0xff, 0x0e, 15: 1}
	later := packet(a4, b4, 17, 0, 0, 0, 0, 0, 0, 0, 0)
	later[7] = 1
	for _, c := range []struct {
		name        string
		pkt         []byte
		may, tooBig bool
	}{
		{"UDP", packet(a4, b4, 17, 0, 1, 2, 3), true, true},
		{"echo request", packet(a4, b4, 1, 8, 0), true, true},
		{"unreachable", packet(a4, b4, 1, 3, 1), false, false},
		{"redirect", packet(a4, b4, 1, 5, 0), false, false},
		{"time exceeded", packet(a4, b4, 1, 11, 0), false, false},
		{"parameter problem", packet(a4, b4, 1, 12, 0), false, false},
		{"ICMP that is cut off", packet(a4, b4, 1), false, false},
		{"later fragment", later, false, false},
		{"from 0.0.0.0", packet(make([]byte, 4), b4, 17), false, false},
		{"from 127.0.0.1", packet([]byte{127, 0, 0, 1}, b4, 17), false, false},
		{"from multicast", packet([]byte{224, 0, 0, 1}, b4, 17), false, false},
		{"from broadcast", packet([]byte{255, 255, 255, 255}, b4, 17), false, false},
		{"to multicast", packet(a4, []byte{239, 1, 2, 3}, 17), false, false},
		{"to broadcast", packet(a4, []byte{255, 255, 255, 255}, 17), false, false},
		{"nothing", nil, false, false},
		{"a byte", []byte{0x45}, false, false},
		{"less than a header", packet(a4, b4, 17)[:19], false, false},
		{"less than a header of IPv6", packet(a6, b6, 17)[:39], false, false},
		{"IPv5", append([]byte{0x55}, packet(a6, b6, 17)[1:]...), false, false},
		{"UDP over IPv6", packet(a6, b6, 17, 0, 1, 2, 3), true, true},
		{"echo request over IPv6", packet(a6, b6, 58, 128, 0), true, true},
		{"neighbour solicitation", packet(a6, b6, 58, 135, 0), true, true},
		{"redirect over IPv6", packet(a6, b6, 58, 137, 0), false, false},
		{"too big", packet(a6, b6, 58, 2, 0), false, false},
		{"error behind an option", packet(a6, b6, 60, 58, 0, 1, 4, 0, 0, 0, 0, 1, 0), false, false},
		{"error behind options and AH", packet(a6, b6, 60, 51, 0, 1, 4, 0, 0, 0, 0, 58, 0, 0, 0, 0, 0, 0, 0, 1, 0), false, false},
		{"error behind an option that leads out", packet(a6, b6, 60, 58, 9, 1, 4, 0, 0, 0, 0, 1, 0), false, false},
		{"ICMPv6 that is cut off", packet(a6, b6, 58), false, false},
		{"later fragment over IPv6", packet(a6, b6, 44, 17, 0, 0, 8, 0, 0, 0, 1), false, false},
		{"first fragment over IPv6", packet(a6, b6, 44, 17, 0, 0, 1, 0, 0, 0, 1, 0, 0), true, true},
		{"from ::", packet(make([]byte, 16), b6, 17), false, false},
		{"from ::1", packet([]byte{15: 1}, b6, 17), false, false},
		{"from multicast over IPv6", packet(many6, b6, 17), false, false},
		{"to multicast over IPv6", packet(a6, many6, 17), false, true},
	} {
		if got := icmp.MayAnswer(c.pkt, false); got != c.may {
			t.Errorf("%s: %v", c.name, got)
		}
		if got := icmp.MayAnswer(c.pkt, true); got != c.tooBig {
			t.Errorf("%s, too big: %v", c.name, got)
		}
	}
}

// TestAppend: an error quotes as much as its version allows, in one piece or two, and
// can be parsed again.
func TestAppend(t *testing.T) {
	for _, src := range [][]byte{{192, 0, 2, 1}, {0x20, 0x01, 0x0d, 0xb8, 15: 1}} {
		for _, size := range []int{0, 1, 500, 528, 529, 1192, 1193, 1400} {
			pkt := packet(src, src, 17, bytes.Repeat([]byte{7}, size)...)
			for _, cut := range []int{len(pkt), len(pkt) - size} {
				msg := icmp.AppendTooBig([]byte("before"), 1300, pkt[:cut], pkt[cut:])[6:]
				room := 548
				protocol := byte(header.ICMP)
				if len(src) == 16 {
					room, protocol = 1232, header.ICMPv6
					binary.BigEndian.PutUint16(msg[2:], ^header.Sum(msg, header.PseudoSum(src, src, len(msg), protocol)))
				}
				e, ok := icmp.Parse(packet(src, src, protocol, msg...))
				if !ok || e.Meaning() != icmp.TooBig || e.Arg != 1300 || !bytes.Equal(e.Quote, pkt[:min(len(pkt), room)]) {
					t.Errorf("%d bytes: %v %+v", len(pkt), ok, e)
				}
			}
		}
	}
}

// TestParseRefuses: damaged messages, and those that are no errors, are refused.
func TestParseRefuses(t *testing.T) {
	a := []byte{192, 0, 2, 1}
	good := icmp.Append(nil, 3, 1, 0, packet(a, a, 17, 1, 2, 3, 4), nil)
	if _, ok := icmp.Parse(packet(a, a, 1, good...)); !ok {
		t.Fatal("a good one")
	}
	bad := bytes.Clone(good)
	bad[len(bad)-1]++
	echo := icmp.Append(nil, 8, 0, 0, packet(a, a, 17), nil)
	for name, pkt := range map[string][]byte{
		"checksum":     packet(a, a, 1, bad...),
		"protocol":     packet(a, a, 17, good...),
		"echo request": packet(a, a, 1, echo...),
		"short":        packet(a, a, 1, good[:7]...),
		"empty":        packet(a, a, 1),
	} {
		if e, ok := icmp.Parse(pkt); ok {
			t.Errorf("%s: %+v", name, e)
		}
	}
}
