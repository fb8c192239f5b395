package peercheck

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sixfour/internal/doctor/finding"
	"sixfour/internal/doctor/subject"
	"sixfour/internal/firewall"
	"sixfour/internal/nft"
)

// Name checks whether the peer's name resolves to the address in use, and sets Remote.
func Name(ctx context.Context, p *subject.Peer) finding.Finding {
	p.Remote = p.KnownRemote()
	name := p.Target.Name
	if name == "" {
		return finding.Skipped("the remote is not a name")
	}
	network := fmt.Sprintf("ip%d", p.Outer().Over())
	look := "getent ahosts " + name + " (and check /etc/resolv.conf)"
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, network, name)
	if err != nil || len(addrs) == 0 {
		var dns *net.DNSError
		why := "it has no address"
		if errors.As(err, &dns) {
			why = dns.Err
		} else if err != nil {
			why = err.Error()
		}
		return finding.Failed(look, "%s does not resolve to an IPv%d address: %s", name, p.Outer().Over(), why)
	}
	for i := range addrs {
		addrs[i] = addrs[i].Unmap()
	}
	used := netip.Addr{}
	if p.Status != nil && p.Tunnel.Mechanism() < 0 {
		used = subject.DaemonAddr(p.Status.State.Remote)
	}
	switch {
	case !used.IsValid():
		p.Remote = addrs[0]
	case !slices.Contains(addrs, used):
		p.Remote = used
		return finding.Failed("systemctl restart sixfourd (or wait: it looks the name up again every 5 minutes)", "%s resolves to %s, but the daemon sends to %v", name, finding.Addresses(addrs), used)
	}
	return finding.Passed("%s resolves to %s", name, finding.Addresses(addrs))
}

// Address checks whether an interface has our outer address, and sets Local.
func Address(_ context.Context, p *subject.Peer) finding.Finding {
	if p.Tunnel.Host.Router == nil {
		return finding.Skipped("%v", p.Tunnel.Host.RouterErr)
	}
	if local := p.Configured(); local.IsValid() {
		p.Local = local
		holder, err := p.Tunnel.Host.Router.InterfaceWith(local)
		if err != nil {
			return finding.Failed(addAddress(p, local), "no interface that is up has %v", local)
		}
		return finding.Passed("%v is on %s", local, holder.Interface)
	}
	if !p.Remote.IsValid() {
		return finding.Skipped("the route to the peer determines it, and the peer's address is not known")
	}
	route, err := p.Tunnel.Host.Router.To(p.Remote, netip.Addr{}, p.Tunnel.Config.FwMark)
	if err != nil || !route.Source.IsValid() {
		return finding.Skipped("the route to %v determines it, and there is no route", p.Remote)
	}
	if p.Local = route.Source; p.Local.Is6() && p.Local.IsLinkLocalUnicast() {
		p.Local = p.Local.WithZone(route.Interface)
	}
	if p.Status != nil {
		if used := subject.DaemonAddr(p.Status.State.Local); used.IsValid() && used != p.Local {
			return finding.Failed("systemctl restart sixfourd", `"auto" is %v now, but the daemon uses %v`, p.Local, used)
		}
	}
	return finding.Passed(`"auto" is %v, on %s`, p.Local, route.Interface)
}

// addAddress returns the command that adds a missing address to the interface by which
// the peer is reached.
func addAddress(p *subject.Peer, local netip.Addr) string {
	device, bits := "DEV", local.BitLen()
	if r, err := p.Tunnel.Host.Router.To(p.Remote, netip.Addr{}, p.Tunnel.Config.FwMark); err == nil {
		device = r.Interface
		if r.NextHop.Is4() == local.Is4() { // its subnet may also be ours
			bits = commonSubnet(local, r.NextHop)
		}
	} else if d := sameSubnet(p); d != "" {
		device, bits = d, commonSubnet(local, p.Remote)
	}
	return fmt.Sprintf(`ip addr add %v/%d dev %s (or set local = "auto")`, local, bits, device)
}

// commonSubnet returns the prefix length of the usual subnet that contains both
// addresses, or that of a single address.
func commonSubnet(a, b netip.Addr) int {
	usual := []int{24, 16, 8}
	if a.Is6() {
		usual = []int{64, 48}
	}
	for _, bits := range usual {
		if netip.PrefixFrom(a, bits).Masked().Contains(b) {
			return bits
		}
	}
	return a.BitLen()
}

