package doctor

import (
	"context"
	"fmt"

	"sixfour/encap"
	"sixfour/encap/header"
	"sixfour/encap/icmp"
	"sixfour/internal/probe"
)

// checkFullSize sends packets of the known path MTU: that found by the daemon, or else that
// of the route. It follows routers' errors, as the daemon does.
func (p *peer) checkFullSize(ctx context.Context) finding {
	if f, ok := p.unasked(); !ok {
		return f
	}
	size, by := p.route.MTU, "the first hop's"
	if p.status != nil && p.status.State.PathMTU > 0 && p.status.State.PathMTU < size {
		size, by = p.status.State.PathMTU, "which the daemon has found"
	}
	size = min(size, maxAsked)
	told := ""
	for range maxPlateaus {
		q := *p.asked
		q.size = size
		o := p.asker.ask(ctx, q)
		switch {
		case o.answered():
			return pass("packets of %d bytes arrive, %s%s", size, by, told)
		case o.err != nil:
			return skip("packets of %d bytes do not leave: %v", size, o.err)
		case !o.ok:
			return p.blackHole(ctx, size, told)
		}
		next := o.reply.err.MTU(size)
		if o.reply.err.Meaning() != icmp.TooBig || next < p.leastSize() {
			return fail(p.smaller(p.leastSize()), "of packets of %d bytes %v says %s", size, o.from, meaning(o.reply.err))
		}
		told = fmt.Sprintf(": router %v says so", o.from)
		size, by = next, "the path's MTU"
	}
	return skip("router after router has a smaller MTU: not followed below %d bytes", size)
}

const (
	// maxAsked is the largest packet that is sent, in bytes: a jumbo frame.
	maxAsked = 9216
	// maxPlateaus is how many routers' reports are followed.
	maxPlateaus = 8
)

// leastSize returns the size of the smallest question, in bytes.
func (p *peer) leastSize() int {
	n := ipLen(p.remote) + probe.Len
	if !p.beside() {
		n += header.IPv6Len + encap.Overhead(p.asker.layers, p.t.cfg.Options)
	}
	return n
}

// blackHole finds the largest size that passes when larger packets are lost without an error.
func (p *peer) blackHole(ctx context.Context, size int, told string) finding {
	passes, vanishes := p.leastSize(), size
	for vanishes-passes > 1 && ctx.Err() == nil {
		const at = 16 // sizes per round
		step := max(1, (vanishes-passes)/at)
		var questions []question
		var sizes []int
		for n := passes + step; n < vanishes; n += step {
			q := *p.asked
			q.size = n
			questions, sizes = append(questions, q), append(sizes, n)
		}
		for i, o := range p.asker.askAll(ctx, questions) {
			if o.answered() {
				passes = max(passes, sizes[i])
			} else {
				vanishes = min(vanishes, sizes[i])
			}
		}
		vanishes = max(vanishes, passes+1)
	}
	return fail(p.smaller(passes), "packets of %d bytes vanish without an ICMP error; those of %d arrive%s", size, passes, told)
}

// smaller returns the remedy when the path MTU is smaller than known.
func (p *peer) smaller(path int) string {
	ipv6 := p.t.cfg.Mode.Carries(6) && path >= header.IPv6Len+int(encap.MinTunnelMTU6)
	mtu := encap.MTU(p.asker.layers, encap.PathMTU(path), p.t.cfg.Options, ipv6)
	return fmt.Sprintf("mtu = %d in [[tunnel]] %s, or let ICMP \"fragmentation needed\" and \"packet too big\" pass on the way (the daemon finds the MTU by probes, but loses packets until it has)", mtu, p.t.cfg.Name)
}
