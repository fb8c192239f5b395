// Package wiretest provides network namespaces, packets and sockets for the tests of
// transports.
package wiretest

import (
	"bytes"
	"context"
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"sixfour/encap/header"
	"sixfour/internal/rig"
	"sixfour/internal/rig/rigtest"
	"sixfour/transport"
)

// Protocol is the protocol of Packet, a number for experiments (RFC 3692).
const Protocol = 253

// TunnelProtocols are the protocols of tunnels.
var TunnelProtocols = []byte{header.ProtoIPv4, header.ProtoIPv6, header.GRE}

// Ends are the addresses of an IP version in the namespaces of these tests.
type Ends struct{ Left, Right netip.Addr }

// The ends of each IP version.
var (
	Ends4 = Ends{netip.MustParseAddr("203.0.113.1"), netip.MustParseAddr("203.0.113.2")}
	Ends6 = Ends{netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2")}
)

// Both runs a test for both IP versions.
func Both(t *testing.T, f func(t *testing.T, e Ends)) {
	t.Run("IPv4", func(t *testing.T) { f(t, Ends4) })
	t.Run("IPv6", func(t *testing.T) { f(t, Ends6) })
}

// Alone returns a namespace whose loopback device has all the addresses.
func Alone(t testing.TB) *rig.Namespace {
	t.Helper()
	n := rigtest.Namespace(t, "alone")
	for _, a := range []netip.Addr{Ends4.Left, Ends4.Right, Ends6.Left, Ends6.Right} {
		rigtest.Must(t, n.AddAddr("lo", netip.PrefixFrom(a, a.BitLen())))
		Settle(t, n, a)
	}
	return n
}

// Settle waits until an address answers. A new IPv6 address cannot be used at once, and
// the first neighbour solicitation of a new device may be lost.
func Settle(t testing.TB, from *rig.Namespace, to netip.Addr) {
	t.Helper()
	for {
		r, err := rig.Ping(Soon(t), from, to, rig.PingOptions{})
		rigtest.Must(t, err)
		if r.Received > 0 {
			return
		}
	}
}

// Two returns
//
//	left (eth0: 203.0.113.1, 2001:db8::1) ---- right (eth0: 203.0.113.2, 2001:db8::2)
func Two(t testing.TB) (left, right *rig.Namespace) {
	t.Helper()
	left, right = rigtest.Namespace(t, "left"), rigtest.Namespace(t, "right")
	rigtest.Must(t, rig.Veth(left, "eth0", right, "eth0", 1500))
	for _, e := range []Ends{Ends4, Ends6} {
		bits := map[bool]int{true: 24, false: 64}[e.Left.Is4()]
		rigtest.Must(t, left.AddAddr("eth0", netip.PrefixFrom(e.Left, bits)))
		rigtest.Must(t, right.AddAddr("eth0", netip.PrefixFrom(e.Right, bits)))
	}
	for _, e := range []Ends{Ends4, Ends6} {
		Settle(t, left, e.Right)
	}
	return left, right
}

// Soon returns a context that ends tests that hang. Tests that pass are much faster.
func Soon(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// Dial opens a sender that is closed at the end of the test.
func Dial(t testing.TB, n *rig.Namespace, local netip.Addr, o transport.Options) (tx *transport.RawSender) {
	t.Helper()
	rigtest.Must(t, n.Do(func() (err error) {
		tx, err = transport.DialRaw(local, 41, o)
		return err
	}))
	t.Cleanup(func() { tx.Close() })
	return tx
}

// Listen opens a receiver that is closed at the end of the test.
func Listen(t testing.TB, n *rig.Namespace, local netip.Addr, protocol int, s transport.Shard, o transport.Options) (rx *transport.RawPort) {
	t.Helper()
	rigtest.Must(t, n.Do(func() (err error) {
		rx, err = transport.ListenRaw(local, protocol, s, o)
		return err
	}))
	t.Cleanup(func() { rx.Close() })
	return rx
}

// Outer returns a packet from the left to the right end.
func (e Ends) Outer(protocol byte, payload []byte) []byte {
	if e.Left.Is4() {
		p := make([]byte, header.IPv4Len, header.IPv4Len+len(payload))
		p[0], p[1], p[6], p[8], p[9] = 0x45, 0xb9, 0x40, 61, protocol
		binary.BigEndian.PutUint16(p[2:], uint16(len(p)+len(payload)))
		copy(p[12:], e.Left.AsSlice())
		copy(p[16:], e.Right.AsSlice())
		header.IPv4(p).SetChecksum()
		return append(p, payload...)
	}
	p := make([]byte, header.IPv6Len, header.IPv6Len+len(payload))
	binary.BigEndian.PutUint32(p, 6<<28|0xb9<<20|0xabcde)
	binary.BigEndian.PutUint16(p[4:], uint16(len(payload)))
	p[6], p[7] = protocol, 61
	copy(p[8:], e.Left.AsSlice())
	copy(p[24:], e.Right.AsSlice())
	return append(p, payload...)
}

// Arrived returns a packet as a receiver returns it: without the flow label.
func Arrived(pkt []byte) []byte {
	p := append([]byte(nil), pkt...)
	if header.Version(p) == 6 {
		p[1], p[2], p[3] = p[1]&0xf0, 0, 0
	}
	return p
}

// Packet returns a packet of size bytes that contains n.
func (e Ends) Packet(size, n int) []byte {
	payload := make([]byte, size-len(e.Outer(Protocol, nil)))
	binary.BigEndian.PutUint32(payload, uint32(n))
	return e.Outer(Protocol, payload)
}

// Pieces splits every other packet in two, after the IP header.
func Pieces(pkts [][]byte) []transport.Packet {
	var out []transport.Packet
	for i, p := range pkts {
		cut := len(p)
		if i%2 == 1 {
			cut = max(len(p)/2, min(len(p), header.IPv6Len))
		}
		out = append(out, transport.Packet{Head: p[:cut], Body: p[cut:]})
	}
	return out
}

// Buffers returns n buffers.
func Buffers(n, size int) [][]byte {
	b := make([][]byte, n)
	for i := range b {
		b[i] = make([]byte, size)
	}
	return b
}

// Receive waits for n packets.
func Receive(t *testing.T, rx transport.Receiver, n int) [][]byte {
	t.Helper()
	bufs, meta := Buffers(transport.BatchSize, transport.MaxPacket), make([]transport.Meta, transport.BatchSize)
	var got [][]byte
	for len(got) < n {
		k, err := rx.Receive(bufs, meta)
		rigtest.Must(t, err)
		for i := range k {
			got = append(got, bytes.Clone(bufs[i][:meta[i].Size]))
		}
	}
	return got
}

// Expect waits for packets that were sent, which must be the next to arrive.
func Expect(t *testing.T, rx transport.Receiver, sent ...[]byte) {
	t.Helper()
	for i, got := range Receive(t, rx, len(sent)) {
		if i >= len(sent) {
			t.Errorf("one more packet: %x", got)
		} else if want := Arrived(sent[i]); !bytes.Equal(got, want) {
			t.Errorf("packet %d\n got %x\nwant %x", i, got, want)
		}
	}
}

// Capture captures the packets of a device until the end of the test.
func Capture(t testing.TB, n *rig.Namespace, dev string) *rig.Capture {
	t.Helper()
	c, err := n.Capture(dev)
	rigtest.Must(t, err)
	t.Cleanup(func() { c.Close() })
	return c
}

// Fragments splits a packet in two fragments (RFC 791; RFC 8200 section 4.5).
func (e Ends) Fragments(protocol byte, payload []byte) [][]byte {
	const cut = 64
	var out [][]byte
	for _, f := range []struct {
		offset, more uint16
		data         []byte
	}{{0, 1, payload[:cut]}, {cut, 0, payload[cut:]}} {
		if e.Left.Is4() {
			p := e.Outer(protocol, f.data)
			binary.BigEndian.PutUint16(p[4:], 0x1234)
			binary.BigEndian.PutUint16(p[6:], f.more<<13|f.offset/8)
			header.IPv4(p).SetChecksum()
			out = append(out, p)
			continue
		}
		ext := []byte{protocol, 0, 0, 0, 1, 2, 3, 4}
		binary.BigEndian.PutUint16(ext[2:], f.offset|f.more)
		out = append(out, e.Outer(header.FragmentHdr, append(ext, f.data...)))
	}
	return out
}
