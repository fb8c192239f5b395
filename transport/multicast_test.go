package transport_test

import (
	"bytes"
	"net/netip"
	"testing"

	"sixfour/encap/header"
	"sixfour/internal/rig"
	"sixfour/internal/rig/rigtest"
	"sixfour/transport"
	"sixfour/transport/wiretest"
)

// TestMulticast: two links join left and right, without routes for multicast:
//
//	left (eth0: 203.0.113.1, eth1: 198.51.100.1) ==== right (eth0: 203.0.113.2, eth1: 198.51.100.2)
//
// A packet to a group leaves through the interface of the sender's address, is received
// by hosts that joined the group there, and not by its own host.
func TestMulticast(t *testing.T) {
	left, right := wiretest.Two(t)
	rigtest.Must(t, rig.Veth(left, "eth1", right, "eth1", 1500))
	second := wiretest.Ends{Left: netip.MustParseAddr("198.51.100.1"), Right: netip.MustParseAddr("198.51.100.2")}
	rigtest.Must(t, left.AddAddr("eth1", netip.PrefixFrom(second.Left, 24)))
	rigtest.Must(t, right.AddAddr("eth1", netip.PrefixFrom(second.Right, 24)))
	group := netip.MustParseAddr("239.192.0.1") // all nodes of RFC 2529 section 5

	at := func(n *rig.Namespace, dev string) *transport.RawPort {
		l, err := n.Handle().LinkByName(dev)
		rigtest.Must(t, err)
		return wiretest.Listen(t, n, group, header.ProtoIPv6, transport.Shard{}, transport.Options{Join: group, JoinOn: l.Attrs().Index})
	}
	own := at(left, "eth1")
	first0, first1 := at(right, "eth0"), at(right, "eth1")
	to := func(from netip.Addr, n byte) []byte {
		return wiretest.Ends{Left: from, Right: group}.Outer(header.ProtoIPv6, bytes.Repeat([]byte{n}, 60))
	}
	rigtest.Must(t, wiretest.Dial(t, left, second.Left, transport.Options{}).SendOne(to(second.Left, 1)))
	rigtest.Must(t, wiretest.Dial(t, left, wiretest.Ends4.Left, transport.Options{}).SendOne(to(wiretest.Ends4.Left, 2)))
	rigtest.Must(t, wiretest.Dial(t, right, second.Right, transport.Options{}).SendOne(to(second.Right, 3)))
	wiretest.Expect(t, first1, to(second.Left, 1))
	wiretest.Expect(t, first0, to(wiretest.Ends4.Left, 2))
	wiretest.Expect(t, own, to(second.Right, 3))
}
