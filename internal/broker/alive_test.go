package broker

import (
	"net/netip"
	"testing"

	"sixfour/encap/header"
	"sixfour/internal/probe"
	"sixfour/transport/access"
)

// A client is asked at its end of the tunnel, or in its prefix if it has none.
func TestEchoRequest(t *testing.T) {
	prefix, addr := netip.MustParsePrefix("2001:db8:100:7::/64"), netip.MustParseAddr
	for _, c := range []struct {
		ends     access.Endpoint
		from, to netip.Addr
	}{
		{access.Endpoint{Broker: addr("2001:db8:ff:1::1"), Client: addr("2001:db8:ff:1::2")}, addr("2001:db8:ff:1::1"), addr("2001:db8:ff:1::2")},
		{access.Endpoint{}, addr("fe80::1"), addr("2001:db8:100:7::1")},
	} {
		b := echoRequest(probe.NewIdentity(), Route{prefix, c.ends})
		h := header.IPv6(b)
		from, _ := netip.AddrFromSlice(b[8:24])
		to, _ := netip.AddrFromSlice(b[24:40])
		const icmpv6, request = 58, 128
		if from != c.from || to != c.to || h.NextHeader() != icmpv6 || b[header.IPv6Len] != request {
			t.Errorf("from %v to %v, want from %v to %v: % x", from, to, c.from, c.to, b)
		}
	}
}
