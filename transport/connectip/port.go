package connectip

import (
	"errors"
	"net/netip"

	"sixfour/transport"
)

var _ transport.SessionPort = (*Port)(nil)

// Port is a transport.SessionPort for CONNECT-IP.
type Port struct {
	local netip.AddrPort
}

// Listen opens a port. Its sockets, also later ones, are opened in the network namespace of
// the calling thread.
func Listen(c Config, o transport.Options) (*Port, error) {
	return nil, errors.New("connectip: not implemented")
}

// Local returns the address and port of the port.
func (p *Port) Local() netip.AddrPort { return p.local }

// SetPeers implements transport.SessionPort. Settings of the peers are of type *Settings.
func (p *Port) SetPeers(peers []transport.SessionPeer) error { return nil }

// State returns the state of the connection to a peer. Ok is false if there is none.
func (p *Port) State(id any) (s State, ok bool) { return State{}, false }

// Receive implements transport.Receiver.
func (p *Port) Receive(bufs [][]byte, meta []transport.Meta) (int, error) { return 0, nil }

// Lost returns how many received packets were dropped because Receive was not called soon
// enough.
func (p *Port) Lost() (n uint32, ok bool) { return 0, true }

// Sender implements transport.Port. Send returns at once. The error for a packet wraps
// ENOTCONN if there is no connection to its destination, EMSGSIZE if it does not fit into a
// QUIC datagram (see TooLargeError), and EINVAL if it does not begin with the headers of a
// UDP packet.
func (p *Port) Sender(o transport.Options) (transport.Sender, error) { return nil, nil }

// KernelHeaders returns 0.
func (p *Port) KernelHeaders() int { return 0 }

// Streams returns true.
func (p *Port) Streams() bool { return true }

// Close ends all connections.
func (p *Port) Close() error { return nil }
