package configfile

import (
	"net/netip"

	"sixfour/internal/config/problem"
	"sixfour/internal/config/tree"
	"sixfour/internal/config/value"
)

// The well-known address of a B4 (RFC 6333 section 5.7), and the traffic that it sends
// to the AFTR: all of it.
var (
	dsLiteAddress = netip.MustParsePrefix("192.0.0.2/29")
	dsLiteRoute   = netip.MustParsePrefix("0.0.0.0/0")
)

func readDSLite(r *problem.Report, e tree.Entry, d *draft) {
	on, ok := value.Bool(r, e)
	if ok && d.known() && d.Mode.Name != "4in6" {
		r.Add(e.KeyAt, `ds_lite contradicts %s: leave it out, or choose mode "4in6"`, d.what())
		return
	}
	d.dsLite = on
}

// presetDSLite sets the values of a B4 that its table does not set.
func (d *draft) presetDSLite() {
	at := d.Source.Keys["ds_lite"]
	if !d.state.Set["address"] {
		d.Address, d.addressAt = []netip.Prefix{dsLiteAddress}, []problem.Pos{at}
	}
	if !d.state.Set["routes"] {
		d.Routes, d.routesAt = []netip.Prefix{dsLiteRoute}, []problem.Pos{at}
	}
}
