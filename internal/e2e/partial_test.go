package e2e

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"sixfour/encap/header"
	"sixfour/internal/netcfg"
)

// partialUDP is a UDP datagram to port 5555 whose checksum is that of the pseudo-header
// alone. The kernel of a virtual machine or container leaves inner checksums like this
// (checksum offload).
func partialUDP(src, dst netip.Addr, payload string) []byte {
	b := append([]byte{0x13, 0x88, 0x15, 0xb3, 0, 0, 0, 0}, payload...)
	binary.BigEndian.PutUint16(b[4:], uint16(len(b)))
	binary.BigEndian.PutUint16(b[6:], header.Fold(header.PseudoSum(src.AsSlice(), dst.AsSlice(), len(b), header.UDP)))
	return b
}

// withOptions is an IPv4 packet with four bytes of options that do nothing.
func withOptions(pkt []byte) []byte {
	b := append(append(append([]byte{}, pkt[:header.IPv4Len]...), 1, 1, 1, 1), pkt[header.IPv4Len:]...)
	b[0] = 0x46
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
	header.IPv4(b).SetChecksum()
	return b
}

// Datagrams with an incomplete checksum also arrive while sixfourd records what the uplink
// merges (GRO), in all forms of packets that the kernel never merges.
func TestPartialChecksumsArrive(t *testing.T) {
	t.Parallel()
	src4, dst4 := ip4A[0], ip4B[0]
	src6, dst6 := ip6A[0], ip6B[0]
	mid := func(next byte, payload []byte) []byte {
		return ip6(netip.MustParseAddr("fd00:6::1"), netip.MustParseAddr("fd00:6::2"), next, payload)
	}
	inner := func(payload string) []byte { return ip4(src4, dst4, header.UDP, partialUDP(src4, dst4, payload)) }
	padding := []byte{header.UDP, 0, 1, 4, 0, 0, 0, 0}
	limit := []byte{header.ProtoIPv4, 0, 4, 1, 4, 1, 1, 0} // what Linux sends
	for _, c := range []struct {
		name, config string
		dst          netip.Addr
		build        func(payload string) []byte
	}{
		{"two layers", "mode = \"4in6in4\"\n" + over4 + mid6 + inner4, dst4, func(p string) []byte {
			return ip4(outerA, outerB, header.ProtoIPv6, mid(header.ProtoIPv4, inner(p)))
		}},
		{"two layers with an encapsulation limit", "mode = \"4in6in4\"\n" + over4 + mid6 + inner4, dst4, func(p string) []byte {
			return ip4(outerA, outerB, header.ProtoIPv6, mid(header.DestOptions, append(limit[:8:8], inner(p)...)))
		}},
		{"inner options", "mode = \"4in4\"\n" + over4 + inner4, dst4, func(p string) []byte {
			return ip4(outerA, outerB, header.ProtoIPv4, withOptions(inner(p)))
		}},
		{"outer options", "mode = \"4in4\"\n" + over4 + inner4, dst4, func(p string) []byte {
			return withOptions(ip4(outerA, outerB, header.ProtoIPv4, inner(p)))
		}},
		{"inner extension header", "mode = \"6in4\"\n" + over4 + inner6, dst6, func(p string) []byte {
			return ip4(outerA, outerB, header.ProtoIPv6, ip6(src6, dst6, header.DestOptions, append(padding[:8:8], partialUDP(src6, dst6, p)...)))
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			h := newHosts(t, 1500)
			must(t, h.b.Feature("vb", netcfg.MergesDatagrams, true)) // so that recording is on from the start
			b := start(t, h.b, tunnelOf(c.config, 2))
			at, err := h.b.ListenUDP(netip.AddrPortFrom(c.dst, 5555))
			must(t, err)
			defer at.Close()
			must(t, at.SetReadDeadline(time.Now().Add(patience)))
			for _, payload := range []string{"one", "another", "a third"} {
				send(t, h.a, c.build(payload))
				buf := make([]byte, 100)
				n, err := at.Read(buf)
				if err != nil {
					_, s := b.status(t)
					t.Fatalf("%v: %+v", err, s.In)
				}
				if string(buf[:n]) != payload {
					t.Errorf("%q arrived, want %q", buf[:n], payload)
				}
			}
		})
	}
}