// sameSubnet returns the only Ethernet interface; "": there is none, or more than one.
func sameSubnet(p *subject.Peer) string {
	ifs, err := net.Interfaces()
	if err != nil {
		return ""
	}
	ifs = slices.DeleteFunc(ifs, func(i net.Interface) bool { return len(i.HardwareAddr) == 0 || i.Flags&net.FlagUp == 0 })
	if len(ifs) != 1 {
		return ""
	}
	return ifs[0].Name
}

// Route checks the route to the peer, and sets Route.
func Route(_ context.Context, p *subject.Peer) finding.Finding {
	if why := p.FailedCheck("address"); why != "" {
		return finding.Skipped("%s", why)
	}
	if p.Tunnel.Host.Router == nil {
		return finding.Skipped("%v", p.Tunnel.Host.RouterErr)
	}
	if !p.Remote.IsValid() {
		if p.Tunnel.Mechanism() < 0 || !p.Local.IsValid() {
			return finding.Skipped("the peer's address is not known")
		}
		r, err := p.Tunnel.Host.Router.InterfaceWith(p.Local)
		if err != nil {
			return finding.Failed("ip link set DEV up", "%v", err)
		}
		p.Route = r
		return finding.Passed("packets leave through %s, which has %v, MTU %d", r.Interface, p.Local, r.MTU)
	}
	r, err := p.Tunnel.Host.Router.To(p.Remote, p.Configured(), p.Tunnel.Config.FwMark)
	host := netip.PrefixFrom(p.Remote, p.Remote.BitLen())
	switch {
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.EACCES):
		return finding.Failed(fmt.Sprintf("ip rule; ip route get %v", p.Remote), "a routing rule, or a route of type blackhole or prohibit, blocks packets to %v: %v", p.Remote, err)
	case err != nil:
		return finding.Failed(fmt.Sprintf("ip route add %v via GATEWAY (and check that the uplink is up: ip link)", host), "%v", err)
	case r.Interface == p.Tunnel.Config.Name && p.Tunnel.Config.Netns == "":
		return finding.Failed(routeAround(p, host), "the route to %v leads into %s, the tunnel itself", p.Remote, r.Interface)
	case r.ToThisHost && (p.Status == nil || !p.Status.State.Phase.Carries()): // otherwise both ends are on this host intentionally
		return finding.Failed("set remote to the other host's address (or correct the name, or remove the address here: ip addr)", "%v is an address of this host itself", p.Remote)
	}
	if l, err := netlink.LinkByIndex(r.Index); err == nil && l.Attrs().RawFlags&unix.IFF_RUNNING == 0 {
		return finding.Failed("check the cable, and the device at its other end (ip link show "+r.Interface+")", "the route to %v leads through %s, which has no carrier", p.Remote, r.Interface)
	}
	p.Route = r
	if r.NextHop == p.Remote.WithZone("") {
		return finding.Passed("%v is on the link of %s, MTU %d", p.Remote, r.Interface, r.MTU)
	}
	return finding.Passed("through %s via %v, MTU %d", r.Interface, r.NextHop, r.MTU)
}

// routeAround returns the command that makes outer packets leave by the interface with
// our address.
func routeAround(p *subject.Peer, host netip.Prefix) string {
	if holder, err := p.Tunnel.Host.Router.InterfaceWith(p.Local); err == nil && holder.Interface != p.Tunnel.Config.Name {
		return fmt.Sprintf("ip route add %v via GATEWAY dev %s", host, holder.Interface)
	}
	return fmt.Sprintf("ip route add %v via GATEWAY dev UPLINK", host)
}

// ReversePath checks the interface at which packets to our address probably arrive: the
// one that has the address. Strict filtering there accepts only packets whose answers
// would leave by the same interface.
func ReversePath(_ context.Context, p *subject.Peer) finding.Finding {
	switch {
	case p.Outer().Over() == 6:
		return finding.Skipped("IPv6 has no reverse path filter")
	case p.Route.Interface == "" || !p.Local.IsValid():
		return finding.Skipped("the route to the peer is not known")
	case !p.Remote.IsValid():
		return finding.Skipped("packets may come from any address")
	}
	holder, err := p.Tunnel.Host.Router.InterfaceWith(p.Local)
	if err != nil {
		return finding.Skipped("%v", err)
	}
	device := holder.Interface
	if !holder.Ethernet && device != p.Route.Interface { // for example the loopback device
		device = p.Route.Interface
	}
	value, err := p.Tunnel.ReversePathFilter(device)
	if err != nil {
		return finding.Skipped("%v", err)
	}
	if value != subject.Strict {
		return finding.Passed("rp_filter is not strict on %s", device)
	}
	// The kernel's check ignores the mark of our packets (src_valid_mark is 0).
	if back, err := p.Tunnel.Host.Router.To(p.Remote, p.Local, 0); err == nil && back.Interface != device {
		return finding.Failed(fmt.Sprintf("sysctl -w net.ipv4.conf.%s.rp_filter=2", device),
			"rp_filter is strict on %s, which has %v, and drops packets from %v: the route back leads through %s", device, p.Local, p.Remote, back.Interface)
	}
	return finding.Passed("rp_filter is strict on %s, and packets to the peer leave through it, too", device)
}

