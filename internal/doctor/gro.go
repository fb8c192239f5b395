package doctor

import (
	"context"
	"strings"

	"sixfour/internal/doctor/finding"
	"sixfour/internal/doctor/subject"
	"sixfour/internal/netcfg"
)

// checkGROList finds devices whose GRO merges packets into lists. Small merged packets
// cannot be recognised: their datagrams arrive as one.
func checkGROList(_ context.Context, h *subject.Host) finding.Finding {
	on, err := netcfg.Features(netcfg.MergesLists)
	if err != nil {
		return finding.Skipped("%v", err)
	}
	if devices := on[netcfg.MergesLists]; len(devices) > 0 {
		return finding.Failed("ethtool -K "+devices[0]+" "+netcfg.MergesLists+" off",
			"%s is on for %s: small datagrams of one flow in a tunnel can arrive merged into one", netcfg.MergesLists, strings.Join(devices, ", "))
	}
	return finding.Passed("no device has %s on", netcfg.MergesLists)
}
