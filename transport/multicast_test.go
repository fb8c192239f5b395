package transport_test

import (
	"bytes"
	"net/netip"
	"testing"

	"sixfour/encap/header"
	"sixfour/internal/rig"
	"sixfour/transport"
)

// TestMulticast: two links join left and right, without routes for multicast:
//
//	left (eth0: 203.0.113.1, eth1: 198.51.100.1) ==== right (eth0: 203.0.113.2, eth1: 198.51.100.2)
//
// A packet to a group leaves through the interface of the sender's address, is received
// by hosts that joined the group there, and not by its own host.
func TestMulticast(t *testing.T) {
	left, right := two(t)
	check(t, rig.Veth(left, "eth1", right, "eth1", 1500))
	second := ends{netip.MustParseAddr("198.51.100.1"), netip.MustParseAddr("198.51.100.2")}
	check(t, left.AddAddr("eth1", netip.PrefixFrom(second.left, 24)))
	check(t, right.AddAddr("eth1", netip.PrefixFrom(second.right, 24)))
	group := netip.MustParseAddr("239.192.0.1") // all nodes of RFC 2529 section 5

	at := func(n *rig.Namespace, addr netip.Addr) *transport.RawReceiver {
		return listen(t, n, group, header.ProtoIPv6, transport.Shard{}, transport.Options{Join: group, JoinAt: addr})
	}
	own := at(left, second.left)
	first0, first1 := at(right, ends4.right), at(right, second.right)
	to := func(from netip.Addr, n byte) []byte {
		return ends{from, group}.outer(header.ProtoIPv6, bytes.Repeat([]byte{n}, 60))
	}
	check(t, dial(t, left, second.left, transport.Options{}).SendOne(to(second.left, 1)))
	check(t, dial(t, left, ends4.left, transport.Options{}).SendOne(to(ends4.left, 2)))
	check(t, dial(t, right, second.right, transport.Options{}).SendOne(to(second.right, 3)))
	expect(t, first1, to(second.left, 1))
	expect(t, first0, to(ends4.left, 2))
	expect(t, own, to(second.right, 3))
}
