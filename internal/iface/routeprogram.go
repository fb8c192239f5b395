package iface

import (
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"sixfour/internal/rtnl"
)

// programName is what "ip route" shows of a route's program.
const programName = "sixfour\x00"

// Numbers of linux/lwtunnel.h.
const (
	encapBPF   = 6  // LWTUNNEL_ENCAP_BPF
	bpfXmit    = 3  // LWT_BPF_XMIT
	bpfProgram = 1  // LWT_BPF_PROG_FD
	bpfName    = 2  // LWT_BPF_PROG_NAME
	encapKind  = 21 // RTA_ENCAP_TYPE
	encapData  = 22 // RTA_ENCAP
)

// writeProgram adds the BPF program of a route.
func writeProgram(b *rtnl.Builder, descriptor int) {
	var program, xmit rtnl.Builder
	program.Number(bpfProgram, uint32(descriptor))
	program.Attribute(bpfName, []byte(programName))
	xmit.Attribute(bpfXmit|unix.NLA_F_NESTED, program)
	b.Attribute(encapData|unix.NLA_F_NESTED, xmit)
	b.Short(encapKind, encapBPF)
}

// SetRouteProgram gives the IPv4 routes of the interface a BPF program (LWT_BPF_XMIT) that sees
// the packets before they enter it, by its descriptor; 0: none. Those that are added later get it,
// too, but those that the kernel adds with an address only at the next call. It does nothing if
// nothing is to be done.
func (l *Link) SetRouteProgram(descriptor int) error {
	if descriptor == l.program && !l.unprepared {
		return nil
	}
	changed := descriptor != l.program
	l.program, l.unprepared = descriptor, false
	if descriptor == 0 && !changed {
		return nil
	}
	has, err := l.addresses()
	if err != nil {
		return err
	}
	var routes []linkRoute
	for _, p := range has {
		if p.Addr().Is4() && !p.IsSingleIP() {
			routes = append(routes, linkRoute{dst: p.Masked(), index: l.index, protocol: unix.RTPROT_KERNEL, source: p.Addr(), program: descriptor})
		}
	}
	if changed {
		for _, p := range l.present().Routes {
			if p.Addr().Is4() {
				routes = append(routes, l.route(p))
			}
		}
	}
	return l.each(len(routes), func(b *rtnl.Builder, i int) {
		newRoute(b, routes[i], unix.NLM_F_CREATE|unix.NLM_F_REPLACE)
	}, func(i int, err error) error {
		return fmt.Errorf("give route %v through %s a BPF program: %w", routes[i].dst, l.set.Name, err)
	})
}

// programFor returns the program of a route to a prefix.
func (l *Link) programFor(p netip.Prefix) int {
	if p.Addr().Is4() {
		return l.program
	}
	return 0
}
