package peercheck

import (
	"context"
	"fmt"

	"sixfour/encap"
	"sixfour/encap/header"
	"sixfour/encap/icmp"
	"sixfour/internal/doctor/finding"
	"sixfour/internal/doctor/prober"
	"sixfour/internal/doctor/subject"
	"sixfour/internal/probe"
)

// FullSize sends packets of the known path MTU: that found by the daemon, or else that
// of the route. It follows routers' errors, as the daemon does.
func FullSize(ctx context.Context, p *subject.Peer) finding.Finding {
	if f, ok := mayProbeAgain(p); !ok {
		return f
	}
	size, by := p.Route.MTU, "the MTU of the first hop"
	if p.Status != nil && p.Status.State.PathMTU > 0 && p.Status.State.PathMTU < size {
		size, by = p.Status.State.PathMTU, "the path MTU that the daemon found"
	}
	size = min(size, maxSize)
	reporter := ""
	for range maxReports {
		q := *p.Answered
		q.Size = size
		o := p.Prober.Send(ctx, q)
		switch {
		case o.Answered():
			return finding.Passed("packets of %d bytes arrive: %s%s", size, by, reporter)
		case o.Err != nil:
			return finding.Skipped("packets of %d bytes cannot be sent: %v", size, o.Err)
		case !o.Replied:
			return searchLargest(ctx, p, size, reporter)
		}
		next := o.Reply.ICMP.MTU(size)
		if o.Reply.ICMP.Meaning() != icmp.TooBig || next < minSize(p) {
			return finding.Failed(remedyFor(p, minSize(p)), "%v reports %s (about packets of %d bytes)", o.From, prober.Meaning(o.Reply.ICMP), size)
		}
		reporter = fmt.Sprintf(" (as router %v reported)", o.From)
		size, by = next, "the path MTU"
	}
	return finding.Skipped("several routers reported smaller and smaller MTUs: sizes below %d bytes were not tried", size)
}

const (
	// maxSize is the largest packet that is sent, in bytes: a jumbo frame.
	maxSize = 9216
	// maxReports is how many routers' reports are followed.
	maxReports = 8
)

// minSize returns the size of the smallest probe, in bytes.
func minSize(p *subject.Peer) int {
	n := prober.IPLen(p.Remote) + probe.Len
	if !answersOutside(p) {
		n += header.IPv6Len + encap.Overhead(p.Prober.Layers, p.Tunnel.Config.Options)
	}
	return n
}

// searchLargest finds the largest size that passes when larger packets are lost without
// an error.
func searchLargest(ctx context.Context, p *subject.Peer, size int, reporter string) finding.Finding {
	passes, vanishes := minSize(p), size
	for vanishes-passes > 1 && ctx.Err() == nil {
		const at = 16 // sizes per round
		step := max(1, (vanishes-passes)/at)
		var probes []prober.Probe
		var sizes []int
		for n := passes + step; n < vanishes; n += step {
			q := *p.Answered
			q.Size = n
			probes, sizes = append(probes, q), append(sizes, n)
		}
		for i, o := range p.Prober.SendAll(ctx, probes) {
			if o.Answered() {
				passes = max(passes, sizes[i])
			} else {
				vanishes = min(vanishes, sizes[i])
			}
		}
		vanishes = max(vanishes, passes+1)
	}
	return finding.Failed(remedyFor(p, passes), "packets of %d bytes are lost without an ICMP error; packets of %d bytes arrive%s", size, passes, reporter)
}

// remedyFor returns the remedy when the path MTU is smaller than known.
func remedyFor(p *subject.Peer, path int) string {
	ipv6 := p.Tunnel.Config.Mode.Carries(6) && path >= header.IPv6Len+int(encap.MinTunnelMTU6)
	mtu := encap.MTU(p.Prober.Layers, encap.PathMTU(path), p.Tunnel.Config.Options, ipv6)
	return fmt.Sprintf("mtu = %d in [[tunnel]] %s, or accept ICMP \"fragmentation needed\" and \"packet too big\" on the path (the daemon finds the MTU by probes, but packets are lost until then)", mtu, p.Tunnel.Config.Name)
}
