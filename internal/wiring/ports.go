package wiring

import (
	"iter"
	"net/netip"
	"slices"

	"sixfour/encap"
	"sixfour/encap/header"
	"sixfour/encap/icmp"
	"sixfour/internal/config"
	"sixfour/internal/datapath"
	"sixfour/internal/ports"
)

// The functions in this file make all keys of ports. What needs ports gets them from Ports,
// Ahead, Port and Origin. A new type of port needs a field in ports.Key that Port sets,
// and ports.Sockets that open it.

// HasPorts reports whether packets of a kind arrive at a port of UDP.
func HasPorts(k encap.Kind) bool { return k.Properties().Ports.Local != 0 }

// Port returns the port at which packets with an outermost layer arrive, and through which
// they leave if it is one of UDP. They leave with a mark, and through a device if our
// address is link-local. A mechanism with several addresses has one port for all of them.
func Port(l *encap.Layer, device int, mark uint32) ports.Key {
	p := l.Kind.Properties()
	k := ports.Raw(p.Protocol, l.Local)
	if p.Ports.Local != 0 {
		k.Local = netip.AddrPortFrom(l.Local, p.Ports.Local)
		if hasAddresses(l) {
			k.Local = netip.AddrPortFrom(netip.IPv4Unspecified(), p.Ports.Local)
		}
		k.Mark, k.Session = mark, p.Connections
		if isZoned(l) {
			k.Device = device
		}
	}
	return k
}

// Ports returns all ports at which packets of a wire and messages about them arrive, with
// what is needed of each: Port, which has a number of shards unless the order of packets
// must be kept, that of control messages, the ports of its multicast groups, and ICMPPort.
// Those of groups are not kept for the next process: by then their interface may be another
// one.
func Ports(w *datapath.Wire, mark uint32, shards int) iter.Seq2[ports.Key, ports.Need] {
	return func(yield func(ports.Key, ports.Need) bool) {
		l := w.Outer()
		if !yield(Port(l, w.Hop.Device, mark), need(l.Kind, shards)) || !yield(ICMPPort(l.Local)) {
			return
		}
		if k, ok := controlPort(l, w.Hop.Device, mark); ok && !yield(k, ports.Need{Keep: true}) {
			return
		}
		if k, ok := portOfGroup(l, w.Hop.Device); ok && !yield(k, ports.Need{}) {
			return
		}
		if beside := besideKind(l); beside != nil && !yield(Port(beside, w.Hop.Device, mark), need(beside.Kind, shards)) {
			return
		}
		if HasPorts(l.Kind) {
			return
		}
		for _, group := range datapath.Groups(l) {
			if !yield(groupPort(l, group, w.Hop.Device), ports.Need{}) {
				return
			}
		}
	}
}

// besideKind returns the layer of packets with the other protocol beside those of a layer; nil:
// there are none.
func besideKind(l *encap.Layer) *encap.Layer {
	if l.Kind.Properties().Ports.Beside == 0 {
		return nil
	}
	return &encap.Layer{Kind: encap.SixInFour, Local: l.Local}
}

// originBeside is Origin for packets with the other protocol; not ok: there are none.
func originBeside(w *datapath.Wire, mark uint32) (from ports.Origin, ok bool) {
	l := besideKind(w.Outer())
	if l == nil {
		return from, false
	}
	return ports.Origin{Key: Port(l, 0, mark), Mark: mark}, true
}

// controlPort returns the port at which the control messages of a layer arrive; not ok: they
// arrive with its packets, or there are none. They leave through Port: a sender of UDP sends
// packets from other ports, too.
func controlPort(l *encap.Layer, device int, mark uint32) (k ports.Key, ok bool) {
	port := l.Kind.Properties().Ports.Control
	if port == 0 {
		return k, false
	}
	k = Port(l, device, mark)
	k.Local = netip.AddrPortFrom(k.Local.Addr(), port)
	return k, true
}

// portOfGroup returns the port at which a layer that has ports receives a multicast group; not
// ok: it receives none.
func portOfGroup(l *encap.Layer, device int) (k ports.Key, ok bool) {
	port := l.Kind.Properties().Ports.Group
	for _, group := range datapath.Groups(l) {
		if port != 0 && group.IsMulticast() {
			return ports.Key{Protocol: header.UDP, Local: netip.AddrPortFrom(group, port), At: l.Local, Device: device}, true
		}
	}
	return k, false
}

// hasAddresses reports whether a layer, which has ports, receives packets at further addresses
// of this host.
func hasAddresses(l *encap.Layer) bool {
	return slices.ContainsFunc(datapath.Groups(l), func(a netip.Addr) bool { return !a.IsMulticast() })
}

// SamePorts reports whether two wires, whose packets have the same mark, certainly have the
// same ports.
func SamePorts(a, b *datapath.Wire) bool {
	to, as := a.Outer(), b.Outer()
	return a.Hop.Device == b.Hop.Device && to.Local == as.Local && to.Kind == as.Kind && to.Resolver == nil && as.Resolver == nil
}

// Ahead returns the ports for the configured addresses of a tunnel that can be opened before
// there are wires.
func Ahead(cfg *config.Tunnel, shards int) iter.Seq2[ports.Key, ports.Need] {
	return func(yield func(ports.Key, ports.Need) bool) {
		kind := cfg.Kind(len(cfg.Layers) - 1)
		if HasPorts(kind) {
			return
		}
		for _, local := range cfg.Locals() {
			if local.IsValid() && local.Zone() == "" && !yield(Port(&encap.Layer{Kind: kind, Local: local}, 0, 0), need(kind, shards)) {
				return
			}
		}
	}
}

// Awaited returns the port at which the peer of a path arrives before there is a wire, or
// through which it is connected to, from a local address. The number of its shards is 1, or 0 if it may have several.
func Awaited(cfg *config.Tunnel, path *config.Path, local netip.Addr) (ports.Key, ports.Need) {
	kind := cfg.Outermost(path)
	return Port(&encap.Layer{Kind: kind, Local: local}, 0, cfg.FwMark), need(kind, 0)
}

// need returns what is needed of the port for packets of a kind. Connections end with the
// process.
func need(k encap.Kind, shards int) ports.Need {
	p := k.Properties()
	if p.Ordered || p.Session {
		shards = 1
	}
	return ports.Need{Shards: shards, Keep: !p.Session}
}

// groupPort returns the port for a multicast group at which a layer over a device receives
// packets.
func groupPort(l *encap.Layer, group netip.Addr, device int) ports.Key {
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
// received, or "". A mechanism in UDP works without its multicast group.
func ReceiveProblem(s *ports.Set, l *encap.Layer, device int, mark uint32) string {
	err := s.Err(Port(l, device, mark))
	if k, ok := controlPort(l, device, mark); ok && err == nil {
		err = s.Err(k)
	}
	if HasPorts(l.Kind) {
		return problemOf(err)
	}
	for _, group := range datapath.Groups(l) {
		if of := s.Err(groupPort(l, group, device)); of != nil {
			err = of
		}
	}
	return problemOf(err)
}

func problemOf(err error) string {
	if err == nil {
		return ""
	}
	return "a socket to receive with: " + err.Error()
}
