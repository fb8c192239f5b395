package decode_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"sixfour/internal/decode"
	"sixfour/internal/pcapng"
)

const (
	fc1, fc2 = "fc000000000000000000000000000001", "fc000000000000000000000000000002"
	// IPv4 10.0.0.1 > 10.0.0.2, ICMP echo request with 4 bytes
	ping = "45000020 00010000 400166da 0a000001 0a000002 0800000000010002 61626364"
)

func bytesOf(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

const pingLines = `  IPv4          20 B  10.0.0.1 > 10.0.0.2, protocol 1 (ICMP), TTL 64, TOS 0x00, ID 1, length 32, checksum 0x66da right
  ICMP           8 B  echo request, identifier 1, sequence 2
  payload        4 B
`

func TestLayers(t *testing.T) {
	for _, c := range []struct {
		name, packet string
		link         int
		want         string
	}{
		{"ping", ping, pcapng.LinkRaw, pingLines},
		{"double", "45b8005c 00004000 40290000 cb00710a cb007114 6b8c3027 00200440" + fc1 + fc2 + ping, pcapng.LinkRawDLT,
			`  IPv4          20 B  203.0.113.10 > 203.0.113.20, protocol 41 (IPv6 inside), TTL 64, TOS 0xb8, ID 0, DF, length 92, checksum 0x0000 WRONG
  IPv6          40 B  fc00::1 > fc00::2, next header 4 (IPv4 inside), hop limit 64, traffic class 0xb8, flow label 0xc3027, payload 32
` + pingLines},
		{"Ethernet, VLAN", "020000000002 020000000001 8100 0005 0800" + ping, decode.LinkEthernet,
			"  Ethernet      14 B  02:00:00:00:00:01 > 02:00:00:00:00:02, type 0x8100\n  VLAN           4 B  id 5\n" + pingLines},
		{"Linux any", "0000 0001 0006 020000000001 0000 0800" + ping, 113, "  Linux         16 B\n" + pingLines},
		{"Linux any, 2", "0800 0000 00000001 0001 00 06 0200000000010000" + ping, 276, "  Linux         20 B\n" + pingLines},
		{"loopback", "02000000" + ping, 0, "  loopback       4 B\n" + pingLines},
		{"GRE", "45000038 00060000 402f0000 cb007114 cb00710a b0000800 00000000 00000007 00000009" + "4500001400010000403b0000 0a000001 0a000002", pcapng.LinkRaw,
			`  IPv4          20 B  203.0.113.20 > 203.0.113.10, protocol 47 (GRE), TTL 64, TOS 0x00, ID 6, length 56, checksum 0x0000 WRONG
  GRE           16 B  protocol 0x0800, checksum WRONG, key 7, sequence 9
  IPv4          20 B  10.0.0.1 > 10.0.0.2, protocol 59 (nothing), TTL 64, TOS 0x00, ID 1, length 20, checksum 0x0000 WRONG
`},
		{"extensions", "60000000 00283c40" + fc1 + fc2 + "2c00040103010000 1100000900000063 00070035 00100000 6162636465666768 6970", pcapng.LinkRaw,
			`  IPv6          40 B  fc00::1 > fc00::2, next header 60 (options), hop limit 64, traffic class 0x00, flow label 0x00000, payload 40, 6 bytes of it are missing
  options        8 B  next header 44 (fragment), encapsulation limit 3
  fragment       8 B  next header 17 (UDP), fragment at 8, ID 0x00000063
  payload       18 B
`},
		{"first fragment", "60000000 00102c40" + fc1 + fc2 + "1100000100000063 00070035 00100000", pcapng.LinkRaw,
			`  IPv6          40 B  fc00::1 > fc00::2, next header 44 (fragment), hop limit 64, traffic class 0x00, flow label 0x00000, payload 16
  fragment       8 B  next header 17 (UDP), fragment at 0, ID 0x00000063
  UDP            8 B  7 > 53, length 16, no checksum
`},
		{"fragment of IPv4", "4500001c 00072001 40110000 0a000001 0a000002 0063003500100000", pcapng.LinkRaw,
			`  IPv4          20 B  10.0.0.1 > 10.0.0.2, protocol 17 (UDP), TTL 64, TOS 0x00, ID 7, fragment at 8, length 28, checksum 0x0000 WRONG
  payload        8 B
`},
		{"TCP", "4500002c 00024000 40060000 0a000001 c0a80205 04d20050 00000001 00000000 60420200 00000000 020405b4", pcapng.LinkRaw,
			`  IPv4          20 B  10.0.0.1 > 192.168.2.5, protocol 6 (TCP), TTL 64, TOS 0x00, ID 2, DF, length 44, checksum 0x0000 WRONG
  TCP           24 B  1234 > 80, SYN ECE, sequence 1, window 512, MSS 1460
`},
		{"too big, quoted", "60000000 00303a40" + fc2 + fc1 + "0200000000000514" + "60000000 05dc3a40" + fc1 + fc2, pcapng.LinkRaw,
			`  IPv6          40 B  fc00::2 > fc00::1, next header 58 (ICMPv6), hop limit 64, traffic class 0x00, flow label 0x00000, payload 48
  ICMPv6         8 B  packet too big, MTU 1300
    IPv6          40 B  fc00::1 > fc00::2, next header 58 (ICMPv6), hop limit 64, traffic class 0x00, flow label 0x00000, payload 1500, 1500 bytes of it are missing
    ICMPv6         0 B  cut off
`},
		{"unreachable, quoted", "45000038 000b0000 40010000 cb007101 cb00710a 030d000000000000 4500003c 00010000 40290000 cb00710a cb007114 6000000000143b40", pcapng.LinkRaw,
			`  IPv4          20 B  203.0.113.1 > 203.0.113.10, protocol 1 (ICMP), TTL 64, TOS 0x00, ID 11, length 56, checksum 0x0000 WRONG
  ICMP           8 B  unreachable, prohibited
    IPv4          20 B  203.0.113.10 > 203.0.113.20, protocol 41 (IPv6 inside), TTL 64, TOS 0x00, ID 1, length 60, checksum 0x0000 WRONG, 32 bytes of it are missing
    IPv6           8 B  cut off
`},
		{"neighbour solicitation", "60000000 00203aff" + fc1 + "ff0200000000000000000001ff000002 8700000000000000" + fc2 + "0101020000000001", pcapng.LinkRaw,
			`  IPv6          40 B  fc00::1 > ff02::1:ff00:2, next header 58 (ICMPv6), hop limit 255, traffic class 0x00, flow label 0x00000, payload 32
  ICMPv6        32 B  neighbour solicitation, target fc00::2
`},
		{"router advertisement", "60000000 00303aff" + fc1 + fc2 + "8600000040000708 0000000000000000 030440c0000000010000000100000000 20010db8000000000000000000000000", pcapng.LinkRaw,
			`  IPv6          40 B  fc00::1 > fc00::2, next header 58 (ICMPv6), hop limit 255, traffic class 0x00, flow label 0x00000, payload 48
  ICMPv6        48 B  router advertisement, router lifetime 1800, prefix 2001:db8::/64
`},
		{"nothing known", "45000015 00010000 40fd0000 0a000001 0a000002 61", pcapng.LinkRaw,
			`  IPv4          20 B  10.0.0.1 > 10.0.0.2, protocol 253, TTL 64, TOS 0x00, ID 1, length 21, checksum 0x0000 WRONG
  payload        1 B  of protocol 253
`},
		{"DNS", "4500003c 00010000 40110000 0a000001 0a000002 c0000035 00280000 00010100000100000000 0000 07 6578616d706c65 03 6f7267 00 0001 0001" + "000000", pcapng.LinkRaw,
			`  IPv4          20 B  10.0.0.1 > 10.0.0.2, protocol 17 (UDP), TTL 64, TOS 0x00, ID 1, length 60, checksum 0x0000 WRONG
  UDP            8 B  49152 > 53, length 40, no checksum
  DNS           32 B
`},
		{"VXLAN", "45000056 00010000 40110000 0a000001 0a000002 c00012b5 00420000 0800000000007b00 020000000002 020000000001 0800" + ping, pcapng.LinkRaw,
			`  IPv4          20 B  10.0.0.1 > 10.0.0.2, protocol 17 (UDP), TTL 64, TOS 0x00, ID 1, length 86, checksum 0x0000 WRONG, 4 bytes of it are missing
  UDP            8 B  49152 > 4789, length 66, no checksum
  VXLAN          8 B
  Ethernet      14 B  02:00:00:00:00:01 > 02:00:00:00:00:02, type 0x0800
` + pingLines},
		{"wrong options of IPv4", "46000024 00010000 40010000 0a000001 0a000002 83ff0000 0800000000010002 61626364", pcapng.LinkRaw,
			`  IPv4          24 B  10.0.0.1 > 10.0.0.2, protocol 1 (ICMP), TTL 64, TOS 0x00, ID 1, length 36, checksum 0x0000 WRONG, options 4
  ICMP           8 B  echo request, identifier 1, sequence 2
  payload        4 B
`},
		{"no length", "45000000 00010000 40010000 0a000001 0a000002 08000000", pcapng.LinkRaw,
			`  IPv4          20 B  10.0.0.1 > 10.0.0.2, protocol 1 (ICMP), TTL 64, TOS 0x00, ID 1, length 0, checksum 0x0000 WRONG, which is less than the header
  payload        4 B
`},
		{"nothing in IPv6", "60000000 00003b40" + fc1 + fc2, pcapng.LinkRaw,
			`  IPv6          40 B  fc00::1 > fc00::2, next header 59 (nothing), hop limit 64, traffic class 0x00, flow label 0x00000, payload 0
`},
		{"TCP with a wrong option", "4500002c 00024000 40060000 0a000001 c0a80205 04d20050 00000001 00000000 60020200 00000000 0209ffff", pcapng.LinkRaw,
			`  IPv4          20 B  10.0.0.1 > 192.168.2.5, protocol 6 (TCP), TTL 64, TOS 0x00, ID 2, DF, length 44, checksum 0x0000 WRONG
  TCP           24 B  1234 > 80, SYN, sequence 1, window 512, an option is cut off
`},
		{"neighbour advertisement, cut", "60000000 00203aff" + fc1 + fc2 + "8800000060000000" + fc2 + "02010200", pcapng.LinkRaw,
			`  IPv6          40 B  fc00::1 > fc00::2, next header 58 (ICMPv6), hop limit 255, traffic class 0x00, flow label 0x00000, payload 32, 4 bytes of it are missing
  ICMPv6        24 B  neighbour advertisement, target fc00::2, an option is cut off
`},
		{"ARP", "ffffffffffff 020000000001 0806 0001080006040001 020000000001 0a000001 000000000000 0a000002", decode.LinkEthernet,
			"  Ethernet      14 B  02:00:00:00:00:01 > ff:ff:ff:ff:ff:ff, type 0x0806\n  ARP           28 B\n"},
		{"Ethernet that is cut off", "ffffffff", decode.LinkEthernet, "  Ethernet       4 B  cut off\n"},
		{"no IP", "f0", pcapng.LinkRaw, "  unknown        1 B  no IP version 15\n"},
		{"unknown link", "f0", 147, "  unknown        1 B  link type 147\n"},
		{"cut", "4500", pcapng.LinkRaw, "  IPv4           2 B  cut off\n"},
		{"nothing", "", pcapng.LinkRaw, ""},
	} {
		var out bytes.Buffer
		decode.Print(&out, decode.Layers(bytesOf(t, c.packet), c.link))
		if out.String() != c.want {
			t.Errorf("%s: got\n%swant\n%s", c.name, out.String(), c.want)
		}
	}
}

func file(t testing.TB) []byte {
	t.Helper()
	b := pcapng.AppendHeader(nil, "")
	b = pcapng.AppendInterface(b, pcapng.Interface{Name: "six0\x1b[2J inner", Link: pcapng.LinkRaw})
	pkt := bytesOf(t, ping)
	return pcapng.AppendPacket(b, &pcapng.Packet{
		Time: time.Date(2026, 3, 1, 12, 0, 0, 7, time.UTC), Data: pkt[:30], Length: len(pkt), Direction: pcapng.Inbound, ID: 7, Dropped: 2,
		Comments: []string{"dropped: martian: an inner address is not valid", "\x1b[2Jhidden"},
	})
}

func TestFile(t *testing.T) {
	var out bytes.Buffer
	n, err := decode.File(bytes.NewReader(file(t)), &out, false)
	const want = `1  2026-03-01T12:00:00.000000007Z  in  six0` + "\uFFFD" + `[2J inner  32 B, of which 30 were captured  packet 7
  (2 packets before it were not captured)
  dropped: martian: an inner address is not valid
  ` + "\uFFFD" + `[2Jhidden
  IPv4          20 B  10.0.0.1 > 10.0.0.2, protocol 1 (ICMP), TTL 64, TOS 0x00, ID 1, length 32, checksum 0x66da right, 2 bytes of it are missing
  ICMP           8 B  echo request, identifier 1, sequence 2
  payload        2 B
`
	if err != nil || n != 1 || out.String() != want {
		t.Errorf("%d, %v\n%s\nwant\n%s", n, err, out.String(), want)
	}
	out.Reset()
	if _, err := decode.File(bytes.NewReader(file(t)), &out, true); err != nil {
		t.Fatal(err)
	}
	var got struct {
		Number, Length, Captured int
		Time                     time.Time
		Direction, Interface     string
		Drop                     string
		ID                       uint64 `json:"packet_id"`
		Comments                 []string
		Layers                   []map[string]any
	}
	if err := json.Unmarshal(out.Bytes(), &got); err != nil || strings.Count(out.String(), "\n") != 1 {
		t.Fatalf("%v: %s", err, out.String())
	}
	if got.Number != 1 || got.Length != 32 || got.Captured != 30 || got.Direction != "in" || got.Drop != "martian" || got.ID != 7 || len(got.Layers) != 3 ||
		got.Layers[0]["layer"] != "IPv4" || got.Layers[0]["source"] != "10.0.0.1" || got.Layers[0]["checksum_right"] != true || got.Layers[1]["sequence"] != 2.0 || got.Layers[2]["bytes"] != 2.0 {
		t.Errorf("%s", out.String())
	}
	if _, err := decode.File(bytes.NewReader(file(t)[:150]), &out, false); err == nil || !strings.Contains(err.Error(), "at byte") {
		t.Errorf("cut: %v", err)
	}
}

// FuzzLayers: any bytes can be decoded.
func FuzzLayers(f *testing.F) {
	for _, s := range []string{ping, "6000000000283c40" + fc1 + fc2 + "2c000401030100001100000900000063", "4500003800060000402f0000cb007114cb00710ab0000800"} {
		f.Add(bytesOf(f, s), pcapng.LinkRaw)
		f.Add(bytesOf(f, "0200000000020200000000010800"+s), decode.LinkEthernet)
	}
	f.Fuzz(func(t *testing.T, b []byte, link int) {
		layers := decode.Layers(b, link)
		if len(layers) > 200 {
			t.Errorf("%d layers", len(layers))
		}
		sum := 0
		for _, l := range layers {
			sum += l.Bytes
		}
		if sum > len(b) {
			t.Errorf("%d bytes of %d", sum, len(b))
		}
		decode.Print(&bytes.Buffer{}, layers)
		if _, err := json.Marshal(layers); err != nil {
			t.Error(err)
		}
	})
}
