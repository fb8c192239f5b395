// Package sessions opens the ports of encapsulations whose packets travel inside connections,
// and makes the settings of their peers from the configuration.
package sessions

import (
	"errors"
	"fmt"
	"net/netip"

	"go.uber.org/zap"

	"sixfour/internal/config"
	"sixfour/internal/ports"
	"sixfour/transport"
	"sixfour/transport/access"
	"sixfour/transport/ayiya"
	"sixfour/transport/jsontun"
	"sixfour/transport/tsp"
	"sixfour/transport/wireguard"
)

// Sockets opens ports with connections, and leaves all others to another Sockets.
type Sockets struct {
	ports.Sockets
	Connected transport.Connected
	Log       *zap.Logger
}

// Listen implements ports.Sockets.
func (s Sockets) Listen(k ports.Key, shard transport.Shard, o transport.Options) (transport.Port, error) {
	switch of := k.Session.(type) {
	case nil:
		return s.Sockets.Listen(k, shard, o)
	case config.HTTPSPort:
		return s.listenHTTPS(of, k, o)
	case config.AYIYAPort:
		return port(ayiya.Listen(ayiya.Config{Local: k.Local, Connected: s.reported, Said: said}, o))
	case config.TSPPort:
		return port(tsp.Listen(tsp.Config{Local: k.Local, Connected: s.reported}, o))
	case config.JSONPort:
		return port(jsontun.Listen(jsontun.Config{Local: k.Local, Connected: s.reported}, o))
	case config.BrokerPort:
		clients, ok := of.Clients.(*access.Clients)
		if !ok {
			return nil, errors.New("there is no broker in this process")
		}
		return clients.Listen()
	case config.WireGuardPort:
		private, err := wireguard.ParseSecret(of.Private.Value())
		if err != nil {
			return nil, fmt.Errorf("private_key_file %s: %w", of.Private, err)
		}
		return port(wireguard.Listen(wireguard.Config{PrivateKey: private, Local: k.Local, Connected: s.Connected}, o))
	}
	return nil, fmt.Errorf("no connections are of type %T", k.Session)
}

// port avoids an interface with a nil pointer in it.
func port[P transport.Port](p P, err error) (transport.Port, error) {
	if err != nil {
		return nil, err
	}
	return p, nil
}

// settings avoids an interface with a nil pointer in it.
func settings[S any](s *S, err error) (any, error) {
	if err != nil {
		return nil, err
	}
	return s, nil
}

// Settings returns the settings of a peer for the port of a path, as SessionPeer has them.
func Settings(t *config.Tunnel, peer *config.Peer, path *config.Path) (any, error) {
	switch of := path.Session.(type) {
	case config.HTTPS:
		return httpsSettings(t, path, of)
	case config.WireGuard:
		return wireGuardSettings(t, peer, path, of)
	case config.AYIYA:
		return settings(ayiyaSettings(t, of))
	case config.TSP:
		return settings(tspSettings(t, of))
	case config.JSON:
		return settings(jsonSettings(t, of))
	}
	return nil, fmt.Errorf("encap %s has no connections", path.Encap)
}

func wireGuardSettings(t *config.Tunnel, peer *config.Peer, path *config.Path, of config.WireGuard) (*wireguard.Settings, error) {
	s := &wireguard.Settings{PublicKey: wireguard.PublicKey(of.Public), Allowed: carried(t, peer)}
	if of.Preshared.File != "" {
		var err error
		if s.PresharedKey, err = wireguard.ParseSecret(of.Preshared.Value()); err != nil {
			return nil, fmt.Errorf("preshared_key_file %s: %w", of.Preshared, err)
		}
	}
	if !path.Listen { // the end that connects keeps the mapping of a NAT
		s.Keepalive = t.Keepalive
	}
	return s, nil
}

// carried returns the addresses of packets that travel in the connection with a peer; nil: any,
// because the peer is the only one. In a hub they are what is behind the peer, and its ends of
// the layers inside the outermost one.
func carried(t *config.Tunnel, peer *config.Peer) (all []netip.Prefix) {
	if !t.Hub {
		return nil
	}
	for _, a := range peer.InnerRemotes {
		all = append(all, netip.PrefixFrom(a, a.BitLen()))
	}
	return append(all, peer.Allowed...)
}
