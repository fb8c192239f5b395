package ayiya

import (
	"errors"
	"net/netip"
	"time"

	"sixfour/encap/ayiya"
	"sixfour/transport"
)

// Config is the configuration of a client's port.
type Config struct {
	// Local is the address and port of the socket. The address may be unspecified: then
	// packets leave from the address of the route to the server. If the port is 0, the
	// kernel chooses one.
	Local netip.AddrPort

	Connected transport.Connected // may be nil

	// Said is called with what a server says to people: its message of the day, and that it
	// shut the tunnel down. It must not block, nor call the port. It may be nil.
	Said func(id any, text string)
}

// Settings are the settings of a server, as the client has them: the type of
// SessionPeer.Settings is *Settings. They must not change.
type Settings struct {
	Client netip.Addr // our IPv6 address in the tunnel, which identifies us to the server
	Server netip.Addr // that of the server; the zero value: any identity, since the password proves it

	Secret string
	Hash   ayiya.Hash // 0: SHA1

	// Heartbeat is for how long nothing is sent before a heartbeat is, so that a NAT on the
	// way does not forget us; 0: DefaultHeartbeat. At most MaxHeartbeat.
	Heartbeat time.Duration

	// Window is by how much the clocks may differ; 0: ayiya.DefaultWindow.
	Window time.Duration
}

// Intervals of heartbeats. A server forgets a client that is silent for 120 s.
const (
	DefaultHeartbeat = 25 * time.Second
	MaxHeartbeat     = 60 * time.Second
)

// Port is a transport.SessionPort of a client.
type Port struct{ *transport.UDPPort }

var _ transport.SessionPort = (*Port)(nil)

// Listen opens a port without servers, in the network namespace of the calling thread. Of the
// options, Mark and Device are used.
func Listen(c Config, o transport.Options) (*Port, error) {
	return nil, errors.ErrUnsupported
}

// SetPeers implements transport.SessionPort.
func (p *Port) SetPeers([]transport.SessionPeer) error { return errors.ErrUnsupported }
