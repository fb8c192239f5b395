package leases

import "net/netip"

// Offer replaces what there is to give: the fields of Config with these names. Leases stay,
// but one outside of the pool is given to its account no more.
func (b *Base) Offer(pool []netip.Prefix, prefixLength, maxPrefixLength int, open bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.config.Pool, b.config.PrefixLength, b.config.MaxPrefixLength, b.config.Open = pool, prefixLength, maxPrefixLength, open
}
