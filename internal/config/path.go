package config

import (
	"iter"
	"net/netip"

	"sixfour/encap"
	"sixfour/encap/framing"
	"sixfour/internal/config/problem"
)

// Path is one way to a peer: the outer addresses between which packets are exchanged.
type Path struct {
	Encap  string     // the name of an Encapsulation
	Local  netip.Addr // zero: "auto"
	Remote Host       // zero: a Mechanism finds it

	// For encapsulations with ports; 0: any.
	Port, LocalPort uint16 // the peer's and ours
	Checksum        bool   // sent packets have a UDP checksum
	FlowPort        bool   // sent packets have a source port by their flow, not LocalPort

	// Listen means that the peer comes to us: its address and port are learnt, from packets
	// that prove that it has Secret or a key. Remote is zero then.
	Listen  bool
	Secret  Secret
	Session any // an HTTPS, WireGuard, AYIYA, TSP or JSON; nil: the encapsulation has no connections

	Waits string // what the path lacks before it can be used; "": nothing

	// Weight is the share of the flows, relative to the other paths; 0: 1. Only some policies
	// use it.
	Weight uint16

	At problem.Pos // in the file: of the remote end, or of the table if there is none
}

// NoEncapsulation is the name of the encapsulation in which the outermost layer of the mode
// is what is on the wire: protocol 4, 41 or 47.
const NoEncapsulation = "none"

// The source ports that sent packets may have: that at which we receive, so that NATs and
// packet filters take packets and answers for one flow; or one for each inner flow, so that
// routers can spread them (RFC 8086 section 3.2.1).
const (
	LocalPort = "local"
	FlowPort  = "flow"
)

// Encapsulation is what the packets of the outermost layer travel in, on a path.
type Encapsulation struct {
	Name     string
	Ports    bool   // it has ports
	Port     uint16 // the peer's if the path has none; 0: the path must have one
	Checksum bool   // it has a checksum that can be left out
	// SourcePort says what source port packets have if the path does not: LocalPort or
	// FlowPort; "": it cannot be chosen.
	SourcePort string
	Listen     bool // the peer may come to us
	Secret     bool // it has a secret; a path needs one to listen
	Session    any  // preset settings of its connections; nil: it has none
	Mode       bool // it belongs to the mode of the same name, and cannot be chosen for a path
	// Carries reports whether it can carry the outermost layer of a mode; nil: any.
	Carries func(outermost encap.Kind) bool
	// Frame returns the outermost layer of the mode as it is on a path; nil: unchanged.
	Frame func(outermost encap.Kind, p *Path) encap.Kind
}

// Encapsulations are all encapsulations. A new one needs a row here.
var Encapsulations = []Encapsulation{
	{Name: NoEncapsulation},
	{Name: "fou", Ports: true, Port: 5555, Checksum: true, SourcePort: LocalPort, Listen: true, Secret: true, Carries: goesInFOU, Frame: inFOU},
	{Name: "gue", Ports: true, Port: 6080, Checksum: true, SourcePort: LocalPort, Listen: true, Secret: true, Carries: isBareOrGRE, Frame: inGUE},
	{Name: "gre_udp", Ports: true, Port: 4754, Checksum: true, SourcePort: FlowPort, Carries: isBareOrGRE, Frame: inGREUDP},
	{Name: "https", Ports: true, Port: 443, Listen: true, Secret: true, Session: HTTPS{Over: "auto", URL: HTTPSURL}, Carries: isBare, Frame: func(outermost encap.Kind, p *Path) encap.Kind {
		return inSession(outermost, p, httpsExtra)
	}},
	{Name: "wireguard", Ports: true, Port: 51820, Listen: true, Session: WireGuard{}, Carries: isBare, Frame: func(outermost encap.Kind, p *Path) encap.Kind {
		return inSession(outermost, p, wireGuardExtra)
	}},
	{Name: "ayiya", Mode: true, Ports: true, Port: AYIYAPortNumber, Session: AYIYA{Hash: "sha1"}, Carries: isBare, Frame: func(outermost encap.Kind, p *Path) encap.Kind {
		of, _ := p.Session.(AYIYA) // status does not have it
		return inSession(outermost, p, of.extra())
	}},
	{Name: "tsp", Mode: true, Ports: true, Port: TSPPortNumber, Session: TSP{}, Carries: isBare, Frame: func(outermost encap.Kind, p *Path) encap.Kind {
		return inSession(outermost, p, 0)
	}},
	{Name: "json", Mode: true, Ports: true, Port: JSONPortNumber, Session: JSON{}, Carries: isBare, Frame: func(outermost encap.Kind, p *Path) encap.Kind {
		return inSession(outermost, p, 0)
	}},
}

// inSession returns the outermost layer of a mode in connections of the path, which add extra
// bytes to the header of UDP.
func inSession(outermost encap.Kind, p *Path, extra int) encap.Kind {
	return outermost.With(framing.InSession{Local: p.LocalPort, Remote: p.Port, Version: int(outermost.Framing().(framing.Bare)), Extra: extra, Connections: p.connections()})
}

// isBare reports whether packets follow the delivery header of a layer.
func isBare(outermost encap.Kind) bool {
	_, bare := outermost.Framing().(framing.Bare)
	return bare
}

// Frame returns the outermost layer of a mode in the encapsulation of the path.
func (p *Path) Frame(outermost encap.Kind) encap.Kind {
	for i := range Encapsulations {
		if e := &Encapsulations[i]; e.Name == p.Encap && e.Frame != nil {
			return e.Frame(outermost, p)
		}
	}
	return outermost
}

// AllPaths returns every path of a tunnel with its peer.
func (t *Tunnel) AllPaths() iter.Seq2[*Peer, *Path] {
	return func(yield func(*Peer, *Path) bool) {
		for i := range t.Peers {
			p := &t.Peers[i]
			for j := range p.Paths {
				if !yield(p, &p.Paths[j]) {
					return
				}
			}
		}
	}
}

// SameWay reports whether packets of two paths have the same ends and encapsulations.
func (p *Path) SameWay(o *Path) bool {
	a := *p
	a.Weight = o.Weight
	return a.Equal(o)
}

// Equal reports whether two configurations of a path are equivalent.
func (p *Path) Equal(o *Path) bool {
	a, b := *p, *o
	a.At, b.At = problem.Pos{}, problem.Pos{}
	return a == b
}
