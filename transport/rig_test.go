package transport_test

import (
	"context"
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"sixfour/encap/header"
	"sixfour/internal/rig"
	"sixfour/transport"
)

// ends are the addresses of an IP version in the namespaces of these tests.
type ends struct{ left, right netip.Addr }

var (
	ends4 = ends{netip.MustParseAddr("203.0.113.1"), netip.MustParseAddr("203.0.113.2")}
	ends6 = ends{netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2")}
)

// both runs a test for both IP versions.
func both(t *testing.T, f func(t *testing.T, e ends)) {
	t.Run("IPv4", func(t *testing.T) { f(t, ends4) })
	t.Run("IPv6", func(t *testing.T) { f(t, ends6) })
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func namespace(t testing.TB, name string) *rig.Namespace {
	t.Helper()
	n, err := rig.New(name)
	check(t, err)
	t.Cleanup(n.Close)
	return n
}

// alone returns a namespace whose loopback device has all the addresses.
func alone(t testing.TB) *rig.Namespace {
	t.Helper()
	n := namespace(t, "alone")
	for _, a := range []netip.Addr{ends4.left, ends4.right, ends6.left, ends6.right} {
		check(t, n.AddAddr("lo", netip.PrefixFrom(a, a.BitLen())))
		settle(t, n, a)
	}
	return n
}

// settle waits until an address answers. A new IPv6 address cannot be used at once, and
// the first neighbour solicitation of a new device may be lost.
func settle(t testing.TB, from *rig.Namespace, to netip.Addr) {
	t.Helper()
	for {
		r, err := rig.Ping(soon(t), from, to, rig.PingOptions{})
		check(t, err)
		if r.Received > 0 {
			return
		}
	}
}

// two returns
//
//	left (eth0: 203.0.113.1, 2001:db8::1) ---- right (eth0: 203.0.113.2, 2001:db8::2)
func two(t testing.TB) (left, right *rig.Namespace) {
	t.Helper()
	left, right = namespace(t, "left"), namespace(t, "right")
	check(t, rig.Veth(left, "eth0", right, "eth0", 1500))
	for _, e := range []ends{ends4, ends6} {
		bits := map[bool]int{true: 24, false: 64}[e.left.Is4()]
		check(t, left.AddAddr("eth0", netip.PrefixFrom(e.left, bits)))
		check(t, right.AddAddr("eth0", netip.PrefixFrom(e.right, bits)))
	}
	for _, e := range []ends{ends4, ends6} {
		settle(t, left, e.right)
	}
	return left, right
}

// soon returns a context that ends tests that hang. Tests that pass are much faster.
func soon(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func dial(t testing.TB, n *rig.Namespace, local netip.Addr, o transport.Options) (tx *transport.RawSender) {
	t.Helper()
	check(t, n.Do(func() (err error) {
		tx, err = transport.DialRaw(local, 41, o)
		return err
	}))
	t.Cleanup(func() { tx.Close() })
	return tx
}

func listen(t testing.TB, n *rig.Namespace, local netip.Addr, protocol int, s transport.Shard, o transport.Options) (rx *transport.RawReceiver) {
	t.Helper()
	check(t, n.Do(func() (err error) {
		rx, err = transport.ListenRaw(local, protocol, s, o)
		return err
	}))
	t.Cleanup(func() { rx.Close() })
	return rx
}

// outer returns a packet from the left to the right end.
func (e ends) outer(protocol byte, payload []byte) []byte {
	if e.left.Is4() {
		p := make([]byte, header.IPv4Len, header.IPv4Len+len(payload))
		p[0], p[1], p[6], p[8], p[9] = 0x45, 0xb9, 0x40, 61, protocol
		binary.BigEndian.PutUint16(p[2:], uint16(len(p)+len(payload)))
		copy(p[12:], e.left.AsSlice())
		copy(p[16:], e.right.AsSlice())
		header.IPv4(p).SetChecksum()
		return append(p, payload...)
	}
	p := make([]byte, header.IPv6Len, header.IPv6Len+len(payload))
	binary.BigEndian.PutUint32(p, 6<<28|0xb9<<20|0xabcde)
	binary.BigEndian.PutUint16(p[4:], uint16(len(payload)))
	p[6], p[7] = protocol, 61
	copy(p[8:], e.left.AsSlice())
	copy(p[24:], e.right.AsSlice())
	return append(p, payload...)
}

// arrived returns a packet as a receiver returns it: without the flow label.
func arrived(pkt []byte) []byte {
	p := append([]byte(nil), pkt...)
	if header.Version(p) == 6 {
		p[1], p[2], p[3] = p[1]&0xf0, 0, 0
	}
	return p
}
