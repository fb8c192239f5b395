package resolve

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/gaissmai/bart"

	"sixfour/encap/drop"
	"sixfour/encap/header"
)

// ClientTable has the clients of a broker by their inner prefixes and by their handles. Its
// methods may be called concurrently. A look-up takes no lock and allocates nothing; a change
// takes the same time however many clients there are.
type ClientTable struct {
	behind atomic.Pointer[bart.Table[uint32]] // handles by inner destination
	blocks atomic.Pointer[[]*clientBlock]     // clients by handle
	mu     sync.Mutex                         // guards changes of both, and what follows
	used   int                                // numbers that were given out at least once
	free   []uint32                           // handles of clients that have left, in this order
}

// clientBlock is the part of a table for consecutive handles, so that the table can grow
// while it is read.
type clientBlock [256]atomic.Pointer[TableClient]

// TableClient is a client in a table. It is immutable.
type TableClient struct {
	Handle   uint32
	Prefix   netip.Prefix
	Endpoint netip.Addr // its end of the tunnel; invalid: it has none
	Owner    any        // what the caller of Add has given

	prefix   header.Prefix6
	endpoint header.Word6
}

const (
	firstHandle = 240 << 24
	maxClients  = 1 << 24
	// restHandles is how many handles must be free before one is used again, so that a packet
	// that is being sent to a client that has just left does not reach another one.
	restHandles = 4096
)

// NewClientTable returns an empty table.
func NewClientTable() *ClientTable {
	t := new(ClientTable)
	t.behind.Store(new(bart.Table[uint32]))
	t.blocks.Store(new([]*clientBlock))
	return t
}

// errClientsFull means that there is no handle for another client.
var errClientsFull = errors.New("there are as many clients as the table can have")

// Add adds a client with an inner prefix, and with the address of its end of the tunnel,
// which may be invalid. It is an error if another client has one of them.
func (t *ClientTable) Add(prefix netip.Prefix, endpoint netip.Addr, owner any) (*TableClient, error) {
	c := &TableClient{Prefix: prefix.Masked(), Endpoint: endpoint, Owner: owner}
	if !prefix.IsValid() || !prefix.Addr().Is6() || prefix.Addr().Is4In6() {
		return nil, fmt.Errorf("%v is not an IPv6 prefix", prefix)
	}
	c.prefix = header.NewPrefix6(c.Prefix)
	c.endpoint, _ = header.Word6Of(endpoint)
	t.mu.Lock()
	defer t.mu.Unlock()
	behind := t.behind.Load()
	for _, p := range c.prefixes() {
		if _, taken := behind.Get(p); taken {
			return nil, fmt.Errorf("%v is another client's", p)
		}
	}
	switch {
	case len(t.free) > restHandles || t.used == maxClients && len(t.free) > 0:
		c.Handle, t.free = t.free[0], t.free[1:]
	case t.used == maxClients:
		return nil, errClientsFull
	default:
		c.Handle = firstHandle + uint32(t.used)
		t.grow()
	}
	t.slot(c.Handle).Store(c)
	for _, p := range c.prefixes() {
		behind = behind.InsertPersist(p, c.Handle)
	}
	t.behind.Store(behind)
	return c, nil
}

// Remove removes a client, if it is still there.
func (t *ClientTable) Remove(c *TableClient) {
	t.mu.Lock()
	defer t.mu.Unlock()
	slot := t.slot(c.Handle)
	if slot.Load() != c {
		return
	}
	behind := t.behind.Load()
	for _, p := range c.prefixes() {
		behind = behind.DeletePersist(p)
	}
	t.behind.Store(behind)
	slot.Store(nil)
	t.free = append(t.free, c.Handle)
}

// prefixes returns the inner destinations that lead to the client.
func (c *TableClient) prefixes() []netip.Prefix {
	all := []netip.Prefix{c.Prefix}
	if c.Endpoint.IsValid() && !c.Prefix.Contains(c.Endpoint) {
		all = append(all, netip.PrefixFrom(c.Endpoint, 128))
	}
	return all
}

// slot returns the place of a handle; nil: the table has none.
func (t *ClientTable) slot(handle uint32) *atomic.Pointer[TableClient] {
	blocks, n := *t.blocks.Load(), handle-firstHandle // wraps around for what is no handle
	at := n / uint32(len(clientBlock{}))
	if at >= uint32(len(blocks)) {
		return nil
	}
	return &blocks[at][n%uint32(len(clientBlock{}))]
}

// grow makes a place for one handle more than there were. The caller holds mu.
func (t *ClientTable) grow() {
	if t.used%len(clientBlock{}) == 0 {
		// The memory before the new element is shared with readers of the old slice.
		blocks := append(*t.blocks.Load(), new(clientBlock))
		t.blocks.Store(&blocks)
	}
	t.used++
}

// At returns the client with a handle; nil: there is none.
func (t *ClientTable) At(handle uint32) *TableClient {
	if slot := t.slot(handle); slot != nil {
		return slot.Load()
	}
	return nil
}

// To returns the client to which packets for an inner address go; nil: there is none.
func (t *ClientTable) To(inner netip.Addr) *TableClient {
	if n, ok := t.behind.Load().Lookup(inner); ok {
		return t.At(n)
	}
	return nil
}

// has reports whether an inner address is the client's.
func (c *TableClient) has(a header.Word6) bool {
	return c.prefix.Contains(a) || a == c.endpoint && a != (header.Word6{})
}

// Sends returns drop.None if the client may send an inner packet, of which only the IPv6
// header is needed.
func (c *TableClient) Sends(inner []byte) drop.Reason {
	ip := header.IPv6(inner)
	src, dst := header.ReadWord6(ip.Source()), header.ReadWord6(ip.Dest())
	switch {
	case noLink(src), noLink(dst):
		return drop.Martian
	case !c.has(src):
		return drop.Spoof
	case c.has(dst):
		return drop.Loop
	}
	return drop.None
}
