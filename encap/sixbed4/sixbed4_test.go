package sixbed4

import (
	"bytes"
	"net/netip"
	"testing"

	"sixfour/encap/header"
	"sixfour/encap/nd"
	"sixfour/internal/vectors"
)

// payload returns what follows the UDP header in a vector.
func payload(t testing.TB, name string) []byte {
	t.Helper()
	b := vectors.Read(t)[name]
	if len(b) < 28 {
		t.Fatalf("there is no vector %s", name)
	}
	return b[28:]
}

const (
	network = 0xfc640bedc6336402
	client  = "203.0.113.7:40000"
)

func mapping(s string) header.Mapping { return header.MappingOf(netip.MustParseAddrPort(s)) }

func TestAddress(t *testing.T) {
	for _, c := range []struct {
		at   string
		lan  uint16
		want string
	}{
		{client, 1, "fc64:bed:c633:6402:c800:7107:9c40:c001"},
		{"192.0.2.45:50505", 5, "fc64:bed:c633:6402:c000:22d:c549:5"},
		{"255.255.255.255:65535", MaxLAN, "fc64:bed:c633:6402:fcff:ffff:ffff:ffff"},
		{"1.2.3.4:1", 0, "fc64:bed:c633:6402:2:304:1:4000"},
	} {
		a := Address(network, mapping(c.at), c.lan)
		if got := a.Addr().String(); got != c.want || !Fits(a) {
			t.Errorf("%s: %s, want %s", c.at, got, c.want)
		}
		if got := MappingOf(a); got != mapping(c.at) {
			t.Errorf("%s: %v", c.want, got)
		}
	}
	if NetworkOf(0xbed, 0xc6336402) != network || RouterOf(header.Word6{Hi: network}) != 0xc6336402 {
		t.Error("the network of a router")
	}
	if Fits(header.Word6{Lo: 1 << 56}) {
		t.Error("the bits that must be 0")
	}
}

// The solicitations of the vectors are recognized, and the advertisement says what we say.
func TestSolicitation(t *testing.T) {
	for _, name := range []string{"6BED4-1", "6BED4-6"} {
		b := payload(t, name)
		if !IsSolicitation(b) {
			t.Errorf("%s is not recognized", name)
		}
		b[len(b)-1] ^= 1
		if IsSolicitation(b) {
			t.Errorf("%s with a wrong checksum", name)
		}
	}
	ours := AppendSolicitation(nil, 7)
	if !IsSolicitation(ours) || header.ReadWord6(ours[8:]) != NonceAddress(7) {
		t.Errorf("%x", ours)
	}
	b := payload(t, "6BED4-2")
	n, at, ok := Advertisement(b)
	if !ok || n != network || at != mapping(client) {
		t.Errorf("%x, %v, %v", n, at, ok)
	}
	got := AppendAdvertisement(nil, network, mapping(client), netip.IPv6Unspecified())
	b[45] = 0                  // flags that the draft has not
	copy(b[42:44], got[42:44]) // the checksum
	if !bytes.Equal(got, b) {
		t.Errorf("%x\nwant %x", got, b)
	}
	for i := 6; i < len(b); i++ { // other advertisements are none
		c := append([]byte(nil), payload(t, "6BED4-2")...)
		c[i] ^= 0x10
		if n, at, ok := Advertisement(c); ok {
			t.Errorf("byte %d: %x %v", i, n, at)
		}
	}
}

func TestNeighbour(t *testing.T) {
	me := Address(network, mapping("198.51.100.2:25790"), 0).Addr()
	b := AppendNeighbour(nil, me, netip.MustParseAddr("fe80::1"), mapping("198.51.100.2:25790"))
	m, ok := nd.Parse(b)
	if !ok || m.Target != me || !m.Router || !m.Solicited || !bytes.Equal(m.Link, []byte{0xbe, 0x64, 0xc6, 0x33, 0x64, 0x02}) {
		t.Errorf("%+v, %v", m, ok)
	}
}

func TestSeen(t *testing.T) {
	for class := range 256 {
		ip := header.IPv6(append([]byte{0x60 | byte(class>>4), byte(class<<4) | 0xa}, make([]byte, 38)...))
		flags := class>>2&7 == 0
		if p := PolicyOf(byte(class)); flags && p != Policy(class>>6) || !flags && p != Proper {
			t.Errorf("class %x: policy %d", class, p)
		}
		was := SetSeen(ip, true)
		want := byte(class)
		if flags {
			want |= 0x20
		}
		if ip.TrafficClass() != want || was != (flags && class&0x20 != 0) || ip[1]&0xf != 0xa || ip[0]>>4 != 6 {
			t.Errorf("class %x: %x, %v", class, ip[:2], was)
		}
		if SetSeen(ip, false); flags && ip.TrafficClass() != byte(class)&^0x20 {
			t.Errorf("class %x: cleared: %x", class, ip[:2])
		}
	}
}

func FuzzAdvertisement(f *testing.F) {
	f.Add(payload(f, "6BED4-1"))
	f.Add(payload(f, "6BED4-2"))
	f.Fuzz(func(t *testing.T, b []byte) {
		ip, _ := header.ParseIPv6(b)
		if ip == nil {
			return
		}
		IsSolicitation(ip)
		if n, at, ok := Advertisement(ip); ok && !Fits(Address(n, at, 0)) {
			t.Errorf("%x, %v", n, at)
		}
	})
}
