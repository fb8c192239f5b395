package source

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"github.com/gaissmai/bart"

	"sixfour/encap/drop"
	"sixfour/encap/header"
)

// HostNets holds the addresses of a host in one network namespace, and the subnets that
// it reaches without a router. No packet from a tunnel may have a source address of this
// host. It may have a source in one of the subnets only if the subnet is reached through
// that tunnel (mechanisms 1.8, RFC 3704). HostNets is immutable.
//
// It is a hash table and not a trie, because there is a lookup for every packet: hosts
// have few different prefix lengths, and each length costs one lookup in the hash table.
// IPv4 addresses are stored as IPv4-mapped ones.
type HostNets struct {
	lengths4, lengths6 []length // longest first
	slots              []hostNet
	shift              uint8
}

type length struct {
	mask header.Word6
	bits uint8
}

// hostNet is an entry for a prefix.
type hostNet struct {
	prefix header.Word6
	bits   uint8 // 0: the entry is free
	own    bool
	links  []int // the interfaces on which it is a subnet
}

// HostAddress is an address of a host: its interface, and the subnet that is reached
// through it, which is invalid if there is none.
type HostAddress struct {
	Addr   netip.Addr
	Subnet netip.Prefix
	Link   int
}

// NewHostNets builds the table from a list. Link-local addresses are left out, because
// another host may have the same one on another link.
func NewHostNets(list []HostAddress) *HostNets {
	n := &HostNets{shift: 61} // at most half full: each address has two prefixes
	for 1<<(64-n.shift) < 4*len(list) {
		n.shift--
	}
	n.slots = make([]hostNet, 1<<(64-n.shift))
	for _, a := range list {
		if a.Addr.Is6() && a.Addr.IsLinkLocalUnicast() || a.Addr.IsLoopback() {
			continue
		}
		n.add(netip.PrefixFrom(a.Addr, a.Addr.BitLen())).own = true
		if !a.Subnet.IsValid() || a.Subnet.Bits() == 0 {
			continue
		}
		if v := n.add(a.Subnet); !slices.Contains(v.links, a.Link) {
			v.links = append(v.links, a.Link)
		}
	}
	longest := func(a, b length) int { return int(b.bits) - int(a.bits) }
	slices.SortFunc(n.lengths4, longest)
	slices.SortFunc(n.lengths6, longest)
	return n
}

// add returns the entry of a prefix, and creates it if there is none.
func (n *HostNets) add(p netip.Prefix) *hostNet {
	lengths, bits := &n.lengths6, p.Bits()
	if p.Addr().Is4() {
		lengths, bits = &n.lengths4, bits+mappedBits
	}
	m := header.NewPrefix6(netip.PrefixFrom(netip.IPv6Unspecified(), bits)).Mask
	if l := (length{m, uint8(bits)}); !slices.Contains(*lengths, l) {
		*lengths = append(*lengths, l)
	}
	b := p.Addr().As16()
	a := header.ReadWord6(b[:])
	a.Hi, a.Lo = a.Hi&m.Hi, a.Lo&m.Lo
	v := n.slot(a, uint8(bits))
	v.prefix, v.bits = a, uint8(bits)
	return v
}

// mappedBits is the length of the prefix of IPv4-mapped addresses (RFC 4291 section
// 2.5.5.2).
const mappedBits = 96

// slot returns the entry of a prefix, or the free one where it would be.
func (n *HostNets) slot(a header.Word6, bits uint8) *hostNet {
	for i := (a.Hi*0x9e3779b97f4a7c15 ^ (a.Lo+uint64(bits))*0xc2b2ae3d27d4eb4f) >> n.shift; ; i++ {
		v := &n.slots[i%uint64(len(n.slots))]
		if v.bits == 0 || v.bits == bits && v.prefix == a {
			return v
		}
	}
}

// find returns the longest prefix that contains an address, or nil if there is none.
func (n *HostNets) find(a header.Word6, lengths []length) *hostNet {
	for i := range lengths {
		l := &lengths[i]
		if v := n.slot(header.Word6{Hi: a.Hi & l.mask.Hi, Lo: a.Lo & l.mask.Lo}, l.bits); v.bits != 0 {
			return v
		}
	}
	return nil
}

// Interface is a tunnel interface among the other interfaces of its namespace. It is
// immutable; to change it, make a new one and replace the old one through an atomic
// pointer.
type Interface struct {
	nets   *HostNets
	link   int
	behind *bart.Lite // the configured prefixes behind it
}

// NewInterface returns the interface with an index. Behind are the configured lists of
// prefixes behind it, which may also be subnets of other interfaces, or parts of them.
func NewInterface(nets *HostNets, link int, behind ...[]netip.Prefix) *Interface {
	i := &Interface{nets: nets, link: link, behind: new(bart.Lite)}
	for _, list := range behind {
		for _, p := range list {
			if nets.has(p.Addr()) { // others are never looked up
				i.behind.Insert(p.Masked())
			}
		}
	}
	return i
}

// has reports whether an address is in the table, or in one of its subnets.
func (n *HostNets) has(a netip.Addr) bool {
	lengths := n.lengths6
	if a.Is4() {
		lengths = n.lengths4
	}
	b := a.As16()
	return n.find(header.ReadWord6(b[:]), lengths) != nil
}

// judge4 checks whether an inner packet may have the source a, if it comes from a peer
// with further prefixes behind it. The longest prefix decides, as in a routing table.
func (i *Interface) judge4(a uint32, peer []netip.Prefix) drop.Reason {
	v := i.nets.find(header.Word6{Lo: 0xffff<<32 | uint64(a)}, i.nets.lengths4)
	if v == nil || !v.own && slices.Contains(v.links, i.link) {
		return drop.None
	}
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], a)
	return i.refuse(v, netip.AddrFrom4(b), int(v.bits)-mappedBits, peer)
}

// judge6 is judge4 for IPv6.
func (i *Interface) judge6(a header.Word6, peer []netip.Prefix) drop.Reason {
	v := i.nets.find(a, i.nets.lengths6)
	if v == nil || !v.own && slices.Contains(v.links, i.link) {
		return drop.None
	}
	return i.refuse(v, a.Addr(), int(v.bits), peer)
}

// refuse returns the reason to drop a source that is not in a subnet of the interface.
func (i *Interface) refuse(v *hostNet, a netip.Addr, bits int, peer []netip.Prefix) drop.Reason {
	if v.own {
		return drop.OwnSource
	}
	if p, ok := i.behind.LookupPrefixLPM(netip.PrefixFrom(a, a.BitLen())); ok && p.Bits() >= bits {
		return drop.None
	}
	for _, p := range peer {
		if p.Bits() >= bits && p.Contains(a) {
			return drop.None
		}
	}
	return drop.Spoof
}
