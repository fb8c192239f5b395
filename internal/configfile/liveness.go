package configfile

import (
	"net/netip"
	"slices"
	"time"

	"sixfour/internal/config"
	"sixfour/internal/config/problem"
	"sixfour/internal/config/tree"
	"sixfour/internal/config/value"
)

// Bounds of keepalive: with more than one probe per second, a peer is not found to be
// down any sooner, because an answer may take that long.
const (
	leastKeepalive = time.Second
	mostKeepalive  = 24 * time.Hour
)

func readKeepalive(r *problem.Report, e tree.Entry, d *draft) {
	if k, ok := value.Duration(r, e, leastKeepalive, mostKeepalive, "no probes"); ok {
		d.Keepalive = k
	}
}

// mostDeadAfter is far above any useful value.
const mostDeadAfter = 1000

func readDeadAfter(r *problem.Report, e tree.Entry, d *draft) {
	if n, _, ok := value.Number(r, e, 1, mostDeadAfter); ok {
		d.DeadAfter = int(n)
	}
}

func readProbe(r *problem.Report, e tree.Entry, d *draft) { d.probe = probeOf(r, e) }

func readPeerProbe(r *problem.Report, e tree.Entry, p *peerDraft) {
	p.Probe, p.probeAt = probeOf(r, e), e.At
}

// probeOf returns the value of a key probe. It is invalid if the value was wrong, which
// probeOf has reported.
func probeOf(r *problem.Report, e tree.Entry) netip.Addr {
	const want = "an inner address of the other end, or of a host behind it, that answers pings"
	text, ok := value.String(r, e, want)
	if !ok {
		return netip.Addr{}
	}
	a, err := netip.ParseAddr(text)
	if err != nil || a.Zone() != "" || a.Is4In6() || a.IsUnspecified() || a.IsMulticast() || a.IsLoopback() || a.IsLinkLocalUnicast() || a == config.Broadcast {
		value.Refuse(r, e, want)
		return netip.Addr{}
	}
	return a
}

// checkProbes reports addresses that cannot be probed, or whose answers would be
// dropped.
func (d *draft) checkProbes(r *problem.Report) {
	if at, set := d.Source.Keys["probe"]; set && d.probe.IsValid() {
		switch {
		case d.Hub:
			r.Add(at, "probe is for one peer: write it below its [[tunnel.peer]]")
		case d.automatic() != nil:
			r.Add(at, "probe contradicts %s, which has no single peer to probe: leave it out", d.what())
		default:
			d.checkProbe(r, at, d.probe)
		}
	}
	for _, p := range d.peers {
		if !p.Probe.IsValid() {
			continue
		}
		if len(p.Allowed) > 0 && !slices.ContainsFunc(p.Allowed, func(a netip.Prefix) bool { return a.Contains(p.Probe) }) {
			r.Add(p.probeAt, "probe is %v, which is not in allowed of the peer: its answers would be dropped as spoof: add it there, or choose another address", p.Probe)
			continue
		}
		d.checkProbe(r, p.probeAt, p.Probe)
	}
}

func (d *draft) checkProbe(r *problem.Report, at problem.Pos, a netip.Addr) {
	switch {
	case d.known() && !d.Mode.Carries(value.Version(a)):
		r.Add(at, "probe is %v, but %s carries no IPv%d: choose an address that packets inside the tunnel have", a, d.what(), value.Version(a))
	case slices.ContainsFunc(d.Address, func(own netip.Prefix) bool { return own.Addr() == a }):
		r.Add(at, "probe is %v, which address gives to this end: choose the other end's", a)
	case !d.SourceFor(a).IsValid():
		r.Add(at, "probe is %v, but the interface has no IPv%d address to probe from: add one to address", a, value.Version(a))
	}
}
