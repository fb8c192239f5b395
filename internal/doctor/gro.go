package doctor

import (
	"context"
	"strings"

	"sixfour/internal/netcfg"
)

// checkGROList finds devices whose GRO merges packets into lists. Small merged packets
// cannot be recognised: their datagrams arrive as one.
func (h *host) checkGROList(context.Context) finding {
	on, err := netcfg.Features(netcfg.MergesLists)
	if err != nil {
		return skip("%v", err)
	}
	if devices := on[netcfg.MergesLists]; len(devices) > 0 {
		return fail("ethtool -K "+devices[0]+" "+netcfg.MergesLists+" off",
			"%s is on at %s: small datagrams of one flow inside a tunnel can arrive as one", netcfg.MergesLists, strings.Join(devices, ", "))
	}
	return pass("no device has %s on", netcfg.MergesLists)
}
