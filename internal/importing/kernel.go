package importing

import (
	"encoding/binary"
	"fmt"
	"net"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sixfour/internal/importing/host"
)

// kernelName is the name of the input that Kernel returns.
const kernelName = "kernel"

// Kernel returns the tunnels of the running kernel, in the network namespace of the calling
// thread, as the commands of iproute2 that make them.
func Kernel() (File, error) {
	links, err := netlink.LinkList()
	if err != nil {
		return File{}, fmt.Errorf("interfaces of the kernel: %w", err)
	}
	var lines []string
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		ports, err := netlink.FouList(family)
		if err != nil {
			continue // the module is not loaded
		}
		for _, p := range ports {
			lines = append(lines, commandOfFOU(p))
		}
	}
	for _, l := range links {
		command := commandOfLink(l)
		if command == "" {
			continue
		}
		lines = append(lines, command)
		addresses, err := netlink.AddrList(l, netlink.FAMILY_ALL)
		if err != nil {
			return File{}, fmt.Errorf("addresses of %s: %w", l.Attrs().Name, err)
		}
		for _, a := range addresses {
			lines = append(lines, commandOfAddress(l, a)...)
		}
		routes, err := netlink.RouteList(l, netlink.FAMILY_ALL)
		if err != nil {
			return File{}, fmt.Errorf("routes of %s: %w", l.Attrs().Name, err)
		}
		for _, r := range routes {
			lines = append(lines, commandOfRoute(l, r)...)
		}
	}
	return File{kernelName, []byte(strings.Join(lines, "\n") + "\n")}, nil
}

func commandOfFOU(p netlink.Fou) string {
	family := ""
	if p.Family == unix.AF_INET6 {
		family = "-6 "
	}
	if p.EncapType == netlink.FOU_ENCAP_GUE {
		return fmt.Sprintf("ip %sfou add port %d gue", family, p.Port)
	}
	return fmt.Sprintf("ip %sfou add port %d ipproto %d", family, p.Port, p.Protocol)
}

// withoutUse are interfaces that the modules of the kernel make themselves.
var withoutUse = []string{"sit0", "tunl0", "gre0", "ip6tnl0", "ip6gre0", "gretap0", "erspan0", "ip_vti0", "ip6_vti0"}

// usualMTU are the MTUs that links have whose MTU nobody has set, over Ethernet.
var usualMTU = []int{1480, 1476, 1472, 1468, 1464, 1460, 1456, 1452, 1448, 1444, 1440}

// commandOfLink returns the command that makes a link; "": it is no tunnel.
func commandOfLink(l netlink.Link) string {
	name := l.Attrs().Name
	if !host.IsTunnel(l.Type()) || slices.Contains(withoutUse, name) {
		return ""
	}
	c := []string{"ip link add name", word(name)}
	if mtu := l.Attrs().MTU; mtu > 0 && !slices.Contains(usualMTU, mtu) {
		c = append(c, "mtu", fmt.Sprint(mtu))
	}
	c = append(c, "type", l.Type())
	ends := func(local, remote net.IP) {
		for _, end := range []struct {
			word string
			ip   net.IP
		}{{"local", local}, {"remote", remote}} {
			if len(end.ip) > 0 && !end.ip.IsUnspecified() {
				c = append(c, end.word, end.ip.String())
			}
		}
	}
	switch l := l.(type) {
	case *netlink.Sittun:
		if l.Proto == unix.IPPROTO_IPIP {
			c = append(c, "mode ipip")
		}
		ends(l.Local, l.Remote)
		c = append(c, outer4(l.Ttl, l.Tos, l.PMtuDisc)...)
		c = append(c, encapsulation(l.EncapType, l.EncapFlags, l.EncapSport, l.EncapDport)...)
	case *netlink.Iptun:
		ends(l.Local, l.Remote)
		c = append(c, outer4(l.Ttl, l.Tos, l.PMtuDisc)...)
		c = append(c, encapsulation(l.EncapType, l.EncapFlags, l.EncapSport, l.EncapDport)...)
	case *netlink.Gretun:
		ends(l.Local, l.Remote)
		c = append(c, optionsOfGRE(l)...)
		if l.Type() == "gre" {
			c = append(c, outer4(l.Ttl, l.Tos, l.PMtuDisc)...)
		} else {
			c = append(c, hops("hoplimit", l.Ttl))
		}
		c = append(c, encapsulation(l.EncapType, l.EncapFlags, l.EncapSport, l.EncapDport)...)
	case *netlink.Ip6tnl:
		switch l.Proto {
		case unix.IPPROTO_IPIP:
			c = append(c, "mode ipip6")
		case unix.IPPROTO_IPV6:
			c = append(c, "mode ip6ip6")
		}
		ends(l.Local, l.Remote)
		c = append(c, outer6(l)...)
		c = append(c, encapsulation(l.EncapType, l.EncapFlags, l.EncapSport, l.EncapDport)...)
	}
	return strings.Join(c, " ")
}

