package engine

import (
	"slices"

	"go.uber.org/zap"

	"sixfour/internal/netcfg"
)

// followAggregates makes the kernel record how it merged received packets (GRO) if
// packets cannot be carried otherwise: merged datagrams cannot be told apart, and the
// framing's checksum in a merged packet is that of its first segment.
func (e *Engine) followAggregates() {
	hold := slices.ContainsFunc(e.tunnels, func(t *tunnel) bool {
		return t.cfg.Outermost(&t.cfg.Peers[0].Paths[0]).Properties().Summed
	})
	if !hold {
		on, err := netcfg.Features(netcfg.MergesDatagrams, netcfg.MergesLists)
		if err != nil {
			e.log.Debug("cannot find out whether the uplink merges datagrams (GRO)", zap.Error(err))
		}
		hold = len(on) > 0
	}
	e.arrivals.RecordMerging(hold)
}
