package configfile

import (
	"net/netip"
	"slices"

	"sixfour/internal/config/client"
	"sixfour/internal/config/problem"
	"sixfour/internal/config/tree"
)

// updateKeys are the keys for reporting the outer address to a broker.
var updateKeys = newUpdateKeys()

func newUpdateKeys() (rows []tree.Key[*draft]) {
	for _, k := range client.UpdateKeys {
		rows = append(rows, tree.Key[*draft]{Name: k.Name, Read: func(r *problem.Report, e tree.Entry, d *draft) { k.Read(r, e, &d.Update) }})
	}
	return rows
}

// checkUpdate reports what reporting the address lacks, and what contradicts it.
func (d *draft) checkUpdate(r *problem.Report) {
	isAuto := func(local netip.Addr) bool { return !local.IsValid() } // or it has a problem of its own
	client.CheckUpdate(r, d.clientTunnel(), len(d.Peers) == 0 || slices.ContainsFunc(d.Locals(), isAuto))
}
