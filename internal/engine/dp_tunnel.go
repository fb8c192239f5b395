package engine

import (
	"net/netip"
	"sync/atomic"

	"go.uber.org/zap"

	"sixfour/encap/drop"
	"sixfour/encap/header"
	"sixfour/encap/resolve"
	"sixfour/internal/capture"
	"sixfour/internal/icmpreply"
	"sixfour/tun"
)

// dataTunnel carries the packets of one TUN interface. The fields that are not atomic must
// be set before packets are carried.
type dataTunnel struct {
	id        int    // unique among the tunnels of a table
	name      string // of the interface
	queues    int    // of the interface
	log       *zap.Logger
	in, out   counters // packets that belong to no peer
	reply     *icmpreply.Replier
	capturing *capture.Set // nil: no captures
	owner     tunnelOwner
	peers     peersOf

	device    atomic.Pointer[tun.Device] // nil: the interface is gone
	mtu       atomic.Int64               // of the interface
	retired   atomic.Bool                // no longer carries packets
	agent     atomic.Pointer[agentBox]   // nil: the mechanism sends nothing of its own
	fragments reassembly
}

// tunnelOwner is told what a tunnel cannot handle itself. Its methods never block, and any
// goroutine may call them.
type tunnelOwner interface {
	// recovered counts and reports a panic while doing something for the tunnel.
	recovered(doing string)
}

// agent exchanges control packets for the tunnel's mechanism. Any goroutine may call its
// methods.
type agent interface {
	// receive handles a control packet that arrived. It reports whether the packet needs no
	// further handling, or returns the reason why it was dropped.
	receive(from uint32, ip header.IPv6) (done bool, r drop.Reason)
	// hold queues a packet whose outer destination is not known, and reports whether there
	// was room. If the destination is known meanwhile, it reports that instead.
	hold(pkt header.IPv6) (held, known bool)
}

type agentBox struct{ agent }

// setAgent sets the agent of the tunnel's mechanism; nil: none.
func (t *dataTunnel) setAgent(a agent) {
	if a == nil {
		t.agent.Store(nil)
	} else {
		t.agent.Store(&agentBox{a})
	}
}

// peersOf are the peers of a tunnel: a single one, or several by inner destination.
type peersOf struct {
	only  *dataPeer // nil: table decides
	table atomic.Pointer[resolve.Peers[*dataPeer]]
}

// to returns the peer for an inner packet; nil: there is none.
func (s *peersOf) to(inner []byte) *dataPeer {
	if s.only != nil {
		return s.only
	}
	p, _ := s.table.Load().To(inner)
	return p
}

// toward returns the peer to which packets for an address go; nil: there is none.
func (s *peersOf) toward(a netip.Addr) *dataPeer {
	if s.only != nil {
		return s.only
	}
	p, _ := s.table.Load().Toward(a)
	return p
}
