package netcfg

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
)

// devices maps the names of interfaces in zones to their current indexes; 0 means that
// there is none.
type devices map[string]int

// zones looks up the zones of the link-local addresses in some queries.
func zones(queries []Query) devices {
	var found devices
	for _, q := range queries {
		for _, a := range [...]netip.Addr{q.Remote, q.Local} {
			z := a.Zone()
			if _, known := found[z]; z == "" || known {
				continue
			}
			if found == nil {
				found = make(devices)
			}
			if n, err := strconv.Atoi(z); err == nil {
				found[z] = n
			} else if i, err := net.InterfaceByName(z); err == nil {
				found[z] = i.Index
			} else {
				found[z] = 0
			}
		}
	}
	return found
}

// of returns the index of the interface for a query's packets; 0 means that the kernel
// chooses.
func (d devices) of(q Query) (int, error) {
	for _, a := range [...]netip.Addr{q.Remote, q.Local} {
		if z := a.Zone(); z != "" {
			if d[z] == 0 {
				return 0, fmt.Errorf("there is no interface %s", z)
			}
			return d[z], nil
		}
	}
	return 0, nil
}
