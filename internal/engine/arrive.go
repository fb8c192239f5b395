package engine

import (
	"iter"
	"net/netip"
	"slices"
	"time"

	"go.uber.org/zap"

	"sixfour/internal/arrival"
	"sixfour/internal/datapath"
	"sixfour/internal/ports"
	"sixfour/internal/wiring"
)

// arriving returns the paths of all tunnels.
func (e *Engine) arriving() iter.Seq[arrival.Path] {
	return func(yield func(arrival.Path) bool) {
		for _, t := range e.tunnels {
			for p := range t.paths() {
				if !yield(p) {
					return
				}
			}
		}
	}
}

// receives starts what waits for packets of a path to be received.
func (e *Engine) receives(a arrival.Path, first bool) {
	p := a.(*path)
	if first {
		p.Changed()
	}
	e.runAgent(p)
}

// listenAhead starts to open the ports for the configured addresses.
func (e *Engine) listenAhead() {
	var keys []func(int) iter.Seq2[ports.Key, ports.Need]
	for _, t := range e.tunnels {
		keys = append(keys, func(shards int) iter.Seq2[ports.Key, ports.Need] { return wiring.Ahead(&t.cfg, shards) })
	}
	e.arrivals.OpenAhead(keys...)
}

// Arrival returns how the path's packets are received.
func (p *path) Arrival() *arrival.Registration { return &p.Registration }

// HasAddress reports whether the tunnel's interface is to have an address.
func (p *path) HasAddress(a netip.Addr) bool {
	return slices.ContainsFunc(p.t.cfg.Address, func(own netip.Prefix) bool { return own.Addr() == a })
}

// HasName reports whether the remote end is a name.
func (p *path) HasName() bool { return p.remote().Name != "" || p.spec().Listen }

// Mark returns the firewall mark of the path's packets.
func (p *path) Mark() uint32 { return p.t.cfg.FwMark }

// WantsXDP reports whether the path's packets may arrive by AF_XDP.
func (p *path) WantsXDP() bool { return p.t.wantsXDP() }

// Conflicts logs that another path receives no packets, because they cannot be told from
// those of this one.
func (p *path) Conflicts(with *datapath.Path) {
	other := with.Owner.(*path)
	p.report.Log().Error("the packets of this peer cannot be distinguished from those of another peer, which receives none: give one of them another address",
		zap.String("other_tunnel", other.t.cfg.Name), zap.String("other_peer", other.peer.cfg.Name))
}

// Parted logs that the path's packets use sockets for a while because some of them arrive
// there though a filter takes them.
func (p *path) Parted(d time.Duration) {
	p.report.Log().Info("packets arrive through a socket, not through AF_XDP: the XDP filter passes some of them to the kernel, such as fragments and packets with an encapsulation limit, which would reorder the packets", zap.Duration("for", d))
}
