package doctor

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"sixfour/internal/config"
	"sixfour/internal/doctor/finding"
	"sixfour/internal/doctor/packetfilter"
	"sixfour/internal/doctor/subject"
)

// hasBroker reports whether the configuration has a broker.
func hasBroker(h *subject.Host) bool { return h.Config != nil && h.Config.Broker.Interface != "" }

func checkBrokerService(_ context.Context, h *subject.Host) finding.Finding {
	switch {
	case h.Status == nil:
		return finding.Skipped("no daemon is running")
	case h.Status.Broker == nil:
		return finding.Failed("systemctl restart sixfourd", "[broker] is in the file, but the daemon has none: it begins at a start, not at a reload")
	case h.Status.Broker.Error != "":
		return finding.Failed("systemctl restart sixfourd, when that is corrected", "all clients are refused: %s", h.Status.Broker.Error)
	}
	for _, l := range h.Status.Broker.Listeners {
		if l.Error != "" {
			return finding.Failed("journalctl -u sixfourd (the daemon tries again by itself)", "clients of %s cannot come to %v: %s", l.Protocol, l.Address, l.Error)
		}
	}
	return finding.Passed("%d listeners are open, and %d of %d accounts have a prefix", len(h.Status.Broker.Listeners), h.Status.Broker.Leases, h.Status.Broker.Accounts)
}

func checkBrokerRoute(_ context.Context, h *subject.Host) finding.Finding {
	if h.Router == nil {
		return finding.Skipped("the kernel's routes cannot be read: %v", h.RouterErr)
	}
	const remedy = "ip -6 route add default via ROUTER dev UPLINK"
	r, err := h.Router.To(packetfilter.DistantHosts[6], netip.Addr{}, 0)
	switch {
	case err != nil:
		return finding.Failed(remedy, "this host has no way to the IPv6 internet, and so its clients have none: %v", err)
	case r.Interface == h.Config.Broker.Interface:
		return finding.Failed(remedy, "the way to the IPv6 internet leads into %s, to the clients", r.Interface)
	}
	return finding.Passed("packets of clients to the internet leave through %s", r.Interface)
}

func checkBrokerPool(_ context.Context, h *subject.Host) finding.Finding {
	b := &h.Config.Broker
	networks, err := ipv6Networks()
	if err != nil {
		return finding.OfError(err)
	}
	if b.NDPProxy != "" && len(networks[b.NDPProxy]) == 0 {
		return finding.Failed("ip link; then set ndp_proxy in [broker] to the interface towards the hoster", "ndp_proxy is %s, which does not exist, is down, or has no global IPv6 address", b.NDPProxy)
	}
	for name, list := range networks {
		if f, bad := overlap(b, name, list); bad {
			return f
		}
	}
	if b.NDPProxy != "" {
		return finding.Passed("neighbour solicitations for clients are answered on %s", b.NDPProxy)
	}
	return finding.Passed("no interface has the pool on its link; whether the hoster routes it to this host can be seen from outside only: ping an address of a client, and look at it with tcpdump -i UPLINK icmp6")
}

// overlap returns what is wrong with the networks of an interface.
func overlap(b *config.Broker, name string, list []netip.Prefix) (f finding.Finding, bad bool) {
	if name == b.Interface {
		return f, false
	}
	for _, of := range list {
		for _, p := range b.Pool {
			switch {
			case !p.Overlaps(of.Masked()):
			case p.Contains(of.Addr()):
				return finding.Failed("set pool in [broker] to a part of the network without the addresses of this host and its router", "pool has %v, in which is this host's own address %v on %s", p, of.Addr(), name), true
			case b.NDPProxy != name:
				return finding.Failed(fmt.Sprintf("ndp_proxy = %q in [broker]", name), "the pool %v is a part of the network %v on the link of %s: its router looks for clients there, and finds none", p, of.Masked(), name), true
			}
		}
	}
	return f, false
}

// ipv6Networks returns the global IPv6 addresses of each interface that is up, with the lengths
// of their networks.
func ipv6Networks() (map[string][]netip.Prefix, error) {
	all := map[string][]netip.Prefix{}
	interfaces, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	for _, i := range interfaces {
		addrs, err := i.Addrs()
		if err != nil || i.Flags&net.FlagUp == 0 {
			continue
		}
		for _, a := range addrs {
			if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Is6() && p.Addr().IsGlobalUnicast() && !strings.HasPrefix(i.Name, "lo") {
				all[i.Name] = append(all[i.Name], p)
			}
		}
	}
	return all, nil
}
