package netcfg

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Policies are the administrator's rules that only the kernel's IP layer can apply to
// packets: IPsec (xfrm(8)), and routing rules that select an IP protocol (ip-rule(8)).
type Policies struct {
	ipsec     []ipsecPolicy
	protocols map[int]bool // selected by rules; bit 8 is set for IPv4
}

// ipsecPolicy is one IPsec policy of the kernel, for received or sent packets.
type ipsecPolicy struct {
	source, dest netip.Prefix
	protocol     uint8 // 0: any
	ports        bool  // selects ports, which tunnel packets do not have
	device       int   // 0: any
	mark, mask   uint32
	direction    netlink.Dir
	priority     uint32 // the policy with the lowest number is tried first
	acts         bool   // its action is not to leave packets alone
}

// Outer holds the properties of outer packets that policies can select.
type Outer struct {
	Local, Remote netip.Addr
	Protocol      uint8
	Mark          uint32
	Device        int // the device through which they leave
}

// Policies reads the policies of the process's own namespace. A kernel without IPsec has
// none.
func (r *Router) Policies() (Policies, error) {
	p := Policies{protocols: make(map[int]bool)}
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		rules, err := r.handle.RuleList(family)
		if err != nil {
			return p, fmt.Errorf("list routing rules: %w", err)
		}
		for _, rule := range rules {
			p.protocols[protocolKey(rule.IPProto, family == unix.AF_INET)] = true
		}
		if err := p.readIPsec(family); err != nil {
			return p, fmt.Errorf("list IPsec policies: %w", err)
		}
	}
	return p, nil
}

func protocolKey(protocol int, ipv4 bool) int {
	if ipv4 {
		protocol |= 1 << 8
	}
	return protocol
}

// readIPsec adds the IPsec policies of an address family.
func (p *Policies) readIPsec(family int) error {
	req := nl.NewNetlinkRequest(nl.XFRM_MSG_GETPOLICY, unix.NLM_F_DUMP)
	req.AddData(nl.NewIfInfomsg(family))
	messages, err := req.Execute(unix.NETLINK_XFRM, nl.XFRM_MSG_NEWPOLICY)
	if errors.Is(err, unix.EPROTONOSUPPORT) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, m := range messages {
		if one, ok := parseIPsec(m, family); ok {
			p.ipsec = append(p.ipsec, one)
		}
	}
	return nil
}

// parseIPsec parses a message (linux/xfrm.h: struct xfrm_userpolicy_info). Ok is false
// for policies of another family, and for those of a virtual IPsec interface.
func parseIPsec(m []byte, family int) (p ipsecPolicy, ok bool) {
	if len(m) < nl.SizeofXfrmUserpolicyInfo {
		return p, false
	}
	info := nl.DeserializeXfrmUserpolicyInfo(m)
	s := &info.Sel
	if int(s.Family) != family {
		return p, false
	}
	p = ipsecPolicy{
		source: selected(s.Saddr, s.PrefixlenS, family), dest: selected(s.Daddr, s.PrefixlenD, family),
		protocol: s.Proto, ports: s.DportMask != 0 || s.SportMask != 0, device: int(s.Ifindex),
		direction: netlink.Dir(info.Dir), priority: info.Priority, acts: info.Action == uint8(netlink.XFRM_POLICY_BLOCK),
	}
	attributes, err := nl.ParseRouteAttr(m[nl.SizeofXfrmUserpolicyInfo:])
	if err != nil {
		return p, false
	}
	for _, a := range attributes {
		switch {
		case a.Attr.Type == nl.XFRMA_TMPL && len(a.Value) >= nl.SizeofXfrmUserTmpl:
			p.acts = true
		case a.Attr.Type == nl.XFRMA_MARK && len(a.Value) >= nl.SizeofXfrmMark:
			mark := nl.DeserializeXfrmMark(a.Value)
			p.mark, p.mask = mark.Value, mark.Mask
		case a.Attr.Type == nl.XFRMA_IF_ID:
			return p, false
		}
	}
	return p, true
}

// selected returns the prefix of a selector.
func selected(a nl.XfrmAddress, bits uint8, family int) netip.Prefix {
	if family == unix.AF_INET {
		return netip.PrefixFrom(netip.AddrFrom4([4]byte(a[:4])), int(bits))
	}
	return netip.PrefixFrom(netip.AddrFrom16(a), int(bits))
}

// Conflict returns why outer packets must not bypass the kernel's IP layer, or "" if they
// may.
func (p Policies) Conflict(o Outer) string {
	for _, d := range []netlink.Dir{netlink.XFRM_DIR_OUT, netlink.XFRM_DIR_IN} {
		if p.ipsecActs(o, d) {
			return fmt.Sprintf("an IPsec policy (ip xfrm policy) applies to packets of protocol %d %s %v, and AF_XDP would bypass it", o.Protocol, preposition(d), o.Remote)
		}
	}
	if p.protocols[protocolKey(int(o.Protocol), o.Remote.Is4())] {
		return fmt.Sprintf("a routing rule (ip rule) selects protocol %d, and AF_XDP would bypass it", o.Protocol)
	}
	return ""
}

func preposition(d netlink.Dir) string {
	if d == netlink.XFRM_DIR_IN {
		return "from"
	}
	return "to"
}

// ipsecActs reports whether the policy that applies to packets of a direction does
// anything with them.
func (p Policies) ipsecActs(o Outer, d netlink.Dir) bool {
	source, dest := o.Local, o.Remote
	if d == netlink.XFRM_DIR_IN {
		source, dest = dest, source
	}
	var first *ipsecPolicy
	for i := range p.ipsec {
		one := &p.ipsec[i]
		if one.direction == d && one.selects(o, source, dest) && (first == nil || one.priority < first.priority) {
			first = one
		}
	}
	return first != nil && first.acts
}

func (p *ipsecPolicy) selects(o Outer, source, dest netip.Addr) bool {
	return p.source.Contains(source.WithZone("")) && p.dest.Contains(dest.WithZone("")) &&
		(p.protocol == 0 || p.protocol == o.Protocol) && !p.ports &&
		(p.device == 0 || p.device == o.Device) && o.Mark&p.mask == p.mark
}

// WatchPolicies calls changed, from one goroutine, whenever IPsec policies of the
// process's own namespace change, until ctx ends. A kernel without IPsec has none.
func WatchPolicies(ctx context.Context, changed func()) error {
	const policyGroup = 4 // XFRMNLGRP_POLICY of linux/xfrm.h
	sock, err := nl.Subscribe(unix.NETLINK_XFRM, policyGroup)
	if errors.Is(err, unix.EPROTONOSUPPORT) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("watch IPsec policies: %w", err)
	}
	defer sock.Close()
	stop := context.AfterFunc(ctx, sock.Close)
	defer stop()
	for {
		_, _, err := sock.Receive()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil && !errors.Is(err, unix.ENOBUFS) { // ENOBUFS means that messages were lost
			return fmt.Errorf("watch IPsec policies: %w", err)
		}
		changed()
	}
}
