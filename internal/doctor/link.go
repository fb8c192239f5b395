package doctor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sixfour/internal/nft"
)

// knownRemote returns the peer's outer address if it is known without a look-up; invalid: it
// is not.
func (p *peer) knownRemote() netip.Addr {
	switch {
	case p.remote.IsValid():
		return p.remote
	case p.target.Addr.IsValid():
		return p.target.Addr
	case p.status != nil && p.t.mechanism() < 0:
		return daemonAddr(p.status.State.Remote)
	}
	return netip.Addr{}
}

func (p *peer) checkName(ctx context.Context) finding {
	p.remote = p.knownRemote()
	name := p.target.Name
	if name == "" {
		return skip("the remote end is no name")
	}
	network := fmt.Sprintf("ip%d", p.t.outer().Over())
	look := "getent ahosts " + name + " (and look at /etc/resolv.conf)"
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, network, name)
	if err != nil || len(addrs) == 0 {
		var dns *net.DNSError
		why := "it has no address"
		if errors.As(err, &dns) {
			why = dns.Err
		} else if err != nil {
			why = err.Error()
		}
		return fail(look, "%s does not resolve to an IPv%d address: %s", name, p.t.outer().Over(), why)
	}
	for i := range addrs {
		addrs[i] = addrs[i].Unmap()
	}
	used := netip.Addr{}
	if p.status != nil && p.t.mechanism() < 0 {
		used = daemonAddr(p.status.State.Remote)
	}
	switch {
	case !used.IsValid():
		p.remote = addrs[0]
	case !slices.Contains(addrs, used):
		p.remote = used
		return fail("systemctl restart sixfourd (or wait: it looks the name up again every 5 minutes)", "%s is %s, but the daemon sends to %v", name, list(addrs), used)
	}
	return pass("%s is %s", name, list(addrs))
}

func list(addrs []netip.Addr) string {
	var texts []string
	for _, a := range addrs {
		texts = append(texts, a.String())
	}
	return strings.Join(texts, ", ")
}

// configured returns our configured outer address; invalid: "auto".
func (p *peer) configured() netip.Addr { return p.cfg.Paths[0].Local }

func (p *peer) checkAddress(context.Context) finding {
	if p.t.h.router == nil {
		return skip("%v", p.t.h.routerErr)
	}
	if local := p.configured(); local.IsValid() {
		p.local = local
		holder, err := p.t.h.router.Holder(local)
		if err != nil {
			return fail(p.addAddress(local), "no interface that is up has %v", local)
		}
		return pass("%v is on %s", local, holder.Interface)
	}
	if !p.remote.IsValid() {
		return skip("it is chosen by the route to the peer, whose address is not known")
	}
	route, err := p.t.h.router.To(p.remote, netip.Addr{}, p.t.cfg.FwMark)
	if err != nil || !route.Source.IsValid() {
		return skip("it is chosen by the route to %v, and there is none", p.remote)
	}
	if p.local = route.Source; p.local.Is6() && p.local.IsLinkLocalUnicast() {
		p.local = p.local.WithZone(route.Interface)
	}
	if p.status != nil {
		if used := daemonAddr(p.status.State.Local); used.IsValid() && used != p.local {
			return fail("systemctl restart sixfourd", `"auto" is %v now, but the daemon uses %v`, p.local, used)
		}
	}
	return pass(`"auto" is %v, on %s`, p.local, route.Interface)
}

// addAddress returns the command that adds a missing address to the interface by which the
// peer is reached.
func (p *peer) addAddress(local netip.Addr) string {
	device, bits := "DEV", local.BitLen()
	if r, err := p.t.h.router.To(p.remote, netip.Addr{}, p.t.cfg.FwMark); err == nil {
		device = r.Interface
		if r.Hop.Is4() == local.Is4() { // its subnet may also be ours
			bits = commonSubnet(local, r.Hop)
		}
	} else if d := p.sameSubnet(); d != "" {
		device, bits = d, commonSubnet(local, p.remote)
	}
	return fmt.Sprintf(`ip addr add %v/%d dev %s (or set local = "auto")`, local, bits, device)
}

// commonSubnet returns the prefix length of the usual subnet that contains both addresses,
// or that of a single address.
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
func (p *peer) sameSubnet() string {
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

func (p *peer) checkRoute(context.Context) finding {
	if why := p.lacks("address"); why != "" {
		return skip("%s", why)
	}
	if p.t.h.router == nil {
		return skip("%v", p.t.h.routerErr)
	}
	if !p.remote.IsValid() {
		if p.t.mechanism() < 0 || !p.local.IsValid() {
			return skip("the peer's address is not known")
		}
		r, err := p.t.h.router.Holder(p.local)
		if err != nil {
			return fail("ip link set DEV up", "%v", err)
		}
		p.route = r
		return pass("packets leave by %s, which has %v, MTU %d", r.Interface, p.local, r.MTU)
	}
	r, err := p.t.h.router.To(p.remote, p.configured(), p.t.cfg.FwMark)
	host := netip.PrefixFrom(p.remote, p.remote.BitLen())
	switch {
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.EACCES):
		return fail(fmt.Sprintf("ip rule; ip route get %v", p.remote), "a routing rule, or a route of type blackhole or prohibit, keeps packets to %v back: %v", p.remote, err)
	case err != nil:
		return fail(fmt.Sprintf("ip route add %v via GATEWAY (and look whether the uplink is up: ip link)", host), "%v", err)
	case r.Interface == p.t.cfg.Name && p.t.cfg.Netns == "":
		return fail(p.routeAround(host), "the route to %v leads into %s, the tunnel itself", p.remote, r.Interface)
	case r.Ours && (p.status == nil || !p.status.State.Phase.Carries()): // otherwise both ends are on this host intentionally
		return fail("set remote to the other host's address (or correct the name, or remove the address here: ip addr)", "%v is an address of this host itself", p.remote)
	}
	if l, err := netlink.LinkByIndex(r.Index); err == nil && l.Attrs().RawFlags&unix.IFF_RUNNING == 0 {
		return fail("look at the cable, or at what is at its other end (ip link show "+r.Interface+")", "the route to %v leads through %s, which has no carrier", p.remote, r.Interface)
	}
	p.route = r
	if r.Hop == p.remote.WithZone("") {
		return pass("%v is on the link of %s, MTU %d", p.remote, r.Interface, r.MTU)
	}
	return pass("through %s by %v, MTU %d", r.Interface, r.Hop, r.MTU)
}

