package mechanism

import (
	"fmt"
	"hash/maphash"

	"sixfour/encap"
	"sixfour/encap/framing"
	"sixfour/encap/resolve"
	"sixfour/internal/config"
)

// BrokerTunnel returns the tunnel for all clients of a broker: an automatic one, whose
// mechanism has the table of the clients, and whose port takes and returns their packets. Both
// may be nil in a configuration that is only checked. The ends of its outermost layer are no
// addresses of a network: that of the broker is resolve.ClientLocal, which each host has, and
// those of clients are the handles in the table.
func BrokerTunnel(b *config.Broker, table *resolve.ClientTable, clients any) config.Tunnel {
	kind := encap.SixInFour.With(framing.InSession{Local: 1, Version: 6, Connections: config.BrokerPort{Clients: clients}})
	t := config.Tunnel{
		Name:    b.Interface,
		Mode:    encap.Mode{Name: config.BrokerMode, Layers: []encap.Kind{encap.SixInFour}, Automatic: true},
		Layers:  []config.Layer{{Framing: kind.Framing(), Mechanism: resolve.Clients{Table: table}}},
		Peers:   []config.Peer{{Paths: []config.Path{{Encap: config.NoEncapsulation, Local: resolve.ClientLocal, At: b.Source.Header}}}},
		Options: encap.DefaultOptions,
		IO:      config.IOSocket,
		Interface: config.Interface{
			MTU:    b.MTU,
			Routes: b.Networks(),
		},
		Liveness: config.Liveness{DeadAfter: 1},
		Source:   config.Source{File: b.Source.File, Header: b.Source.Header, Keys: b.Source.Keys, Sums: sumsOf(b)},
	}
	t.Options.StaticMTU = true
	return t
}

var sumsSeed = maphash.MakeSeed()

// sumsOf returns hashes of what the tunnel of a broker depends on, by key.
func sumsOf(b *config.Broker) map[string]uint64 {
	sum := func(v any) uint64 { return maphash.String(sumsSeed, fmt.Sprint(v)) }
	return map[string]uint64{"interface": sum(b.Interface), "mtu": sum(b.MTU), "pool": sum(b.Pool), "endpoints": sum(b.Endpoints)}
}
