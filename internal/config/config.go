// Package config turns the TOML of a configuration file into a typed, validated
// value that nobody changes afterwards, or into the list of everything that is
// wrong with it.
package config

import (
	"fmt"
	"net/netip"

	"sixfour/encap"
)

// Config is a whole configuration file.
type Config struct {
	Log     Log
	Control Control
	Tunnels []Tunnel // in the file's order, at least one
}

// Log is the [log] table.
type Log struct {
	Level  string // debug, info, warn or error
	Format string // auto, console, json or journal
}

// Control is the [control] table.
type Control struct {
	Socket   string // an absolute path
	Explicit bool   // the file names the socket; it is not the default
}

// Tunnel is one [[tunnel]] table.
type Tunnel struct {
	Name            string
	Mode            encap.Mode
	Local           netip.Addr // zero: "auto"
	Remote          Host
	Local6, Remote6 netip.Addr // zero, unless the mode has an IPv6 layer
	Address         []netip.Prefix
	Routes          []netip.Prefix  // masked
	MTU             encap.TunnelMTU // 0: from the path
	Options         encap.Options
	NoMSSClamp      bool // mss_clamp = false
	Strict          bool // martians = "strict"
	FwMark          uint32
	Queues          int  // of the interface; 0: as many as there are processors, within reason
	NoOffload       bool // offload = "off"
	IO              IO
	Netns           string // name or absolute path; "": the daemon's own

	file   string
	header pos            // of the [[tunnel]] that begins the table
	values map[string]pos // of the keys that the table has
}

// IO is how outer packets leave.
type IO string

// The ways: through a raw socket, through AF_XDP (and through the socket what
// that does not take, which is worth a warning), or through whichever works.
const (
	IOSocket IO = "socket"
	IOXDP    IO = "xdp"
	IOAuto   IO = "auto"
)

// Host is a remote endpoint: either its address or its DNS name is set.
type Host struct {
	Addr netip.Addr
	Name string
}

// Defaults of what a file need not say.
const (
	defaultLevel  = "info"
	defaultFormat = "auto"
	defaultSocket = "/run/sixfour/control.sock"
)

// Problem makes a problem at the place of a key's value, or of the tunnel's
// header if the table does not have the key. It is for checks that need the
// system, such as whether the name is taken.
func (t *Tunnel) Problem(key, format string, args ...any) Problem {
	at, ok := t.values[key]
	if !ok {
		at = t.header
	}
	return Problem{t.file, at.line, at.column, fmt.Sprintf(format, args...)}
}
