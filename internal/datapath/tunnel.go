package datapath

import (
	"net"
	"net/netip"
	"sync/atomic"

	"go.uber.org/zap"

	"sixfour/encap/drop"
	"sixfour/encap/header"
	"sixfour/encap/source"
	"sixfour/internal/capture"
	"sixfour/internal/icmpreply"
	"sixfour/internal/tally"
	"sixfour/tun"
)

// Tunnel carries the packets of one TUN interface. The fields that are not atomic must
// be set before packets are carried.
type Tunnel struct {
	ID       int    // unique among the tunnels of a table
	Name     string // of the interface
	Queues   int    // of the interface
	Log      *zap.Logger
	In, Out  tally.Counters // packets that belong to no peer
	Reply    *icmpreply.Replier
	Captures *capture.Set // nil: no captures
	Owner    TunnelOwner
	Peers    Peers

	Device  atomic.Pointer[tun.Device] // nil: the interface is gone
	MTU     atomic.Int64               // of the interface
	Retired atomic.Bool                // no longer carries packets
	agent   atomic.Pointer[agentBox]   // nil: the mechanism sends nothing of its own
	unfinished
}

// TunnelOwner is told what a tunnel cannot handle itself. Its methods never block, and any
// goroutine may call them.
type TunnelOwner interface {
	// Recovered counts and reports a panic while doing something for the tunnel.
	Recovered(doing string)
}

// Agent exchanges control packets for the tunnel's mechanism. Any goroutine may call its
// methods.
type Agent interface {
	// Wants reports whether a packet that arrived is a control packet.
	Wants(inner []byte) bool
	// Receive handles a control packet that arrived with the outer headers o. It reports
	// whether the packet needs no further handling, or returns the reason why it was
	// dropped.
	Receive(o header.Outer, inner []byte) (done bool, r drop.Reason)
	// Hold queues a packet whose outer destination is not known, and reports whether there
	// was room. If the destination is known meanwhile, it reports that instead.
	Hold(pkt []byte) (held, known bool)
}

type agentBox struct{ Agent }

// SetAgent sets the agent of the tunnel's mechanism; nil: none.
func (t *Tunnel) SetAgent(a Agent) {
	if a == nil {
		t.agent.Store(nil)
	} else {
		t.agent.Store(&agentBox{a})
	}
}

// wants reports whether a packet that arrived is a control packet of the agent.
func (t *Tunnel) wants(inner []byte) bool {
	a := t.agent.Load()
	return a != nil && a.Wants(inner)
}

// Peers are the peers of a tunnel: a single one, or several by inner destination.
type Peers struct {
	Only  *Peer // nil: table decides
	Table atomic.Pointer[source.Peers[*Peer]]
}

// to returns the peer for an inner packet; nil: there is none.
func (s *Peers) to(inner []byte) *Peer {
	if s.Only != nil {
		return s.Only
	}
	p, _ := s.Table.Load().To(inner)
	return p
}

// Toward returns the peer to which packets for an address go; nil: there is none.
func (s *Peers) Toward(a netip.Addr) *Peer {
	if s.Only != nil {
		return s.Only
	}
	p, _ := s.Table.Load().Toward(a)
	return p
}

// Deliver writes one packet of our own to the interface, as one that has arrived. Any
// goroutine may call it.
func (t *Tunnel) Deliver(pkt []byte) error {
	dev := t.Device.Load()
	if dev == nil {
		return net.ErrClosed
	}
	g := tun.NewGatherer(1, int(t.MTU.Load()))
	g.Add(pkt)
	return g.Write(dev.Queues()[0]).Err
}
