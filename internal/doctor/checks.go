package doctor

import (
	"context"

	"sixfour/internal/doctor/finding"
	"sixfour/internal/doctor/nat"
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
	OfBroker  Subject = "broker"
	OfNAT     Subject = "nat"
	OfLISP    Subject = "lisp"
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

type natCheck struct {
	Check
	run func(context.Context, *natPath) finding.Finding
}

type gatewayCheck struct {
	Check
	run func(context.Context, *gateway) finding.Finding
}

// The checks, in the order in which they run: a check comes after those it depends on.
var (
	hostChecks = []hostCheck{
		{Check{"daemon", OfHost, "whether sixfourd answers at its control socket, and runs in the network namespace of this program", "the daemon carries the packets; without it the tunnels carry nothing, and only the configuration is checked"}, checkDaemon},
		{Check{"config", OfHost, "whether the configuration file is valid, and has the same tunnels as the daemon", "with errors in the file the daemon does not start, and a reload changes nothing"}, checkConfig},
		{Check{"kernel", OfHost, "the kernel's version", "older kernels do not support the requests with which the routes to peers are found"}, checkKernel},
		{Check{"tun", OfHost, "whether /dev/net/tun is a TUN device, and whether the user of the daemon (of its process or of its unit) may open it", "each tunnel is a TUN device"}, checkTun},
		{Check{"capabilities", OfHost, "CAP_NET_ADMIN and CAP_NET_RAW of the daemon and of this program", "they are needed to create interfaces and to open raw sockets"}, checkCapabilities},
		{Check{"iptables", OfHost, "whether iptables-legacy has rules", "nftables does not show these rules, so they are not checked"}, checkIPTables},
		{Check{"gro_list", OfHost, "whether a device merges received packets into lists (rx-gro-list)", "small datagrams in a tunnel can then not be separated"}, checkGROList},
	}
	tunnelChecks = []tunnelCheck{
		{Check{"interface", OfTunnel, "the TUN interface: it exists, is up, and has its addresses and routes", "packets enter the tunnel through it"}, tunnelcheck.Interface},
		{Check{"forwarding", OfTunnel, "whether this host forwards packets between the tunnel and its other networks, if it has any", "without forwarding, only this host can use the tunnel"}, tunnelcheck.Forwarding},
		{Check{"inner_rp_filter", OfTunnel, "strict reverse path filtering on the interface", "it drops packets from prefixes that are not routed into the tunnel"}, tunnelcheck.ReversePath},
		{Check{"inner_firewall", OfTunnel, "whether this host's packet filter accepts pings that leave and arrive through the interface", "packets that it drops there have passed the tunnel in vain"}, tunnelcheck.InnerFirewall},
		{Check{"forward_firewall", OfTunnel, "whether the packet filter accepts what this host forwards between the tunnel and another network", "packets that it drops do not reach the hosts behind this one"}, tunnelcheck.ForwardFirewall},
		{Check{"session", OfTunnel, "whether there is a session with the server of the mode, in modes that have one, and why not", "without it the server grants nothing, or does not know where this host is"}, tunnelcheck.Session},
	}
	peerChecks = []peerCheck{
		{Check{"name", OfPeer, "whether the peer's name resolves to the address that the daemon sends to", "without an address nothing is sent; with an old one, the peer receives nothing"}, peercheck.Name},
		{Check{"address", OfPeer, "whether an interface has our outer address, and whether it is still the one in use", "peers identify us by it"}, peercheck.Address},
		{Check{"route", OfPeer, "the route to the peer and its MTU, and that it does not lead into the tunnel itself", "outer packets follow it"}, peercheck.Route},
		{Check{"rp_filter", OfPeer, "strict reverse path filtering where the peer's packets arrive", "it drops them if the route back leads through another interface"}, peercheck.ReversePath},
		{Check{"firewall_out", OfPeer, "whether this host's packet filter accepts packets of the tunnel's protocol to the peer", "packets that it drops never leave this host"}, peercheck.FirewallOut},
		{Check{"firewall_in", OfPeer, "whether the packet filter accepts packets of this protocol from the peer", "packets that it drops never reach the daemon"}, peercheck.FirewallIn},
		{Check{"kernel_tunnel", OfPeer, "whether a tunnel of the kernel, or of another sixfourd, has the same ends", "both would receive each packet"}, peercheck.KernelTunnel},
		{Check{"kernel_answers", OfPeer, "whether a tunnel module of the kernel answers the peer's packets with ICMP errors, and whether these are suppressed", "a peer may give up a tunnel whose packets cause errors"}, peercheck.KernelAnswers},
		{Check{"state", OfPeer, "whether the daemon waits for something", "while it waits, it sends nothing to the peer"}, peercheck.State},
		{Check{"answer", OfPeer, "whether the peer answers an echo request that goes through the tunnel", "if it does, the path and both ends of the tunnel work in both directions"}, peercheck.Answer},
		{Check{"inner_ipv4", OfPeer, "whether the peer's inner IPv4 address answers a ping that goes through the interface, as the packets of programs do", "if it does, the interface, the routes, and the packet filters of both ends are right"}, peercheck.InnerIPv4},
		{Check{"inner_ipv6", OfPeer, "the same for its inner IPv6 address", "one IP version may work although the other one does not"}, peercheck.InnerIPv6},
		{Check{"full_size", OfPeer, "whether packets as large as the path MTU arrive", "if they do not, small packets pass, and transfers hang"}, peercheck.FullSize},
		{Check{"icmp", OfPeer, "whether ICMP errors of routers on the path come back: pings with a small TTL are sent", "they report the path MTU, and what is wrong"}, peercheck.ICMPErrors},
		{Check{"fragments", OfPeer, "whether an outer packet in two fragments arrives", "some packets are sent in fragments if they do not fit: IPv6 packets of up to 1280 bytes and, with a static MTU, all packets"}, peercheck.Fragments},
		{Check{"ecn", OfPeer, "whether congestion marks in outer packets reach the peer and come back (RFC 6040)", "if the path removes them, senders that use ECN do not notice congestion"}, peercheck.ECN},
		{Check{"encap_none", OfPeer, "whether packets of the mode's own protocol (4, 41 or 47) pass, large ones, fragments and congestion marks, too", "the peer may be reached in another encapsulation if the network drops this protocol"}, peercheck.Encapsulation("none")},
		{Check{"encap_fou", OfPeer, "the same for the [encapsulation](paths.md#udp-instead-of-protocol-41) `fou`, over UDP", "it passes networks and NATs that drop other protocols than UDP and TCP"}, peercheck.Encapsulation("fou")},
		{Check{"encap_gue", OfPeer, "the same for `gue`, over UDP", "as for `fou`"}, peercheck.Encapsulation("gue")},
		{Check{"encap_gre_udp", OfPeer, "the same for `gre_udp`, over UDP", "as for `fou`"}, peercheck.Encapsulation("gre_udp")},
		{Check{"encap_wireguard", OfPeer, "the same for `wireguard`, as the daemon reports it", "it is encrypted, and passes where UDP passes"}, peercheck.Encapsulation("wireguard")},
		{Check{"encap_https", OfPeer, "the same for `https`, as the daemon reports it, or whether TCP connections to port 443 of the peer pass", "it passes where only web traffic does"}, peercheck.Encapsulation("https")},
	}
	natChecks = []natCheck{
		{Check{"nat", OfNAT, "what NAT is between this host and the IPv4 internet: its mapping, its filtering, its ports, and hairpinning (RFC 4787)", "it decides which mechanisms pass, and whom they reach"}, checkNAT},
		{Check{"nat_teredo", OfNAT, "whom a client of mode [`teredo`](modes/teredo.md) reaches through it", "two clients need NATs that let each other's packets in"}, passes((*nat.Behaviour).Teredo)},
		{Check{"nat_6a44", OfNAT, "the same for mode [`6a44`](modes/6a44.md)", "its packets go to one relay"}, passes((*nat.Behaviour).Mode6a44)},
		{Check{"nat_6bed4", OfNAT, "the same for mode [`6bed4`](modes/6bed4.md)", "packets that do not pass directly go through the router"}, passes((*nat.Behaviour).Mode6bed4)},
		{Check{"nat_udp", OfNAT, "which end of a tunnel this host can be, in `fou`, `gue` and `wireguard` with [`listen`](paths.md)", "behind a NAT, nobody can be the first to send to this host"}, passes((*nat.Behaviour).UDP)},
		{Check{"nat_https", OfNAT, "the same for `https`", "it needs TCP only"}, passes((*nat.Behaviour).HTTPS)},
	}
	brokerChecks = []hostCheck{
		{Check{"broker", OfBroker, "whether the broker has its accounts and leases, and all listeners are open", "otherwise clients are refused, or cannot come"}, checkBrokerService},
		{Check{"broker_route", OfBroker, "whether this host has a route to the IPv6 internet that does not lead to the clients", "the packets of clients follow it"}, checkBrokerRoute},
		{Check{"broker_pool", OfBroker, "whether the pool is on the link of an interface, and with `ndp_proxy` whether that is the right one", "packets for clients arrive here only if the pool is routed to this host, or if this host answers for them on the link"}, checkBrokerPool},
	}
	mapServerChecks = []hostCheck{
		{Check{"map_server", OfLISP, "whether the map server can store registrations, receives at all its addresses, and whether a site is refused", "otherwise sites are not found"}, checkMapServer},
	}
	gatewayChecks = []gatewayCheck{
		{Check{"default_route", OfGateway, "whether packets without another route go into the tunnel, if default_route is set", "until then they are routed as before"}, checkDefaultRoute},
		{Check{"masquerade", OfGateway, "whether packets from the tunnels leave with this host's address, through the interface towards the internet", "otherwise the answers do not come back"}, checkMasquerade},
		{Check{"internet_ipv4", OfGateway, "whether a host on the internet (probe) answers a ping: through the tunnel or, at the end that gives others internet access, directly", "this is what the tunnel is for"}, checkInternet4},
		{Check{"internet_ipv6", OfGateway, "the same for IPv6", "one IP version may work although the other one does not"}, checkInternet6},
	}
)
