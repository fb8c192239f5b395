package transport

import "net/netip"

// SessionPort is a Port whose packets travel inside connections that authenticate the peer
// and that have a protocol of their own, such as CONNECT-IP or WireGuard. A received packet
// begins with the headers of a UDP packet, as that of a UDPPort with Options.Headers does:
// its addresses and ports are those between which the connection runs, and the checksum is
// 0. What follows them is what the peer has sent through the connection. A Sender takes
// packets with such headers: the destination address and port select the connection, and
// the headers are removed. Without a connection Send returns an error that wraps ENOTCONN.
//
// KernelHeaders is 0. A port has one shard.
type SessionPort interface {
	Port
	// SetPeers replaces the peers that may connect or be connected to. Connections of peers
	// that are in both lists with equal values stay. If one stays although the peer has
	// another ID, it is reported with that. It must not be called concurrently.
	SetPeers([]SessionPeer) error
}

// SessionPeer is one peer of a SessionPort. It can be compared with ==.
type SessionPeer struct {
	// ID names the peer in calls of Connected.
	ID any
	// Remote is where to connect; the zero value: the peer connects to us.
	Remote netip.AddrPort
	// Secrets and the like: a pointer to a value of the package that implements the port.
	// The value must not change.
	Settings any
}

// Connected is called when a connection to a peer is usable, with the peer's present address
// and port, also when they change; and when it has ended, with the zero value and the reason.
// It may be called by any goroutine. It must not block, nor call the port.
type Connected func(id any, at netip.AddrPort, why error)
