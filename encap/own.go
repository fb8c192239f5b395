package encap

import (
	"sixfour/encap/header"
	"sixfour/encap/resolve"
)

// own tells the packets of a layer from all others that go from its local end to its
// remote one. Those that come to be encapsulated again are in a loop (RFC 2003 section
// 3.2, RFC 2473 section 4.1.2). Other traffic between these addresses is not: where
// the outer packets have a mark or a namespace of their own, the rest may well go
// through the tunnel to the peer's outer address.
type own struct {
	pair     resolve.Fixed
	protocol byte
	anywhere bool // the remote end is found for each packet
}

func newOwn(l Layer) own {
	return own{resolve.NewFixed(l.Local, l.Remote), l.Kind.Protocol(), l.Resolver != nil}
}

func (o *own) is4(ip header.IPv4) bool {
	return ip.Protocol() == o.protocol && (o.anywhere && o.pair.From4(ip) || o.pair.Sends4(ip))
}

// is6 takes in the headers that may stand before what the layer carries: the
// encapsulation limit, and a fragment's.
func (o *own) is6(ip header.IPv6) bool {
	switch ip.NextHeader() {
	case o.protocol, header.DestOptions, header.FragmentHdr:
		return o.pair.Sends6(ip)
	}
	return false
}
