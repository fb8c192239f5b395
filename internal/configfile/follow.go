package configfile

import (
	"sixfour/encap/resolve"
	"sixfour/internal/config/problem"
)

// checkFollow reports addresses that embed an outer address other than the configured
// one: packets from them are dropped, and packets to them go to another host.
func (d *draft) checkFollow(r *problem.Report, m resolve.Mechanism, local end) {
	f, ok := m.(resolve.Follower)
	if !ok || !local.Addr.IsValid() {
		return
	}
	for i, p := range d.Address {
		if want := f.AddressAt(p, local.Addr); want != p {
			r.Doubt(d.addressAt[i], "address has %v, which in mode %s belongs to another outer address than %s, %v: write %v", p.Addr(), problem.Quote(d.automatic().mode), local.key, local.Addr, want)
			continue
		}
		from, ok := m.(resolve.Restricted)
		if !ok || !p.Addr().Is6() || p.Addr().IsLinkLocalUnicast() {
			continue
		}
		if own, limited := from.Sources(local.Addr); limited && !own.Contains(p.Addr()) {
			r.Doubt(d.addressAt[i], "address has %v, which is outside %v, the prefix that is delegated to %s, %v, so that what is sent from it would be dropped: choose one of that prefix", p.Addr(), own, local.key, local.Addr)
		}
	}
}
