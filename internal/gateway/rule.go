package gateway

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// protocol is the routing protocol number of our rules and routes (the names of those
// that have one are in rt_protos of iproute2).
const protocol = 64

// Priorities of our rules: see the package comment.
const (
	priorityBypass     = 30000
	priorityMain       = 30001
	priorityTunnel     = 30002
	priorityEnd        = 30003
	priorityForwarding = 30010
	priorityLast       = 32768
)

// rule is a routing rule, with the properties that ours use.
type rule struct {
	priority   int
	mark, mask uint32
	from, to   netip.Prefix
	arrived    string // the interface on which the packet arrived
	jump       int    // goto a priority
	table      int
	noDefault  bool // ignore the table's default route
}

func isDefaultRouteRule(r rule) bool { return r.priority != priorityForwarding }
func isForwardingRule(r rule) bool   { return r.priority == priorityForwarding }

// ownRules returns the rules of an IP version that we have made.
func ownRules(h *netlink.Handle, v int, which func(rule) bool) ([]rule, error) {
	list, err := dump(func() ([]netlink.Rule, error) { return h.RuleList(family(v)) })
	if err != nil {
		return nil, fmt.Errorf("list the rules of IPv%d: %w", v, err)
	}
	var rules []rule
	for _, l := range list {
		if r := fromKernel(l); l.Protocol == protocol && which(r) {
			rules = append(rules, r)
		}
	}
	return rules, nil
}

// dump repeats a listing until nothing changes during it, up to a limit: if the limit is
// reached, the change itself will be reported, and there will be another listing.
func dump[T any](list func() ([]T, error)) (all []T, err error) {
	for range 3 {
		if all, err = list(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			return all, err
		}
	}
	return all, nil
}

// family returns the kernel's number for an IP version.
func family(v int) int {
	if v == 4 {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

func fromKernel(k netlink.Rule) rule {
	r := rule{priority: k.Priority, mark: k.Mark, from: prefix(k.Src), to: prefix(k.Dst), arrived: k.IifName, jump: max(k.Goto, 0), table: k.Table, noDefault: k.SuppressPrefixlen == 0}
	if k.Mask != nil {
		r.mask = *k.Mask
	}
	return r
}

func (r rule) toKernel(v int) *netlink.Rule {
	k := netlink.NewRule()
	k.Family, k.Priority, k.Protocol = family(v), r.priority, protocol
	k.Src, k.Dst, k.IifName = ipNet(r.from), ipNet(r.to), r.arrived
	if r.mark != 0 {
		k.Mark, k.Mask = r.mark, &r.mask
	}
	switch {
	case r.jump != 0:
		k.Goto = r.jump
	case r.table != 0:
		k.Table = r.table
	default:
		k.Type = nl.FR_ACT_NOP
	}
	if r.noDefault {
		k.SuppressPrefixlen = 0
	}
	return k
}

func prefix(n *net.IPNet) netip.Prefix {
	if n == nil {
		return netip.Prefix{}
	}
	a, _ := netip.AddrFromSlice(n.IP)
	ones, _ := n.Mask.Size()
	return netip.PrefixFrom(a, ones)
}

func ipNet(p netip.Prefix) *net.IPNet {
	if !p.IsValid() {
		return nil
	}
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// setRules changes the kernel's rules from those in there to those in wanted. The rule
// that sends packets into the tunnel is added last and removed first.
func setRules(h *netlink.Handle, v int, existing, wanted []rule) error {
	late := func(a, b rule) int {
		switch {
		case a.priority == b.priority:
			return 0
		case a.priority == priorityTunnel:
			return 1
		case b.priority == priorityTunnel:
			return -1
		}
		return 0
	}
	add := slices.DeleteFunc(slices.Clone(wanted), func(r rule) bool { return slices.Contains(existing, r) })
	remove := slices.DeleteFunc(slices.Clone(existing), func(r rule) bool { return slices.Contains(wanted, r) })
	slices.SortStableFunc(add, late)
	slices.SortStableFunc(remove, func(a, b rule) int { return late(b, a) })
	var all error
	for _, r := range add {
		if err := h.RuleAdd(r.toKernel(v)); err != nil && !errors.Is(err, unix.EEXIST) {
			all = errors.Join(all, fmt.Errorf("add routing rule %d of IPv%d: %w", r.priority, v, err))
		}
	}
	if all != nil { // without the exceptions no packet may be sent into the tunnel
		remove = append(remove, slices.DeleteFunc(slices.Clone(wanted), func(r rule) bool { return r.priority != priorityTunnel })...)
	}
	for _, r := range remove {
		if err := h.RuleDel(r.toKernel(v)); err != nil && !errors.Is(err, unix.ENOENT) {
			all = errors.Join(all, fmt.Errorf("remove routing rule %d of IPv%d: %w", r.priority, v, err))
		}
	}
	return all
}
