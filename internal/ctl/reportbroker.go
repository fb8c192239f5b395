package ctl

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"sixfour/internal/api"
)

// broker shows the state of the [broker] section.
func (r *reporter) broker(b *api.BrokerStatus) {
	if b == nil {
		return
	}
	r.line()
	r.line(cell{"broker", bold})
	if b.Error != "" {
		r.line(cell{fmt.Sprintf("  %-10s ", "store"), faint}, cell{plain(b.Error), red})
	} else {
		r.field("prefixes", "%d given away to %d accounts, %d left, in %s", b.Leases, b.Accounts, b.FreePrefixes, b.Store)
	}
	clients := "none connected"
	if list := counted(b.Clients); list != "" {
		clients = list + " connected"
	}
	r.field("clients", "%s", clients)
	refused := map[string]uint64{}
	for _, f := range b.Refused {
		refused[f.Protocol+" "+f.Reason] += f.Count
	}
	if len(refused) > 0 {
		r.field("refused", "%s", counts(refused))
	}
	for _, l := range b.Listeners {
		if l.Error != "" {
			r.field("listener", "%s at %v: %s", l.Protocol, l.Address, l.Error)
		}
	}
}

// counted lists counts that are not zero, by name.
func counted(by map[string]int) string {
	var list []string
	for _, name := range slices.Sorted(maps.Keys(by)) {
		if by[name] > 0 {
			list = append(list, fmt.Sprintf("%d %s", by[name], name))
		}
	}
	return strings.Join(list, ", ")
}
