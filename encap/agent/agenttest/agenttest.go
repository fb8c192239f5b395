// Package agenttest has an IPv4 network with NATs in simulated time, for tests of agents.
package agenttest

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"
	"time"

	"sixfour/encap/agent"
	"sixfour/encap/drop"
	"sixfour/encap/header"
	"sixfour/encap/resolve"
)

// World is an IPv4 network in simulated time: nodes, of which some are behind a NAT.
type World struct {
	T      *testing.T
	Now    time.Time
	Hosts  []*Host
	Sent   int                       // datagrams
	IsData func(payload []byte) bool // as the framing has it
	Lose   func(from, to header.Mapping, payload []byte) bool
}

// NAT is how a NAT treats packets from inside and from outside.
type NAT int

const (
	None           NAT = iota
	Restricted         // one mapping; packets come in from addresses to which one has gone out
	PortRestricted     // one mapping; from addresses and ports
	Symmetric          // a mapping for each destination; from addresses and ports
)

// Host is a node, and what its NAT remembers.
type Host struct {
	World *World
	Name  string
	Agent resolve.Agent
	At    []header.Mapping // inside
	Out   uint32           // address outside
	Kind  NAT
	// Maps has the ports outside by destination; the zero mapping stands for all, and one
	// that is only a port for all from a second port of the host.
	Maps  map[header.Mapping]uint16
	Life  time.Duration        // how long a port outside is kept that is not used; 0: for ever
	Used  map[uint16]time.Time // when ports outside were used
	Open  map[[2]uint64]bool   // outside port and remote end
	Got   []header.IPv6        // packets for the interface
	Drops map[drop.Reason]int
	Inner func(h *Host, ip header.IPv6) // what the host does with a packet
}

// IP4 returns an IPv4 address as a number.
func IP4(s string) uint32 { return agent.Word(netip.MustParseAddr(s)) }

// IP6 returns an IPv6 address.
func IP6(s string) header.Word6 {
	w, _ := header.Word6Of(netip.MustParseAddr(s))
	return w
}

// NewWorld returns a network without nodes.
func NewWorld(t *testing.T, isData func([]byte) bool) *World {
	return &World{T: t, IsData: isData, Now: time.Unix(1e9, 0)}
}

// Add adds a node with addresses behind a NAT.
func (w *World) Add(name string, m resolve.Mechanism, port uint16, kind NAT, outside string, inside ...string) *Host {
	w.T.Helper()
	s := resolve.Site{Local: netip.MustParseAddr(inside[0])}
	if kind != None {
		s.Links = []netip.Prefix{netip.PrefixFrom(s.Local, 24)}
	}
	for range m.Hosts() {
		s.Hosts = append(s.Hosts, nil)
	}
	r, err := m.Resolver(s)
	if err != nil {
		w.T.Fatal(err)
	}
	h := &Host{World: w, Name: name, Agent: r.(resolve.Agent), Kind: kind, Out: IP4(outside), Maps: map[header.Mapping]uint16{}, Used: map[uint16]time.Time{}, Open: map[[2]uint64]bool{}, Drops: map[drop.Reason]int{}}
	for _, a := range inside {
		h.At = append(h.At, header.Mapping{Addr: IP4(a), Port: port})
	}
	w.Hosts = append(w.Hosts, h)
	return h
}

// HostAt returns the host with an address.
func HostAt(s string) resolve.Host { return resolve.Host{Addr: netip.MustParseAddr(s)} }

// Run lets time pass.
func (w *World) Run(d time.Duration) {
	for end := w.Now.Add(d); ; {
		next := end
		for _, h := range w.Hosts {
			if again := h.Step(); !again.IsZero() && again.Before(next) {
				next = again
			}
		}
		if !next.After(w.Now) {
			next = w.Now.Add(10 * time.Millisecond)
		}
		if next.After(end) {
			next = end
		}
		if w.Now = next; !w.Now.Before(end) {
			return
		}
	}
}

// Step sends what a host has to send.
func (h *Host) Step() time.Time {
	for range 50 {
		send, lost, again := h.Agent.Next(h.World.Now)
		h.Drops[drop.Unresolved] += lost
		if len(send) == 0 {
			return again
		}
		for _, m := range send {
			from := h.At[0]
			if a := m.From.Addr(); a.IsValid() {
				from.Addr = agent.Word(a)
			}
			if p := m.From.Port(); p != 0 {
				from.Port = p
			}
			h.emit(from, agent.MappingOf(m.To), m.Bytes, m.TTL)
		}
	}
	h.World.T.Fatalf("%s does not stop sending", h.Name)
	return time.Time{}
}

// Emit sends a datagram through the host's NAT.
func (h *Host) Emit(from, to header.Mapping, payload []byte) { h.emit(from, to, payload, 0) }

