package config

import (
	"cmp"
	"net/netip"
	"reflect"
	"slices"

	"sixfour/encap"
	"sixfour/internal/config/problem"
)

// Broker is the [broker] table: tunnels with prefixes of a pool, given to clients of several
// protocols.
type Broker struct {
	Interface string // "": there is no broker
	Name      string // of this server, among those with the same store; "": the host's
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
	Source                        Source // of the table; Keys are those of its values
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
	SHA256           bool   // clients may use this hash, too: see BrokerProtocol.SHA256
	At               problem.Pos
}

// BrokerProtocol is a protocol of a broker's clients.
type BrokerProtocol struct {
	Name     string
	Port     uint16 // the protocol's own
	TLS      bool   // it can be encrypted
	Tells    bool   // its server tells passwords: Required is the default
	SHA256   bool   // some clients use this hash in place of the protocol's own
	Endpoint bool   // its clients have an address in Broker.Endpoints
	UDP, TCP bool
	// Address says what is wrong with an address to listen at; nil: any is right.
	Address func(netip.Addr) string
}

// BrokerProtocols are all protocols of clients.
var BrokerProtocols = []BrokerProtocol{
	{Name: "json", Port: 14629, TLS: true, TCP: true},
	{Name: "ayiya", Port: 5072, SHA256: true, Endpoint: true, UDP: true},
	{Name: "heartbeat", Port: 3740, SHA256: true, Endpoint: true, UDP: true, Address: func(a netip.Addr) string {
		switch {
		case !a.Is4():
			return "the packets of these clients are protocol 41 of IPv4: write an IPv4 address"
		case a.IsUnspecified():
			return "the packets of these clients need the address from which answers come: write this host's"
		}
		return ""
	}},
	{Name: "tic", Port: 3874, SHA256: true, TLS: true, Tells: true, Endpoint: true, TCP: true},
	{Name: "tsp", Port: 3653, Endpoint: true, UDP: true, TCP: true, Address: func(a netip.Addr) string {
		if !a.Is4() {
			return "the protocol's tunnels are over IPv4: write an IPv4 address"
		}
		return ""
	}},
}

// BrokerProtocolByName returns a protocol by its name.
func BrokerProtocolByName(name string) (BrokerProtocol, bool) {
	for _, p := range BrokerProtocols {
		if p.Name == name {
			return p, true
		}
	}
	return BrokerProtocol{}, false
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

// Equal reports whether two configurations of a broker are equivalent.
func (b *Broker) Equal(o *Broker) bool { return reflect.DeepEqual(b.plain(), o.plain()) }

// SameBase reports whether what cannot change while the broker runs is the same: the interface,
// the ends of tunnels, the store, the name of the server, and the proxy, whose socket can only be
// opened at the start.
func (b *Broker) SameBase(o *Broker) bool {
	return b.Interface == o.Interface && b.Name == o.Name && b.Endpoints == o.Endpoints && b.NDPProxy == o.NDPProxy && reflect.DeepEqual(b.Store, o.Store)
}

// plain returns the configuration without positions in a file.
func (b *Broker) plain() Broker {
	c := *b
	c.Source, c.Listen = Source{}, slices.Clone(b.Listen)
	for i := range c.Listen {
		c.Listen[i].At = problem.Pos{}
	}
	return c
}

// Problem returns a problem at the position of a key's value, or of the table's header if it
// does not have the key.
func (b *Broker) Problem(key, format string, args ...any) problem.Problem {
	t := Tunnel{Source: b.Source}
	return t.Problem(key, format, args...)
}

// ListenerProblem is Problem at the position of a listener.
func (b *Broker) ListenerProblem(l *BrokerListener, format string, args ...any) problem.Problem {
	return (&Tunnel{Source: Source{File: b.Source.File, Header: cmp.Or(l.At, b.Source.Header)}}).Problem("", format, args...)
}

// Files returns the files of the broker's configuration, except for the store's database.
func (b *Broker) Files() (all []string) {
	files := []string{b.Store.CA, b.Store.Cert, b.Store.Key}
	for _, l := range b.Listen {
		files = append(files, l.Certificate, l.Key)
	}
	for _, f := range files {
		if f != "" {
			all = append(all, f)
		}
	}
	return all
}