// word returns a name as one word of a shell.
func word(name string) string { return "'" + strings.ReplaceAll(name, "'", `'\''`) + "'" }

func hops(parameter string, n uint8) string {
	if n == 0 {
		return parameter + " inherit"
	}
	return fmt.Sprintf("%s %d", parameter, n)
}

// outer4 returns the parameters of an IPv4 header.
func outer4(ttl, tos, pmtu uint8) []string {
	c := []string{hops("ttl", ttl)}
	if tos == 1 {
		c = append(c, "tos inherit")
	} else {
		c = append(c, fmt.Sprintf("tos %x", tos))
	}
	if pmtu == 0 {
		c = append(c, "nopmtudisc")
	}
	return c
}

// Flags of ip6tnl links (linux/ip6_tunnel.h).
const (
	ignoreEncapLimit = 1 << iota
	inheritClass
	inheritFlowLabel
)

// outer6 returns the parameters of an IPv6 header.
func outer6(l *netlink.Ip6tnl) []string {
	c := []string{hops("hoplimit", l.Ttl)}
	if l.Flags&ignoreEncapLimit != 0 {
		c = append(c, "encaplimit none")
	} else {
		c = append(c, fmt.Sprintf("encaplimit %d", l.EncapLimit))
	}
	info := binary.BigEndian.Uint32(binary.NativeEndian.AppendUint32(nil, l.FlowInfo)) // traffic class and flow label
	if l.Flags&inheritClass != 0 {
		c = append(c, "tclass inherit")
	} else {
		c = append(c, fmt.Sprintf("tclass %x", info>>20&0xff))
	}
	if l.Flags&inheritFlowLabel != 0 {
		c = append(c, "flowlabel inherit")
	} else if label := info & 0xfffff; label != 0 {
		c = append(c, fmt.Sprintf("flowlabel %x", label))
	}
	return c
}

// Flags of GRE (linux/if_tunnel.h), in the order of the header.
const (
	greChecksum = 0x8000
	greKey      = 0x2000
	greSequence = 0x1000
)

func optionsOfGRE(l *netlink.Gretun) (c []string) {
	if l.IFlags&greKey != 0 {
		c = append(c, fmt.Sprintf("ikey %d", l.IKey))
	}
	if l.OFlags&greKey != 0 {
		c = append(c, fmt.Sprintf("okey %d", l.OKey))
	}
	for _, flag := range []struct {
		bit  uint16
		word string
	}{{greChecksum, "csum"}, {greSequence, "seq"}} {
		switch in, out := l.IFlags&flag.bit != 0, l.OFlags&flag.bit != 0; {
		case in && out:
			c = append(c, flag.word)
		case in:
			c = append(c, "i"+flag.word)
		case out:
			c = append(c, "o"+flag.word)
		}
	}
	return c
}

// Flags of encapsulations (linux/if_tunnel.h).
const (
	encapChecksum4 = 1 << iota
	encapChecksum6
)

// encapsulation returns the parameters of FOU and GUE.
func encapsulation(kind, flags, source, destination uint16) []string {
	name := map[uint16]string{1: "fou", 2: "gue"}[kind]
	if name == "" {
		return nil
	}
	sport := "auto"
	if source != 0 {
		sport = fmt.Sprint(source)
	}
	c := []string{"encap", name, "encap-sport", sport, "encap-dport", fmt.Sprint(destination)}
	if flags&(encapChecksum4|encapChecksum6) == 0 {
		return append(c, "noencap-csum")
	}
	return append(c, "encap-csum")
}

func commandOfAddress(l netlink.Link, a netlink.Addr) []string {
	if a.IPNet == nil || a.IP.To4() == nil && a.IP.IsLinkLocalUnicast() {
		return nil // the kernel makes these itself
	}
	if a.Peer != nil && !a.Peer.IP.Equal(a.IP) {
		return []string{fmt.Sprintf("ip addr add %s peer %s dev %s", a.IP, a.Peer, word(l.Attrs().Name))}
	}
	return []string{fmt.Sprintf("ip addr add %s dev %s", a.IPNet, word(l.Attrs().Name))}
}

func commandOfRoute(l netlink.Link, r netlink.Route) []string {
	if r.Protocol == unix.RTPROT_KERNEL || r.Type != unix.RTN_UNICAST {
		return nil // follows from an address
	}
	c := "ip -4 route add "
	if r.Family == unix.AF_INET6 {
		c = "ip -6 route add "
	}
	if r.Dst == nil {
		c += "default"
	} else {
		c += r.Dst.String()
	}
	if r.Gw != nil {
		c += " via " + r.Gw.String()
	}
	c += " dev " + word(l.Attrs().Name)
	if r.Priority != 0 && r.Priority != 1024 { // 1024: what IPv6 routes have without one
		c += fmt.Sprintf(" metric %d", r.Priority)
	}
	if r.Table != unix.RT_TABLE_MAIN && r.Table != 0 {
		c += fmt.Sprintf(" table %d", r.Table)
	}
	return []string{c}
}
