package nat

import "fmt"

// String describes the behaviour in a sentence without a full stop.
func (b *Behaviour) String() string {
	switch b.Mapping {
	case NoMapping:
		return fmt.Sprintf("no NAT: %v is this host's address on the Internet; %s", b.Local.Addr(), b.letsIn("the path"))
	case Dependent:
		return fmt.Sprintf("a symmetric NAT at %s: each destination gets another port (address-dependent mapping), %s%s", b.outside(), b.ports(), b.hairpin())
	}
	names := map[Filtering]string{FilteringUnknown: "a cone NAT", AnyHost: "a full cone NAT", SameAddress: "a restricted cone NAT", SamePort: "a port-restricted cone NAT"}
	return fmt.Sprintf("%s at %s: one port for all destinations (endpoint-independent mapping), %s, %s%s", names[b.Filtering], b.outside(), b.letsIn("it"), b.ports(), b.hairpin())
}

// outside returns the addresses of the NAT.
func (b *Behaviour) outside() string {
	if first, second := b.Mapped[0].Addr(), b.Mapped[1].Addr(); first != second {
		return fmt.Sprintf("%v and %v", first, second)
	}
	return b.Mapped[0].Addr().String()
}

// letsIn says which packets something lets in.
func (b *Behaviour) letsIn(what string) string {
	return what + map[Filtering]string{
		AnyHost:          " lets packets of all hosts in (endpoint-independent filtering)",
		SameAddress:      " lets in only packets of addresses to which this host has sent something (address-dependent filtering)",
		SamePort:         " lets in only packets of addresses and ports to which this host has sent something (address and port-dependent filtering)",
		FilteringUnknown: " may let in packets of all hosts, or not: this host's own packet filter accepts only answers, so that it cannot be tested",
	}[b.Filtering]
}

func (b *Behaviour) ports() string {
	switch {
	case b.PreservesPorts():
		return "ports are kept where possible"
	case b.Sequential():
		return "ports are changed, one after the other"
	}
	return "ports are changed"
}

func (b *Behaviour) hairpin() string {
	if b.Hairpin {
		return ", and hosts behind it reach each other at its address (hairpinning)"
	}
	return ", and hosts behind it do not reach each other at its address (no hairpinning)"
}

// Passing says how a mechanism gets through the NAT.
type Passing struct {
	Works bool
	How   string // a sentence without a full stop
}

// Teredo says what a client of mode teredo reaches.
func (b *Behaviour) Teredo() Passing {
	switch {
	case b.Mapping == Dependent:
		return Passing{true, "a client reaches native hosts, clients without a NAT, and clients whose NAT lets in all ports of an address; it does not reach clients behind port-restricted and symmetric NATs"}
	case b.Mapping == Independent && b.Filtering != AnyHost && b.Filtering != SameAddress:
		return Passing{true, "a client reaches native hosts, and all clients but those behind symmetric NATs"}
	}
	return Passing{true, "a client reaches native hosts and all clients"}
}

// Mode6a44 says whether mode 6a44 works.
func (b *Behaviour) Mode6a44() Passing {
	if b.Mapping == NoMapping {
		return Passing{false, "it is for hosts behind a NAT: with an IPv4 address of its own, a host uses 6rd or 6in4"}
	}
	return Passing{true, "all packets go to one relay, that of the provider, if it has one at 192.88.99.2; so every NAT lets them pass"}
}

// Mode6bed4 says how a peer of mode 6bed4 reaches others.
func (b *Behaviour) Mode6bed4() Passing {
	if b.Mapping == Dependent {
		return Passing{true, "packets go through the router only: a symmetric NAT has another port for each peer, so that direct packets are refused"}
	}
	return Passing{true, "packets go through the router, and directly to peers that are not behind symmetric NATs"}
}

// UDP says which end of a tunnel in UDP this host can be.
func (b *Behaviour) UDP() Passing {
	switch {
	case b.Mapping == NoMapping && b.Filtering == AnyHost:
		return Passing{true, "this host can be either end: that with listen, or the other one"}
	case b.Mapping == NoMapping && b.Filtering == FilteringUnknown:
		return Passing{true, "this host can be either end, if the path lets UDP from all hosts in"}
	case b.Mapping == NoMapping:
		return Passing{true, "this host reaches a peer with listen; to have listen itself, a filter on the path must let its port in"}
	}
	return Passing{true, "this host reaches a peer with listen; to have listen itself, the NAT must forward a port to it"}
}

// HTTPS says whether encap https works.
func (b *Behaviour) HTTPS() Passing {
	return Passing{true, "this host connects to the peer, as browsers do to servers: every NAT lets that pass"}
}
