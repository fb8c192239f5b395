package doctor

import (
	"context"

	"sixfour/internal/doctor/finding"
	"sixfour/internal/doctor/peercheck"
	"sixfour/internal/doctor/subject"
	"sixfour/internal/doctor/tunnelcheck"
)

// Subject is the kind of thing that a check examines.
type Subject string

// The subjects.
const (
	OfHost    Subject = "host"
	OfTunnel  Subject = "tunnel"
	OfPeer    Subject = "peer"
	OfGateway Subject = "gateway"
)

// Check describes a check. Its ID never changes.
type Check struct {
	ID      string
	Subject Subject
	What    string // what is checked
	Why     string // why a tunnel needs it
}

type hostCheck struct {
	Check
	run func(context.Context, *subject.Host) finding.Finding
}

type tunnelCheck struct {
	Check
	run func(context.Context, *subject.Tunnel) finding.Finding
}

type peerCheck struct {
	Check
	run func(context.Context, *subject.Peer) finding.Finding
}

type gatewayCheck struct {
	Check
	run func(context.Context, *gateway) finding.Finding
}

// The checks, in the order in which they run: a check comes after those it depends on.
var (
	hostChecks = []hostCheck{
		{Check{"daemon", OfHost, "whether sixfourd answers at its control socket, and in the network namespace that is looked at", "it carries the packets; without one the tunnels carry nothing, and only the configuration is looked at"}, checkDaemon},
		{Check{"config", OfHost, "whether the configuration file is valid, and has the tunnels that the daemon runs", "the daemon does not start without, and keeps what it has"}, checkConfig},
		{Check{"kernel", OfHost, "the kernel's version", "the routes to peers are asked for in a way that older ones do not know"}, checkKernel},
		{Check{"tun", OfHost, "whether /dev/net/tun is a TUN device, and the user that the daemon runs as (its process's, or its unit's) may open it", "each tunnel is one"}, checkTun},
		{Check{"capabilities", OfHost, "CAP_NET_ADMIN and CAP_NET_RAW of the daemon and of this program", "they make interfaces and open raw sockets"}, checkCapabilities},
		{Check{"iptables", OfHost, "whether iptables-legacy has rules", "they are not seen through nftables"}, checkIPTables},
		{Check{"gro_list", OfHost, "whether a device puts received packets together in lists (rx-gro-list)", "small datagrams inside a tunnel cannot be told apart then"}, checkGROList},
	}
	tunnelChecks = []tunnelCheck{
		{Check{"interface", OfTunnel, "the TUN interface: there, up, with its addresses and routes", "packets enter the tunnel by it"}, tunnelcheck.Interface},
		{Check{"forwarding", OfTunnel, "whether this host forwards, where it has another network beside the tunnel's routes", "otherwise only this host itself can use the tunnel"}, tunnelcheck.Forwarding},
		{Check{"inner_rp_filter", OfTunnel, "strict reverse path filtering on the interface", "it drops what comes from prefixes that are not routed into the tunnel"}, tunnelcheck.ReversePath},
		{Check{"inner_firewall", OfTunnel, "whether this host's packet filter lets pings into the interface, and out of it", "what it drops there has come through the tunnel in vain"}, tunnelcheck.InnerFirewall},
		{Check{"forward_firewall", OfTunnel, "whether it lets through what this host forwards between the tunnel and another network", "what it drops reaches nobody behind this host"}, tunnelcheck.ForwardFirewall},
	}
	peerChecks = []peerCheck{
		{Check{"name", OfPeer, "whether the peer's name resolves, to the address that the daemon sends to", "without an address nothing is sent; with an old one, the peer gets nothing"}, peercheck.Name},
		{Check{"address", OfPeer, "whether our outer address is on an interface, and still the one in use", "peers know us by it"}, peercheck.Address},
		{Check{"route", OfPeer, "the route to the peer, its MTU, and that it does not lead into the tunnel itself", "outer packets follow it"}, peercheck.Route},
		{Check{"rp_filter", OfPeer, "strict reverse path filtering where the peer's packets arrive", "it drops them if the route back leads through another interface"}, peercheck.ReversePath},
		{Check{"firewall_out", OfPeer, "whether this host's packet filter lets the tunnel's protocol out to the peer", "what it drops never leaves"}, peercheck.FirewallOut},
		{Check{"firewall_in", OfPeer, "whether it lets the protocol in from the peer", "what it drops never arrives"}, peercheck.FirewallIn},
		{Check{"kernel_tunnel", OfPeer, "whether a tunnel of the kernel's own, or of another sixfourd, has the same ends", "both would take each packet"}, peercheck.KernelTunnel},
		{Check{"kernel_answers", OfPeer, "whether a tunnel module of the kernel answers the peer's packets with ICMP errors, and whether that is kept back", "a peer may give up a tunnel that is answered so"}, peercheck.KernelAnswers},
		{Check{"state", OfPeer, "whether the daemon waits for something", "while it waits the peer gets nothing"}, peercheck.State},
		{Check{"answer", OfPeer, "whether the peer answers an echo request that goes through the tunnel", "then everything up to there works, both ways"}, peercheck.Answer},
		{Check{"inner_ipv4", OfPeer, "whether the peer's inner IPv4 address answers a ping that goes through the interface, as those of programs do", "then the interface, the routes, and the packet filters of both ends let it pass"}, peercheck.InnerIPv4},
		{Check{"inner_ipv6", OfPeer, "the same of its inner IPv6 address", "one IP version may pass where the other one does not"}, peercheck.InnerIPv6},
		{Check{"full_size", OfPeer, "whether packets as large as the path's MTU arrive", "otherwise small ones pass, and transfers hang"}, peercheck.FullSize},
		{Check{"icmp", OfPeer, "whether ICMP errors of routers on the way come back: the path is asked with a TTL that is too small", "they tell the path's MTU, and what is wrong"}, peercheck.ICMPErrors},
		{Check{"fragments", OfPeer, "whether an outer packet in two fragments arrives", "packets that may not be smaller are sent so: IPv6 of up to 1280 bytes, and everything with a static MTU"}, peercheck.Fragments},
		{Check{"ecn", OfPeer, "whether congestion marks in outer packets reach the peer and come back (RFC 6040)", "a path that wipes them makes senders that use ECN blind to congestion"}, peercheck.ECN},
	}
	gatewayChecks = []gatewayCheck{
		{Check{"default_route", OfGateway, "whether everything without another route goes into the tunnel, where default_route says so", "until then it is routed as before"}, checkDefaultRoute},
		{Check{"masquerade", OfGateway, "whether what comes from the tunnels leaves with this host's address, by the interface towards the internet", "otherwise no answer finds the way back"}, checkMasquerade},
		{Check{"internet_ipv4", OfGateway, "whether a host on the internet (probe) answers a ping: through the tunnel, or, at the end that serves it, directly", "this is what the tunnel is for"}, checkInternet4},
		{Check{"internet_ipv6", OfGateway, "the same of IPv6", "one IP version may pass where the other one does not"}, checkInternet6},
	}
)