func (h *Host) emit(from, to header.Mapping, payload []byte, ttl byte) {
	h.World.Sent++
	if h.Kind != None && to.Addr>>24 != 10 {
		key := header.Mapping{}
		if h.Kind == Symmetric {
			key = to
		} else if from.Port != h.At[0].Port {
			key.Port = from.Port
		}
		if h.expired(h.Maps[key]) {
			delete(h.Maps, key)
		}
		if h.Maps[key] == 0 {
			h.Maps[key] = from.Port + uint16(1000*len(h.Maps))
		}
		from = header.Mapping{Addr: h.Out, Port: h.Maps[key]}
		h.Used[from.Port] = h.World.Now
		filter := to
		if h.Kind == Restricted {
			filter.Port = 0
		}
		h.Open[[2]uint64{uint64(from.Port), pack(filter)}] = true
	}
	if ttl != 0 {
		return // it passes the NAT, and expires before its destination
	}
	if h.World.Lose != nil && h.World.Lose(from, to, payload) {
		return
	}
	if to.Addr>>28 == 0xe { // multicast to the link behind the NAT
		for _, o := range h.World.Hosts {
			if o != h && o.Kind != None && o.At[0].Addr>>8 == h.At[0].Addr>>8 {
				o.Receive(h.At[0], to, payload)
			}
		}
		return
	}
	for _, o := range h.World.Hosts {
		if o.Accepts(from, &to) {
			o.Receive(from, to, payload)
			return
		}
	}
}

// Has reports whether a mapping is one of the host's inside addresses.
func (h *Host) Has(m header.Mapping) bool { return slices.Contains(h.At, m) }

// Accepts reports whether a datagram reaches the host, and translates its destination.
func (h *Host) Accepts(from header.Mapping, to *header.Mapping) bool {
	for _, at := range h.At {
		if at == *to {
			return h.Kind == None || from.Addr>>24 == 10
		}
	}
	if h.Kind == None || to.Addr != h.Out {
		return false
	}
	if h.Kind == Restricted {
		from.Port = 0
	}
	if !h.Open[[2]uint64{uint64(to.Port), pack(from)}] || h.expired(to.Port) {
		return false
	}
	h.Used[to.Port] = h.World.Now
	inside := h.At[0]
	for key, port := range h.Maps {
		if port == to.Port && key.Addr == 0 && key.Port != 0 {
			inside.Port = key.Port
		}
	}
	*to = inside
	return true
}

// expired reports whether the NAT has forgotten a port outside.
func (h *Host) expired(port uint16) bool {
	return h.Life != 0 && h.World.Now.Sub(h.Used[port]) > h.Life
}

// Receive does what the datapath does with a datagram.
func (h *Host) Receive(from, to header.Mapping, payload []byte) {
	b := append([]byte(nil), payload...)
	o := header.Outer{From: from.AddrPort(), At: to.AddrPort()}
	if h.World.IsData(b) {
		if why := h.Agent.From(agent.Endpoint(from), agent.Endpoint(to), b); why != drop.None {
			h.Drops[why]++
			return
		}
		if !h.Agent.Wants(b) {
			h.Deliver(b)
			return
		}
	} else if !h.Agent.Wants(b) {
		h.Drops[drop.UnknownProtocol]++
		return
	}
	done := h.Agent.Receive(o, b, h.World.Now)
	if why := h.Agent.(resolve.Refuser).Refused(); why != drop.None {
		h.Drops[why]++
	} else if !done {
		h.Deliver(b)
	}
	h.Step()
}

// Deliver passes a packet to the interface.
func (h *Host) Deliver(ip header.IPv6) {
	h.Got = append(h.Got, ip)
	if h.Inner != nil {
		h.Inner(h, ip)
	}
}

// Say sends an inner packet from the host's interface.
func (h *Host) Say(ip header.IPv6) drop.Reason {
	to, why := h.Agent.To(ip)
	if why == drop.Unresolved && h.Agent.Hold(ip, h.World.Now) {
		h.Step()
		return drop.None
	}
	if why == drop.None {
		h.Emit(h.At[0], agent.MappingOf(to), ip)
	}
	return why
}

// UDP returns a packet with a payload.
func UDP(src, dst header.Word6, text string) header.IPv6 {
	b := append([]byte{0x60, 0, 0, 0, 0, byte(len(text)), 253, 64}, make([]byte, 32)...)
	src.Put(b[8:])
	dst.Put(b[24:])
	return append(b, text...)
}

func pack(m header.Mapping) uint64 { return uint64(m.Addr)<<16 | uint64(m.Port) }

// Heard reports whether the host has got a packet with a text.
func (h *Host) Heard(text string) bool {
	for _, ip := range h.Got {
		if string(ip.Payload()) == text {
			return true
		}
	}
	return false
}

// Arrive passes a whole outer packet to the host.
func (h *Host) Arrive(pkt []byte) {
	ip, udp := header.IPv4(pkt), pkt[header.IPv4Len:]
	from := header.Mapping{Addr: binary.BigEndian.Uint32(ip.Source()), Port: binary.BigEndian.Uint16(udp)}
	to := header.Mapping{Addr: binary.BigEndian.Uint32(ip.Dest()), Port: binary.BigEndian.Uint16(udp[2:])}
	h.Receive(from, to, udp[8:])
}
