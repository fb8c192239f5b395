package config

import (
	"net/netip"
	"slices"

	"sixfour/encap/resolve"
)

// AddressAt returns the interface's addresses for the outer address local. If the
// configured local address is "auto", addresses that embed the outer address change with
// it.
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

// checkFollow reports addresses that embed an outer address other than the configured
// one: packets from them are dropped, and packets to them go to another host.
func (d *draft) checkFollow(r *report, m resolve.Mechanism, local end) {
	f, ok := m.(resolve.Follower)
	if !ok || !local.Addr.IsValid() {
		return
	}
	for i, p := range d.Address {
		if want := f.AddressAt(p, local.Addr); want != p {
			r.doubt(d.addressAt[i], "address has %v, which in mode %s belongs to another outer address than %s, %v: write %v", p.Addr(), quote(d.automatic().mode), local.key, local.Addr, want)
			continue
		}
		from, ok := m.(resolve.Restricted)
		if !ok || !p.Addr().Is6() || p.Addr().IsLinkLocalUnicast() {
			continue
		}
		if own, limited := from.Sources(local.Addr); limited && !own.Contains(p.Addr()) {
			r.doubt(d.addressAt[i], "address has %v, which is outside %v, the prefix that is delegated to %s, %v, so that what is sent from it would be dropped: choose one of that prefix", p.Addr(), own, local.key, local.Addr)
		}
	}
}
