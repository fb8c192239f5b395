package nft

import (
	"fmt"
	"io/fs"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Endpoint is a receiving end of tunnels: packets of a protocol (in IPv6, the next
// header) to one of our addresses.
type Endpoint struct {
	Local    netip.Addr
	Protocol uint8
}

// kind is a protocol over an IP version.
type kind struct {
	v6       bool
	protocol uint8
}

func (e Endpoint) kind() kind { return kind{e.Local.Is6(), e.Protocol} }

// answering lists what makes the kernel answer packets of a kind that match none of its
// own tunnels: modules, which are in /sys/module even if they are built in (except for
// tunnel4, which sit and ipip need, and tunnel6, which ip6_tunnel needs), and the
// devices that each of them creates, for hosts without /sys. The key of a GRE tunnel
// must match, too.
var answering = map[kind]struct{ modules, devices []string }{
	{false, unix.IPPROTO_IPIP}: {[]string{"ipip", "sit", "tunnel4"}, []string{"tunl0", "sit0"}},
	{false, unix.IPPROTO_IPV6}: {[]string{"sit", "ipip", "tunnel4"}, []string{"sit0", "tunl0"}},
	{false, unix.IPPROTO_GRE}:  {[]string{"ip_gre"}, []string{"gre0"}},
	{true, unix.IPPROTO_IPIP}:  {[]string{"ip6_tunnel", "tunnel6"}, []string{"ip6tnl0"}},
	{true, unix.IPPROTO_IPV6}:  {[]string{"ip6_tunnel", "tunnel6"}, []string{"ip6tnl0"}},
	{true, unix.IPPROTO_GRE}:   {[]string{"ip6_gre"}, []string{"ip6gre0"}},
}

// KernelMayAnswer reports whether the kernel answers packets of any kind that match none
// of its own tunnels. See KernelAnswers.
func KernelMayAnswer(modules fs.FS) bool {
	var ends []Endpoint
	for k := range answering {
		local := netip.IPv4Unspecified()
		if k.v6 {
			local = netip.IPv6Unspecified()
		}
		ends = append(ends, Endpoint{local, k.protocol})
	}
	return KernelAnswers(modules, ends) != ""
}

// KernelAnswers returns the name of the kernel module or device that makes the kernel
// answer packets to the first such end of ends, or "" if there is none. The kernel
// answers packets that match none of its own tunnels with an ICMP error (port
// unreachable: type 3, code 3; in ICMPv6 type 1, code 4), although it also delivers them
// to our raw sockets. A module may be loaded or unloaded at any time. modules is
// /sys/module.
func KernelAnswers(modules fs.FS, ends []Endpoint) string {
	asked := make(map[kind]bool)
	for _, e := range ends {
		k := e.kind()
		if asked[k] {
			continue
		}
		asked[k] = true
		for _, m := range answering[k].modules {
			if _, err := fs.Stat(modules, m); err == nil {
				return "module " + m
			}
		}
		for _, d := range answering[k].devices {
			if hasDevice(d) {
				return "device " + d
			}
		}
	}
	return ""
}

// hasDevice reports whether the current namespace has a device. Unlike netlink, this
// call does not wait for changes of devices in any namespace.
func hasDevice(name string) bool {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	r, err := unix.NewIfreq(name)
	return err == nil && unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, r) == nil
}

// SuppressCommand returns a command that has the effect of a Suppressor for the ends'
// protocols, for all addresses.
func SuppressCommand(ends []Endpoint) string {
	var commands []string
	for _, f := range []struct {
		name   string
		v6     bool
		icmp   string
		quotes []string // how a rule finds the quoted protocol
	}{
		{"ip", false, "icmp", []string{"@th,136,8"}},
		{"ip6", true, "icmpv6", []string{"@th,112,8", "@th,112,8 60 @th,384,8"}},
	} {
		var protocols []string
		for _, p := range []uint8{unix.IPPROTO_IPIP, unix.IPPROTO_IPV6, unix.IPPROTO_GRE} {
			if slices.ContainsFunc(ends, func(e Endpoint) bool { return e.kind() == kind{f.v6, p} }) {
				protocols = append(protocols, fmt.Sprint(p))
			}
		}
		if len(protocols) == 0 {
			continue
		}
		commands = append(commands, "add table "+f.name+" sixfour",
			"add chain "+f.name+" sixfour output { type filter hook output priority 0; }")
		for _, q := range f.quotes {
			commands = append(commands, fmt.Sprintf("add rule %s sixfour output %s type destination-unreachable %s code port-unreachable %s { %s } drop",
				f.name, f.icmp, f.icmp, q, strings.Join(protocols, ", ")))
		}
	}
	return "nft '" + strings.Join(commands, "; ") + "'"
}
