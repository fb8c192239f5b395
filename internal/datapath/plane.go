// Package datapath carries packets between TUN devices and the outer ports: it finds the
// peer of a packet and the path to it, encapsulates and decapsulates, counts what is
// carried and what is not, and shows packets to captures.
//
// One goroutine serves each queue of a device, and one each receiver. On the way of a
// packet there is no lock, no allocation and no channel. What changes rarely (the wires of
// a path, the table of peers) is immutable and replaced through an atomic pointer. What a
// packet needs beyond being carried is left to the owners of tunnels and paths, through
// the interfaces TunnelOwner, PathOwner, Probes and Agent, whose methods never block.
package datapath

import (
	"sync/atomic"

	"sixfour/internal/capture"
	"sixfour/internal/tally"
	"sixfour/transport"
)

// Plane is what all goroutines that receive outer packets share.
type Plane struct {
	Table     atomic.Pointer[Table]
	Stray     tally.Counters           // of packets that belong to no tunnel
	Strangers tally.Strangers          // the sources of those packets
	Captures  capture.Set              // of all tunnels
	messages  atomic.Pointer[Messages] // see SetMessages

	// Failed is called at most once for each receiver, from its goroutine, when it has
	// failed for good.
	Failed func(rx transport.Receiver, err error)
	// Changed is called when the packets of a path begin to arrive by another kind of
	// receiver. It never blocks.
	Changed func()
}
