package config

import "net/netip"

// The well-known address of a B4 (RFC 6333 section 5.7), and the traffic that it sends
// to the AFTR: all of it.
var (
	dsLiteAddress = netip.MustParsePrefix("192.0.0.2/29")
	dsLiteRoute   = netip.MustParsePrefix("0.0.0.0/0")
)

func readDSLite(r *report, e entry, d *draft) {
	on, ok := boolOf(r, e)
	if ok && d.known() && d.Mode.Name != "4in6" {
		r.add(e.keyAt, `ds_lite contradicts %s: leave it out, or choose mode "4in6"`, d.what())
		return
	}
	d.dsLite = on
}

// presetDSLite sets the values of a B4 that its table does not set.
func (d *draft) presetDSLite() {
	at := d.values["ds_lite"]
	if !d.state.set["address"] {
		d.Address, d.addressAt = []netip.Prefix{dsLiteAddress}, []pos{at}
	}
	if !d.state.set["routes"] {
		d.Routes, d.routesAt = []netip.Prefix{dsLiteRoute}, []pos{at}
	}
}

// RoutesKey returns the key that sets the routes.
func (t *Tunnel) RoutesKey() string {
	if _, ok := t.values["routes"]; ok {
		return "routes"
	}
	return "ds_lite"
}
