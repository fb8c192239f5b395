package wiring

import (
	"net/netip"
	"strconv"

	"sixfour/encap"
	"sixfour/encap/header"
	"sixfour/encap/icmp"
	"sixfour/internal/datapath"
	"sixfour/internal/ports"
)

// InZone sets the zone of a link-local IPv6 address to the index of the route's interface.
// An interface that is made again has another index, so sockets for the old one are
// replaced.
func InZone(a netip.Addr, device int) netip.Addr {
	if a.Is6() && a.IsLinkLocalUnicast() {
		return a.WithZone(strconv.Itoa(device))
	}
	return a
}

// isZoned reports whether an end of a path is a link-local address with a zone.
func isZoned(l *encap.Layer) bool { return l.Local.Zone() != "" || l.Remote.Zone() != "" }

// HasPorts reports whether packets of a kind arrive at a port of UDP.
func HasPorts(k encap.Kind) bool { return k.Properties().Ports.Local != 0 }

// Port returns the port at which packets with an outermost layer arrive, and through which
// they leave if it is one of UDP. They leave with a mark, and through a device if our
// address is link-local.
func Port(l *encap.Layer, device int, mark uint32) ports.Key {
	k := ports.Raw(l.Kind.Protocol(), l.Local)
	if HasPorts(l.Kind) {
		k.Local = netip.AddrPortFrom(l.Local, l.Kind.Properties().Ports.Local)
		k.Mark = mark
		if isZoned(l) {
			k.Device = device
		}
	}
	return k
}

// GroupPort returns the port for a multicast group at which a layer over a device receives
// packets.
func GroupPort(l *encap.Layer, group netip.Addr, device int) ports.Key {
	k := ports.Raw(l.Kind.Protocol(), group)
	k.At, k.Device = l.Local, device
	return k
}

// ICMPPort returns the port for ICMP messages to an address of ours: errors about outer
// packets, and answers to probes of outer addresses.
func ICMPPort(local netip.Addr) (ports.Key, ports.Need) {
	if local.Is6() {
		return ports.Raw(header.ICMPv6, local), ports.Need{ICMP: received6}
	}
	return ports.Raw(header.ICMP, local), ports.Need{ICMP: received4}
}

// The types of ICMP messages that are received.
var (
	received4 = []int{icmp.Unreachable4, icmp.TimeExceeded4, icmp.Parameter4, icmp.EchoReply4}
	received6 = []int{icmp.Unreachable6, icmp.TooBig6, icmp.TimeExceeded6, icmp.Parameter6, icmp.EchoReply6}
)

// Origin returns the origin of a wire's packets, which have a mark.
func Origin(w *datapath.Wire, mark uint32) ports.Origin {
	l := w.Outer()
	from := ports.Origin{Key: Port(l, w.Hop.Device, mark), Mark: mark}
	if isZoned(l) {
		from.Device = w.Hop.Device
	}
	return from
}

// ReceiveProblem returns why packets with an outermost layer, over a device, cannot be
// received, or "".
func ReceiveProblem(s *ports.Set, l *encap.Layer, device int, mark uint32) string {
	err := s.Err(Port(l, device, mark))
	for _, group := range datapath.Groups(l) {
		if of := s.Err(GroupPort(l, group, device)); of != nil {
			err = of
		}
	}
	if err == nil {
		return ""
	}
	return "a socket to receive with: " + err.Error()
}

// farEnds returns the remote addresses of a stack. They may be in a subnet of this host,
// which is then the link to the peer, and they belong to the peer inside the tunnel, too.
func farEnds(layers []encap.Layer) (ends []netip.Prefix) {
	for _, l := range layers {
		if l.Remote.IsValid() {
			ends = append(ends, netip.PrefixFrom(l.Remote, l.Remote.BitLen()))
		}
	}
	return ends
}