// KernelTunnel checks whether a tunnel of the kernel or another daemon has the same ends.
func KernelTunnel(_ context.Context, p *subject.Peer) finding.Finding {
	if !p.Local.IsValid() || !p.Remote.IsValid() {
		return finding.Skipped("the outer addresses are not known")
	}
	links, err := netlink.LinkList()
	if err != nil {
		return finding.Skipped("list interfaces: %v", err)
	}
	for _, l := range links {
		local, remote, protocol := kernelTunnel(l)
		if protocol == p.Outer().Protocol() && local == p.Local && remote == p.Remote && l.Attrs().Flags&net.FlagUp != 0 {
			return finding.Failed("ip link delete "+l.Attrs().Name, "%s, a tunnel of the kernel (type %s), has the same ends and also receives each packet", l.Attrs().Name, l.Type())
		}
	}
	if pid := p.OtherDaemon(); pid != 0 {
		return finding.Failed(fmt.Sprintf("stop one of the two (kill %d), or remove the tunnel from one configuration", pid),
			"another sixfourd (process %d) has a tunnel with the same ends and also receives each packet", pid)
	}
	return finding.Passed("no tunnel of the kernel and no other sixfourd has these ends")
}

// kernelTunnel returns the ends and the protocol of a kernel tunnel; 0: the interface is
// not a tunnel.
func kernelTunnel(l netlink.Link) (local, remote netip.Addr, protocol byte) {
	ends := func(a, b net.IP) (x, y netip.Addr) {
		x, _ = netip.AddrFromSlice(a)
		y, _ = netip.AddrFromSlice(b)
		return x.Unmap(), y.Unmap()
	}
	switch l := l.(type) {
	case *netlink.Sittun:
		protocol = unix.IPPROTO_IPV6
		local, remote = ends(l.Local, l.Remote)
	case *netlink.Iptun:
		protocol = unix.IPPROTO_IPIP
		local, remote = ends(l.Local, l.Remote)
	case *netlink.Gretun:
		protocol = unix.IPPROTO_GRE
		local, remote = ends(l.Local, l.Remote)
	case *netlink.Ip6tnl:
		protocol = l.Proto
		local, remote = ends(l.Local, l.Remote)
	}
	return local, remote, protocol
}

// KernelAnswers checks whether the kernel answers the peer's packets with ICMP errors.
func KernelAnswers(_ context.Context, p *subject.Peer) finding.Finding {
	if !p.Local.IsValid() {
		return finding.Skipped("our address is not known")
	}
	if p.HasPorts() {
		return finding.Skipped("the tunnel modules of the kernel do not receive %s", p.Traffic(firewall.Input))
	}
	ends := []nft.Endpoint{{Local: p.Local, Protocol: p.Outer().Protocol()}}
	why := nft.KernelAnswers(p.Tunnel.Host.Options.Paths.ModulesFS(), ends)
	if why == "" {
		return finding.Passed("no kernel module answers packets of protocol %d", ends[0].Protocol)
	}
	if !p.Tunnel.Host.Privileged() {
		return finding.Skipped("the kernel answers because of %s, and this user may not see whether the answers are suppressed", why).WithRemedy(finding.AsRoot)
	}
	suppressed, err := nft.Suppressed(ends[0])
	switch {
	case err != nil:
		return finding.Failed(nft.SuppressCommand(ends), "the kernel answers because of %s, and nftables cannot suppress the answers: %v", why, err)
	case suppressed:
		return finding.Passed("the kernel would answer because of %s, but the daemon suppresses the answers", why)
	case p.Tunnel.Status == nil:
		return finding.Passed("the kernel would answer because of %s, but the daemon will suppress the answers when it runs", why)
	}
	return finding.Failed(nft.SuppressCommand(ends), "the kernel answers with port unreachable because of %s, and nothing suppresses the answers", why)
}
