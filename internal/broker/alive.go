package broker

import (
	"net/netip"
	"time"

	"sixfour/encap/header"
	"sixfour/internal/probe"
)

// askSilent sends an echo request to each client that was not heard after a time. Whatever host
// has the address answers through the tunnel, and so the client is heard.
func (a *Authority) askSilent(before time.Time) {
	since := before.Sub(a.begun)
	identity := probe.NewIdentity()
	for _, c := range a.all() {
		if time.Duration(c.heard.Load()) < since {
			_ = c.link.Send(echoRequest(identity, c.route())) // one that does not arrive is followed by another
		}
	}
}

// linkLocal is the source of echo requests to clients that have no endpoint: the answer leaves
// by the interface by which the request came.
var linkLocal = netip.MustParseAddr("fe80::1")

// echoRequest returns an echo request to a client: to its end of the tunnel, or to the
// first host of its prefix.
func echoRequest(i probe.Identity, r Route) []byte {
	from, to := r.Endpoint.Broker, r.Endpoint.Client
	if !to.IsValid() {
		from, to = linkLocal, r.Prefix.Addr().Next()
	}
	packet := make([]byte, header.IPv6Len+probe.Len)
	i.Fill(packet, from, to, 1)
	return packet
}
