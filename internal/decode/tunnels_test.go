package decode_test

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"strings"
	"testing"

	"sixfour/encap/header"
	"sixfour/internal/decode"
	"sixfour/internal/pcapng"
	"sixfour/internal/vectors"
)

// The headers of tunnels in UDP, and of SEAL.
func TestTunnels(t *testing.T) {
	v := vectors.Read(t)
	for _, c := range []struct {
		vector string
		want   []string // lines after those of the IPv4 and the UDP header
	}{
		{"TEREDO-2", []string{
			"Teredo 13 B authentication, nonce 0102030405060708",
			"Teredo 8 B origin 192.0.2.45:40000",
			"IPv6 ", "ICMPv6 ",
		}},
		{"TEREDO-6", []string{"IPv6 ", "ICMPv6 "}},
		{"6BED4-1", []string{"IPv6 ", "ICMPv6 8 B router solicitation"}},
		{"6BED4-4", []string{"IPv6 ", "ICMPv6 8 B echo request"}},
		{"6BED4-5", []string{"6bed4 0 B keepalive or probe"}},
		{"6A44-2", []string{"6a44 20 B bubble, prefix 2001:db8:44:c633:6402:9cbb::/96, ID 1122334455667788"}},
		{"6A44-3", []string{"IPv6 ", "ICMPv6 8 B echo request"}},
		{"LISP-2", []string{"LISP 8 B nonce abcdef, instance 7, locator status 0x1", "IPv6 ", "ICMPv6 8 B echo"}},
		{"LISP-3", []string{"LISP 72 B Map-Register, records 1, nonce 0000000000000001"}},
		{"LISP-5", []string{"LISP 4 B encapsulated message", "IPv6 ", "UDP ", "LISP 56 B Map-Request, records 1, nonce a1a2a3a4a5a6a7a8"}},
		{"SEAL-1", []string{"SEAL 8 B next header 41 (IPv6 inside), ID 0x01020304", "IPv6 ", "ICMPv6 8 B echo"}},
		{"SEAL-2b", []string{"SEAL 8 B next header 41 (IPv6 inside), segment at 1248, ID 0x01020305", "payload 100 B"}},
	} {
		var b bytes.Buffer
		decode.Print(&b, decode.Layers(v[c.vector], pcapng.LinkRaw))
		lines := strings.Split(strings.TrimSpace(b.String()), "\n")
		lines = lines[1:]
		if !strings.HasPrefix(c.vector, "SEAL") {
			lines = lines[1:]
		}
		ok := len(lines) >= len(c.want)
		for i, want := range c.want {
			ok = ok && strings.HasPrefix(strings.Join(strings.Fields(lines[i]), " "), want)
		}
		if !ok {
			t.Errorf("%s:\n%s", c.vector, b.String())
		}
	}
	for name, b := range v { // cut off anywhere
		for n := range b {
			if len(decode.Layers(b[:n], pcapng.LinkRaw)) == 0 && n > 0 {
				t.Errorf("%s, %d bytes: nothing", name, n)
			}
		}
	}
}

// udp puts a UDP header between the IPv4 header and the payload of a packet.
func udp(pkt []byte, from, to uint16) []byte {
	b := append([]byte(nil), pkt[:header.IPv4Len]...)
	b[9] = header.UDP
	b = binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(b, from), to)
	b = binary.BigEndian.AppendUint16(b, uint16(len(pkt)-header.IPv4Len+header.UDPLen))
	b = append(append(b, 0, 0), pkt[header.IPv4Len:]...)
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
	header.IPv4(b).SetChecksum()
	return b
}

// text returns the decoded lines without repeated spaces.
func text(pkt []byte) string {
	var b bytes.Buffer
	decode.Print(&b, decode.Layers(pkt, pcapng.LinkRaw))
	return strings.Join(strings.Fields(b.String()), " ")
}

// SEAL over UDP is recognized by its port, or by a whole packet in it.
func TestSEALInUDP(t *testing.T) {
	v := vectors.Read(t)
	whole, segment := v["SEAL-1"], v["SEAL-2b"]
	other := append([]byte(nil), whole...)
	other[header.IPv4Len+3] = 0 // an IPv6 fragment header
	for _, c := range []struct {
		name string
		pkt  []byte
		want bool
	}{
		{"a packet", udp(whole, 45000, 45000), true},
		{"a packet between other ports", udp(whole, 50000, 4400), true},
		{"a segment", udp(segment, 50000, 45000), true},
		{"a segment between other ports", udp(segment, 50000, 4400), false},
		{"without the bit of SEAL", udp(other, 45000, 45000), false},
		{"cut off", udp(whole, 50000, 4400)[:60], false},
	} {
		if got := text(c.pkt); strings.Contains(got, " SEAL 8 B next header 41 (IPv6 inside)") != c.want {
			t.Errorf("%s: %s", c.name, got)
		}
	}
}

// IPv6 addresses of customers that share an IPv4 address have it and their port set in them.
func TestSharedAddresses(t *testing.T) {
	ip := func(src, dst, src4, dst4 string) []byte {
		b := []byte{0x60, 0, 0, 0, 0, 20, header.ProtoIPv4, 64}
		b = append(append(b, netip.MustParseAddr(src).AsSlice()...), netip.MustParseAddr(dst).AsSlice()...)
		inner := append([]byte{0x45, 0, 0, 20, 0, 0, 0, 0, 64, header.UDP, 0, 0}, netip.MustParseAddr(src4).AsSlice()...)
		inner = append(inner, netip.MustParseAddr(dst4).AsSlice()...)
		header.IPv4(inner).SetChecksum()
		return append(b, inner...)
	}
	for _, c := range []struct{ src, dst, src4, dst4, want, not string }{
		{"2001:db8:12:3400:0:c000:209:34", "2001:db8:ffff::1", "192.0.2.9", "198.51.100.1", "source has 192.0.2.9, PSID 0x34", "destination has"},
		{"2001:db8:ffff::1", "2001:db8:12:3400:c0:2:1200:3400", "198.51.100.1", "192.0.2.18", "destination has 192.0.2.18, PSID 0x34", "source has"},
		{"2001:db8:12:3400:0:c000:209:34", "2001:db8:ffff::1", "192.0.2.8", "198.51.100.1", "IPv4", "source has"},
		{"::", "::", "0.0.0.0", "0.0.0.0", "IPv4", "has 0.0.0.0"},
	} {
		if got := text(ip(c.src, c.dst, c.src4, c.dst4)); !strings.Contains(got, c.want) || strings.Contains(got, c.not) {
			t.Errorf("%s > %s: %s", c.src, c.dst, got)
		}
	}
}
