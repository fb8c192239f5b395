package access

import (
	"encoding/binary"
	"net/netip"
	"sync/atomic"

	"sixfour/encap/drop"
	"sixfour/encap/header"
	"sixfour/encap/resolve"
	"sixfour/transport/queue"
)

// Clients are the clients that are attached, and the port at which their packets arrive.
// Methods of Clients may be called concurrently.
type Clients struct {
	Table *resolve.ClientTable
	port  atomic.Pointer[Port] // nil: none is open
}

// NewClients returns Clients of which none is attached.
func NewClients() *Clients { return &Clients{Table: resolve.NewClientTable()} }

// Attached is a client that is attached. Its methods may be called concurrently.
type Attached struct {
	clients *Clients
	entry   *resolve.TableClient
	link    Link
	outer   header.Outer // of its packets
	Sent    Count        // to the client
	Got     Count        // from the client, refused packets included
}

// Count counts packets.
type Count struct{ Packets, Bytes atomic.Uint64 }

func (c *Count) add(n int) {
	c.Packets.Add(1)
	c.Bytes.Add(uint64(n))
}

// Attach attaches a client to which packets for a prefix, and for its end of the tunnel, which
// may be invalid, go by a link. It is an error if another client has one of them.
func (c *Clients) Attach(prefix netip.Prefix, endpoint netip.Addr, link Link) (*Attached, error) {
	a := &Attached{clients: c, link: link}
	var err error
	a.entry, err = c.Table.Add(prefix, endpoint, a)
	if err != nil {
		return nil, err
	}
	var from [4]byte
	binary.BigEndian.PutUint32(from[:], a.entry.Handle)
	a.outer = header.Outer{From: netip.AddrPortFrom(netip.AddrFrom4(from), LocalPort), At: netip.AddrPortFrom(resolve.ClientLocal, LocalPort), TTL: 64}
	return a, nil
}

// Detach ends it: no packet goes to the client any more, and none of its packets is accepted.
func (a *Attached) Detach() { a.clients.Table.Remove(a.entry) }

// Receive takes an inner packet of the client. It returns why the packet is refused; the
// tunnel counts that, too. The buffer is the caller's again.
func (a *Attached) Receive(packet []byte) drop.Reason {
	switch {
	case len(packet) < header.IPv6Len:
		return drop.Truncated
	case header.Version(packet) != 6:
		return drop.WrongFamily
	}
	r := a.entry.Sends(packet)
	if r == drop.Martian && packet[24] == 0xff {
		return r // for the client's own link, such as neighbour discovery: not worth a place
	}
	a.Got.add(len(packet))
	p := a.clients.port.Load()
	if p == nil {
		return drop.InterfaceDown
	}
	pkt := queue.New(len(packet))
	copy(pkt.B, packet)
	pkt.Outer = a.outer
	p.In.Put(pkt)
	return r
}

// find returns the client with a handle; nil: it has left.
func (c *Clients) find(handle uint32) *Attached {
	if e := c.Table.At(handle); e != nil {
		return e.Owner.(*Attached)
	}
	return nil
}

// send sends an inner packet to the client.
func (a *Attached) send(packet []byte) error {
	if err := a.link.Send(packet); err != nil {
		return err
	}
	a.Sent.add(len(packet))
	return nil
}
