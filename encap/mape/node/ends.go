package node

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"

	"sixfour/encap/header"
	"sixfour/encap/mape"
)

// found says whether there is an end for an IPv4 address and a port.
type found uint8

const (
	nobody    found = iota // no rule or binding has the address
	noEnd                  // the address is shared, and the port belongs to nobody
	needsPort              // the address is shared, and there is no port
	someone
)

// ends finds the IPv6 addresses of customer edges.
type ends interface {
	// at returns the end with an IPv4 address and a port, or any of the address that
	// needs none.
	at(a uint32, p port) (header.Word6, found)
}

// rules are mapping rules in the form in which they are applied to packets, by the length of the
// IPv4 prefix, the longest first.
type rules []sameLength

type sameLength struct {
	mask uint32
	by   map[uint32]*rule
}

// rule is a mape.Rule as numbers.
type rule struct {
	v6      uint64 // the first half of addresses, without EA bits
	suffix  uint32 // mask of the bits of the IPv4 address that are EA bits
	right   int    // how far these are right in the IPv4 address
	left    int    // how far EA bits are left in the first half
	psidLen int    // of the port set identifier in the EA bits
	ports   mape.Ports
	draft03 bool
}

// newRules returns rules in the form for packets. Each must have another IPv4 prefix.
func newRules(list []mape.Rule) (rules, error) {
	var all rules
	for i := range list {
		r := &list[i]
		if err := r.Check(); err != nil {
			return nil, err
		}
		bits := r.IPv4.Bits()
		suffix := min(r.EABits, 32-bits)
		hi, _ := header.Word6Of(r.IPv6.Masked().Addr())
		c := &rule{
			v6: hi.Hi, right: 32 - bits - suffix, left: 64 - r.IPv6.Bits() - r.EABits, psidLen: r.EABits - suffix,
			suffix: uint32(uint64(1)<<suffix - 1), ports: r.Ports, draft03: r.Draft03,
		}
		if c.psidLen > 0 {
			c.ports.PSIDLen = c.psidLen
		}
		mask := uint32(uint64(0xffffffff) << (32 - bits))
		at := slices.IndexFunc(all, func(s sameLength) bool { return s.mask == mask })
		if at < 0 {
			all, at = append(all, sameLength{mask, make(map[uint32]*rule)}), len(all)
		}
		v4 := binary.BigEndian.Uint32(r.IPv4.Addr().AsSlice()) & mask
		if all[at].by[v4] != nil {
			return nil, fmt.Errorf("two rules have the IPv4 prefix %v", r.IPv4.Masked())
		}
		all[at].by[v4] = c
	}
	slices.SortFunc(all, func(a, b sameLength) int { return cmp.Compare(b.mask, a.mask) })
	return all, nil
}

func (l rules) at(a uint32, p port) (header.Word6, found) {
	for _, s := range l {
		if r := s.by[a&s.mask]; r != nil {
			return r.at(a, p)
		}
	}
	return header.Word6{}, nobody
}

func (r *rule) at(a uint32, p port) (end header.Word6, f found) {
	psid, ok := uint16(0), true
	if r.ports.PSIDLen > 0 {
		if p.state != withPort {
			return end, needsPort
		}
		psid, ok = r.ports.SetOf(p.number)
		if !ok || r.psidLen == 0 && psid != r.ports.PSID {
			return end, noEnd
		}
	}
	ea := uint64(a>>r.right&r.suffix) << r.psidLen
	if r.psidLen > 0 {
		ea |= uint64(psid)
	}
	end.Hi = r.v6 | ea<<r.left
	if end.Lo = uint64(a>>r.right<<r.right)<<16 | uint64(psid); r.draft03 {
		end.Lo <<= 8
	}
	return end, someone
}

// bindings are the customers of lightweight 4over6, by IPv4 address.
type bindings map[uint32]*binding

// binding is how an IPv4 address is shared.
type binding struct {
	ports mape.Ports              // with any PSID
	ends  map[uint16]header.Word6 // by PSID
}

// newBindings returns the bindings of customers. All with the same IPv4 address must share it in
// the same way.
func newBindings(list []mape.Edge) (bindings, error) {
	all := make(bindings, len(list))
	for i := range list {
		e := &list[i]
		if err := e.Ports.Check(); err != nil {
			return nil, err
		}
		if !e.IPv4.IsValid() || !e.IPv4.Addr().Is4() || !e.IPv4.IsSingleIP() {
			return nil, fmt.Errorf("%v is not an IPv4 address", e.IPv4)
		}
		end, ok := header.Word6Of(e.IPv6)
		if !ok {
			return nil, fmt.Errorf("%v is not an IPv6 address", e.IPv6)
		}
		v4 := binary.BigEndian.Uint32(e.IPv4.Addr().AsSlice())
		b := all[v4]
		if b == nil {
			b = &binding{ports: e.Ports, ends: make(map[uint16]header.Word6, 1)}
			all[v4] = b
		}
		if b.ports.Offset != e.Ports.Offset || b.ports.PSIDLen != e.Ports.PSIDLen {
			return nil, fmt.Errorf("two bindings of %v have port sets of different form: give them the same offset, and port set identifiers of the same length", e.IPv4.Addr())
		}
		if _, taken := b.ends[e.Ports.PSID]; taken {
			return nil, fmt.Errorf("two bindings have %v with the same port set: %s", e.IPv4.Addr(), portSet(e.Ports))
		}
		b.ends[e.Ports.PSID] = end
	}
	return all, nil
}

// portSet describes a port set in an error.
func portSet(p mape.Ports) string {
	if p.PSIDLen == 0 {
		return "all ports"
	}
	return fmt.Sprintf("port set identifier %d", p.PSID)
}

func (l bindings) at(a uint32, p port) (end header.Word6, f found) {
	b := l[a]
	if b == nil {
		return end, nobody
	}
	psid := uint16(0)
	if b.ports.PSIDLen > 0 {
		if p.state != withPort {
			return end, needsPort
		}
		var ok bool
		if psid, ok = b.ports.SetOf(p.number); !ok {
			return end, noEnd
		}
	}
	end, ok := b.ends[psid]
	if !ok {
		return end, noEnd
	}
	return end, someone
}

// word4 returns an IPv4 address as a number.
func word4(a netip.Addr) uint32 { return binary.BigEndian.Uint32(a.AsSlice()) }
