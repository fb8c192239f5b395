// Package tic reads and writes the lines of TIC, the tunnel information and control protocol
// of SixXS, by which the user of a tunnel broker learns how a tunnel is configured.
//
// It opens no sockets and reads no clock.
package tic

import (
	"net/netip"
	"time"
)

// Port is the TCP port of the service.
const Port = 3874

// Types of tunnels, as the field Type names them.
const (
	Type6in4      = "6in4"
	TypeHeartbeat = "6in4-heartbeat"
	TypeAYIYA     = "ayiya"
)

// Tunnel is what "tunnel show" says.
type Tunnel struct {
	ID       string // such as T17
	Type     string
	Client   netip.Addr // the client's end of the tunnel ("IPv6 Endpoint")
	Broker   netip.Addr // the broker's end of the tunnel ("IPv6 POP")
	Bits     int        // length of the prefix in which both are
	MTU      int        // in bytes
	Name     string
	POP      string        // name of the point of presence
	Outer    netip.Addr    // the client's outer address; the zero Addr: not a fixed one
	Server   netip.Addr    // the broker's outer address ("IPv4 POP")
	Disabled bool          // by the user or the administrator
	Password string        // of heartbeats and AYIYA
	Interval time.Duration // of heartbeats
}

// POP is what "pop show" says of a point of presence.
type POP struct {
	ID, City, Country string
	IPv4, IPv6        netip.Addr
	Short, Name       string // of the ISP
	Website, ASN, LIR string // of the ISP
}
