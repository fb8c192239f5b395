package api

import (
	"time"
)

// Event is something that has happened to a tunnel.
type Event struct {
	At     time.Time `json:"at"`
	Tunnel string    `json:"tunnel"`
	Peer   string    `json:"peer,omitempty"`
	Kind   string    `json:"kind"`
	Text   string    `json:"text"`
}

// Kinds of events. "lost" says how many others a reader was too slow for.
const (
	EventState   = "state"    // a phase has begun
	EventPathMTU = "path_mtu" // it has changed
	EventRepair  = "repair"   // something was put right
	EventReload  = "reload"   // the configuration was read again
	EventAddress = "address"  // an outer address, or the route, is another
	EventError   = "error"    // something went wrong
	EventLost    = "lost"
)