// routeAround returns the command that makes outer packets leave by the interface with our
// address.
func (p *peer) routeAround(host netip.Prefix) string {
	if holder, err := p.t.h.router.Holder(p.local); err == nil && holder.Interface != p.t.cfg.Name {
		return fmt.Sprintf("ip route add %v via GATEWAY dev %s", host, holder.Interface)
	}
	return fmt.Sprintf("ip route add %v via GATEWAY dev UPLINK", host)
}

// checkFilter checks the interface at which packets to our address probably arrive: the one
// that has the address. Strict filtering there accepts only packets whose answers would
// leave by the same interface.
func (p *peer) checkFilter(context.Context) finding {
	switch {
	case p.t.outer().Over() == 6:
		return skip("there is none for IPv6")
	case p.route.Interface == "" || !p.local.IsValid():
		return skip("the route to the peer is not known")
	case !p.remote.IsValid():
		return skip("packets come from anywhere")
	}
	holder, err := p.t.h.router.Holder(p.local)
	if err != nil {
		return skip("%v", err)
	}
	device := holder.Interface
	if !holder.Ethernet && device != p.route.Interface { // for example the loopback device
		device = p.route.Interface
	}
	value, err := p.t.filterOf(device)
	if err != nil {
		return skip("%v", err)
	}
	if value != strict {
		return pass("is not strict on %s", device)
	}
	// The kernel's check ignores the mark of our packets (src_valid_mark is 0).
	if back, err := p.t.h.router.To(p.remote, p.local, 0); err == nil && back.Interface != device {
		return fail(fmt.Sprintf("sysctl -w net.ipv4.conf.%s.rp_filter=2", device),
			"is strict on %s, which has %v, and drops what arrives there from %v: the route back leads through %s", device, p.local, p.remote, back.Interface)
	}
	return pass("is strict on %s, by which packets to the peer leave, too", device)
}

func (p *peer) checkKernelTunnel(context.Context) finding {
	if !p.local.IsValid() || !p.remote.IsValid() {
		return skip("the ends are not known")
	}
	links, err := netlink.LinkList()
	if err != nil {
		return skip("list interfaces: %v", err)
	}
	for _, l := range links {
		local, remote, protocol := kernelTunnel(l)
		if protocol == p.t.outer().Protocol() && local == p.local && remote == p.remote && l.Attrs().Flags&net.FlagUp != 0 {
			return fail("ip link delete "+l.Attrs().Name, "%s, a tunnel of the kernel's own (type %s), has the same ends and takes each packet, too", l.Attrs().Name, l.Type())
		}
	}
	if pid := p.otherDaemon(); pid != 0 {
		return fail(fmt.Sprintf("end one of the two (kill %d), or take the tunnel out of one's configuration", pid),
			"another sixfourd (process %d) has a tunnel with the same ends and takes each packet, too", pid)
	}
	return pass("no tunnel of the kernel's own, and no other sixfourd, has these ends")
}

// kernelTunnel returns the ends and the protocol of a kernel tunnel; 0: the interface is not
// a tunnel.
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

func (p *peer) checkKernelAnswers(context.Context) finding {
	if !p.local.IsValid() {
		return skip("our address is not known")
	}
	ends := []nft.End{{Local: p.local, Protocol: p.t.outer().Protocol()}}
	why := nft.KernelAnswers(p.t.h.o.Paths.modules(), ends)
	if why == "" {
		return pass("no module of the kernel answers protocol %d", ends[0].Protocol)
	}
	if !p.t.h.privileged() {
		return skip("the kernel answers because of %s: whether that is kept back may not be looked at by this user", why).but(asRoot)
	}
	shielded, err := nft.Suppressed(ends[0])
	switch {
	case err != nil:
		return fail(nft.SuppressCommand(ends), "the kernel answers because of %s, and nftables cannot keep that back: %v", why, err)
	case shielded:
		return pass("the kernel would answer because of %s: the daemon keeps that back", why)
	case p.t.status == nil:
		return pass("the kernel would answer because of %s: the daemon will keep that back when it runs", why)
	}
	return fail(nft.SuppressCommand(ends), "the kernel answers with port unreachable because of %s, and nobody keeps that back", why)
}
