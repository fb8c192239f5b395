package config

import (
	"net/netip"

	"sixfour/encap"
	"sixfour/internal/config/problem"
)

// Broker is the [broker] table: tunnels with prefixes of a pool, given to clients of several
// protocols.
type Broker struct {
	Interface string // "": there is no broker
	MTU       encap.TunnelMTU
	Store     BrokerStore
	Pool      []netip.Prefix // masked
	// PrefixLength is the length of the prefix of a client that asks for no other one, which
	// may be as short as MaxPrefixLength.
	PrefixLength, MaxPrefixLength int
	Endpoints                     netip.Prefix // masked; invalid: clients have no addresses outside their prefixes
	NDPProxy                      string       // an interface; "": none
	Open                          bool         // unknown clients get leases, too
	Listen                        []BrokerListener
	At                            problem.Pos // of the table
	File                          string
}

// BrokerStore is where accounts and leases are.
type BrokerStore struct {
	File string   // a database on this host; "": URLs
	URLs []string // of an etcd cluster
	// Files for TLS, and the prefix of all keys in the cluster.
	CA, Cert, Key, Prefix string
}

// BrokerListener is a [[broker.listen]] table. It can be compared with ==.
type BrokerListener struct {
	Protocol         string
	Address          netip.Addr
	Port             uint16
	Certificate, Key string // files for TLS; "": none
	Required         bool   // clients without TLS are refused
	At               problem.Pos
}

// BrokerMode is the name of the mode of the tunnel for all clients. The configuration cannot
// choose it for others.
const BrokerMode = "broker"

// BrokerPort is the port of all clients of a broker. It can be compared with ==.
type BrokerPort struct {
	Clients any // an *access.Clients; nil: the broker does not run in this process
}

// Networks returns the networks whose packets go to clients: the pool, and the endpoints.
func (b *Broker) Networks() []netip.Prefix {
	all := append([]netip.Prefix(nil), b.Pool...)
	if b.Endpoints.IsValid() {
		all = append(all, b.Endpoints)
	}
	return all
}
