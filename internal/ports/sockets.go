package ports

import (
	"sixfour/encap/header"
	"sixfour/transport"
)

// Sockets opens sockets, in the network namespace of the calling thread. Its methods are
// like transport.ListenRaw and ListenUDP, DialRaw, AdoptRaw and AdoptUDP. Listen may be
// called concurrently.
type Sockets interface {
	Listen(k Key, s transport.Shard, o transport.Options) (transport.Port, error)
	Dial(k Key, o transport.Options) (transport.Sender, error)
	Adopt(fd int, k Key, o transport.Options) (transport.Port, error)
}

// Kernel is the Sockets of package transport: those of the kernel, without connections.
type Kernel struct{}

// Listen implements Sockets.
func (Kernel) Listen(k Key, s transport.Shard, o transport.Options) (transport.Port, error) {
	if k.Protocol == header.UDP {
		return port(transport.ListenUDP(k.Local, s, o))
	}
	return port(transport.ListenRaw(k.Local.Addr(), int(k.Protocol), s, o))
}

// Dial implements Sockets.
func (Kernel) Dial(k Key, o transport.Options) (transport.Sender, error) {
	tx, err := transport.DialRaw(k.Local.Addr(), int(k.Protocol), o)
	if err != nil {
		return nil, err
	}
	return tx, nil
}

// Adopt implements Sockets.
func (Kernel) Adopt(fd int, k Key, o transport.Options) (transport.Port, error) {
	if k.Protocol == header.UDP {
		return port(transport.AdoptUDP(fd, k.Local, o))
	}
	return port(transport.AdoptRaw(fd, k.Local.Addr(), int(k.Protocol), o.Segments))
}

// port avoids an interface with a nil pointer in it.
func port[P transport.Port](p P, err error) (transport.Port, error) {
	if err != nil {
		return nil, err
	}
	return p, nil
}
