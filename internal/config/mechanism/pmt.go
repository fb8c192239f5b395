package mechanism

import (
	"net/netip"

	"sixfour/internal/config/problem"
)

var prefix6to4 = netip.MustParsePrefix("2002::/16")

// finishPMT checks the keys of role pmt against each other.
func (m *sixToFour) finishPMT(r *problem.Report, t *Tunnel) {
	t.need(r, "provider_prefix", "the provider's IPv6 prefix, which takes the place of 2002::/16")
	t.need(r, "customers", "the IPv4 prefixes of the customers that are served")
	if t.State.Bad["v4_common"] {
		return
	}
	common := m.pmt.Common
	if !common.IsValid() {
		common = netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	}
	for _, c := range m.pmt.Customers {
		if c.Bits() < common.Bits() || !common.Contains(c.Addr()) {
			r.Add(t.Values["customers"], "customers has %v, which is not inside v4_common, %v: leave it out, or choose a shorter v4_common", c, common)
		}
	}
	bits := 32 - common.Bits()
	external := m.pmt.ProviderPrefix.Bits() + bits
	switch {
	case bits == 0:
		r.Add(t.Values["v4_common"], "v4_common is %v, which leaves no bits of the IPv4 address to tell customers apart: it must be shorter than /32", common)
	case !t.State.Good("provider_prefix"):
	case m.pmt.ProviderPrefix.Overlaps(prefix6to4):
		r.Add(t.Values["provider_prefix"], "provider_prefix is %v, which is 6to4's own: it must be a prefix that is routed to the provider", m.pmt.ProviderPrefix)
	case external > 64:
		r.Add(t.Values["provider_prefix"], "provider_prefix is %v, and with %d bits of IPv4 addresses a customer's prefix would be /%d, longer than /64: choose a shorter prefix, or a longer v4_common",
			m.pmt.ProviderPrefix, bits, external)
	case external <= 48 && m.pmt.Subnet != 0:
		r.Add(t.Values["subnet"], "subnet is %d, but a customer's prefix is /%d, which has room for all its subnets: leave it out", m.pmt.Subnet, external)
	}
}
