package api

import (
	"time"
)

// Event is a change of a tunnel or of the configuration.
type Event struct {
	At     time.Time `json:"at"`
	Tunnel string    `json:"tunnel"`
	Peer   string    `json:"peer,omitempty"`
	Kind   string    `json:"kind"`
	Text   string    `json:"text"`
}

// Kinds of events. An event of kind "lost" says how many events were not delivered,
// because the reader was too slow.
const (
	EventState   = "state"    // the phase has changed
	EventPathMTU = "path_mtu" // the path MTU has changed
	EventECN     = "ecn"      // probes have shown whether ECN marks reach the peer
	EventRepair  = "repair"   // something was repaired
	EventReload  = "reload"   // the configuration was read again
	EventAddress = "address"  // an outer address or the route has changed
	EventSession = "session"  // a server has granted something, or the session with it has begun or ended
	EventError   = "error"    // an error occurred
	EventLost    = "lost"

	// Of the clients of a broker, whose accounts are the peers.
	EventGranted = "granted" // a client was attached with its prefix
	EventMoved   = "moved"   // it has another outer address, or is at another server
	EventLeft    = "left"    // it is not attached any more
	EventRefused = "refused" // a client was refused
)
