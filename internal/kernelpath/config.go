package kernelpath

import (
	"net/netip"
	"slices"

	"sixfour/encap/source"
	"sixfour/internal/config"
)

// Wanted reports whether the packets of a tunnel are to be carried in the kernel if possible.
func Wanted(cfg *config.Tunnel) bool { return cfg.IO == config.IOKernel || cfg.IO == config.IOAuto }

// WhyNot returns why the configuration of a tunnel does not let the programs carry its packets,
// or "".
func WhyNot(cfg *config.Tunnel) string {
	switch {
	case cfg.Mode.Automatic:
		return "the outer addresses are found packet by packet"
	case cfg.Netns != "":
		return "the interface is in another network namespace"
	case cfg.Reserve != 0:
		return "packets may be cut in two pieces (reserve)"
	}
	return ""
}

// SetupOf returns what the peers of a tunnel have in common. The interface has an index, 0 if there
// is none, and the given addresses, and the host has others in the same namespace. It is one of a
// number of tunnels whose packets are to be carried in the kernel.
func SetupOf(cfg *config.Tunnel, index int, addresses []netip.Prefix, host []source.HostAddress, tunnels int) Setup {
	switch {
	case !Wanted(cfg):
		return Setup{}
	case tunnels*len(host) > mostHosts:
		return Setup{Wanted: true, Interface: index, Why: "there are too many such tunnels for the number of addresses of this host"}
	}
	s := Setup{Wanted: true, TwoLayers: len(cfg.Layers) == 2, Mark: cfg.FwMark, Interface: index, Why: WhyNot(cfg)}
	owned := make(map[netip.Addr]bool)
	own := func(a netip.Addr) {
		if a.IsValid() && !a.IsLoopback() && !(a.Is6() && a.IsLinkLocalUnicast()) && !owned[a] {
			owned[a] = true
			s.Own = append(s.Own, a)
		}
	}
	for _, p := range addresses {
		own(p.Addr())
	}
	for i := range cfg.Layers {
		own(cfg.Layers[i].Local)
	}
	for _, a := range cfg.Locals() {
		own(a)
	}
	known := make(map[netip.Prefix]bool) // subnets of the tunnel's interface, and those in the list
	for _, a := range host {
		own(a.Addr)
		if a.Link == index {
			known[a.Subnet] = true
		}
	}
	for _, a := range host {
		if a.Subnet.IsValid() && a.Subnet.Bits() > 0 && !known[a.Subnet] && !(a.Addr.Is6() && a.Addr.IsLinkLocalUnicast()) {
			known[a.Subnet] = true
			s.Subnets = append(s.Subnets, a.Subnet)
		}
	}
	return s
}

// mostHosts is the most entries for the addresses of this host in the tables. Each tunnel has its
// own.
const mostHosts = 50_000

// everything are the prefixes behind the only peer of a tunnel.
var everything = []netip.Prefix{netip.PrefixFrom(netip.IPv4Unspecified(), 0), netip.PrefixFrom(netip.IPv6Unspecified(), 0)}

// PrefixesOf returns the prefixes behind a peer. Behind are those at and behind the interface,
// which count beside the subnets of other interfaces.
func PrefixesOf(cfg *config.Tunnel, peer *config.Peer, behind [][]netip.Prefix) []netip.Prefix {
	if cfg.Hub {
		return peer.Allowed
	}
	all := slices.Clone(everything)
	for _, list := range behind {
		for _, p := range list {
			all = append(all, p.Masked())
		}
	}
	return all
}
