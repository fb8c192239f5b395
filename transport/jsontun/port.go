package jsontun

import (
	"errors"

	"sixfour/transport"
)

// Port is a transport.SessionPort for connections to servers. Settings of its peers are of
// type *Settings.
type Port struct{ transport.SessionPort }

var errLater = errors.New("not implemented yet")

// Listen opens a port. Its sockets, also later ones, are opened in the network namespace of
// the calling thread.
func Listen(c Config, o transport.Options) (*Port, error) { return nil, errLater }
