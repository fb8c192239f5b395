package config

import (
	"net/netip"
	"slices"

	"sixfour/encap/resolve"
)

// AddressAt are the interface's addresses while the outer address of ours is local.
// Where that is "auto", addresses in which a mechanism has it follow it.
func (t *Tunnel) AddressAt(local netip.Addr) []netip.Prefix {
	for _, l := range t.Layers {
		if f, ok := l.Mechanism.(resolve.Follower); ok && !l.Local.IsValid() && local.IsValid() {
			list := slices.Clone(t.Address)
			for i, p := range list {
				list[i] = f.AddressAt(p, local)
			}
			return list
		}
	}
	return t.Address
}

// checkFollow reports addresses in which another outer address is than the one that is
// configured: what is sent from them is dropped, and what comes to them is for another.
func (d *draft) checkFollow(r *report, m resolve.Mechanism, local end) {
	f, ok := m.(resolve.Follower)
	if !ok || !local.Addr.IsValid() {
		return
	}
	for i, p := range d.Address {
		if want := f.AddressAt(p, local.Addr); want != p {
			r.add(d.addressAt[i], "address has %v, which in mode %s belongs to another outer address than %s, %v: write %v", p.Addr(), quote(d.automatic().mode), local.key, local.Addr, want)
			continue
		}
		rd, ok := m.(resolve.SixRD)
		if !ok || rd.Role != resolve.RoleCE || !p.Addr().Is6() || p.Addr().IsLinkLocalUnicast() {
			continue
		}
		if own, err := rd.Delegated(local.Addr); err == nil && !own.Contains(p.Addr()) {
			r.add(d.addressAt[i], "address has %v, which is outside %v, the prefix that is delegated to %s, %v, so that what is sent from it would be dropped: choose one of that prefix", p.Addr(), own, local.key, local.Addr)
		}
	}
}
