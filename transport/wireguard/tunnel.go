package wireguard

import (
	"errors"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"

	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tun"

	"sixfour/encap/header"
	"sixfour/transport"
)

// tunnel is the interface of the device, inside this program: what senders queue is read by
// the device, and what the device writes is received from the port.
type tunnel struct {
	out, in *queue
	peers   *atomic.Pointer[table]
	local   netip.AddrPort
	padding atomic.Int64  // the largest padded packet
	lost    atomic.Uint32 // packets for which there was no room in the queue in
	events  chan tun.Event
	once    sync.Once
}

func newTunnel(size int, peers *atomic.Pointer[table], local netip.AddrPort) *tunnel {
	t := &tunnel{out: newQueue(size), in: newQueue(size), peers: peers, local: local, events: make(chan tun.Event)}
	t.padding.Store(safePadding)
	return t
}

// safePadding is the largest inner packet that fits every path over IPv6, whose MTU is at
// least 1280 (RFC 8200 section 5). It is a multiple of padUnit.
const safePadding = (1280 - header.IPv6Len - header.UDPLen - Overhead) / padUnit * padUnit

// padUnit is the unit to whose multiples packets are padded.
const padUnit = device.PaddingMultiple

// File implements tun.Device.
func (t *tunnel) File() *os.File { return nil }

// Name implements tun.Device.
func (t *tunnel) Name() (string, error) { return "sixfour", nil }

// BatchSize implements tun.Device.
func (t *tunnel) BatchSize() int { return batchSize }

// Events implements tun.Device.
func (t *tunnel) Events() <-chan tun.Event { return t.events }

// MTU implements tun.Device. The device uses it for padding only: it pads no packet beyond
// the MTU, and with MTU 1 none at all. Read adds the padding instead.
func (t *tunnel) MTU() (int, error) { return 1, nil }

// Close implements tun.Device.
func (t *tunnel) Close() error {
	t.once.Do(func() {
		t.out.close()
		t.in.close()
		close(t.events)
	})
	return nil
}

// Read implements tun.Device.
func (t *tunnel) Read(bufs [][]byte, sizes []int, offset int) (int, error) {
	n, err := t.out.take(len(bufs), func(i int, s *slot) {
		n := copy(bufs[i][offset:], s.b)
		sizes[i] = padded(n, int(t.padding.Load()))
		clear(bufs[i][offset+n : offset+sizes[i]])
		if mark, ok := noteOf(bufs[i]); ok {
			mark.setOuter(s.tos, s.ttl)
		}
	})
	if err != nil {
		return 0, os.ErrClosed
	}
	return n, nil
}

// padded returns the length of a packet with its padding.
func padded(n, largest int) int {
	return max(n, min((n+padUnit-1)/padUnit*padUnit, largest))
}

// Write implements tun.Device. The packets of a call come from one peer.
func (t *tunnel) Write(bufs [][]byte, offset int) (int, error) {
	if len(bufs) == 0 {
		return 0, nil
	}
	p := t.peers.Load().find(source(bufs[0][offset:]))
	last, ok := noteOf(bufs[len(bufs)-1])
	if p == nil || !ok {
		return len(bufs), nil // removed in the meantime
	}
	from := p.moved(t.withZone(last.outer().From))
	for done := 0; done < len(bufs); {
		n, err := t.in.put(len(bufs)-done, true, func(i int, s *slot) error {
			return t.fill(s, bufs[done+i], offset, from)
		})
		done += n
		if err != nil && !errors.Is(err, errFull) && !errors.Is(err, errLarge) {
			return done, os.ErrClosed
		}
		if err != nil {
			t.lost.Add(1)
			done++
		}
	}
	return len(bufs), nil
}

// errLarge is the error for a packet that is too large with the headers that the port adds.
var errLarge = errors.New("larger than an IP packet")

// fill writes a packet from a buffer of the device, with headers before it.
func (t *tunnel) fill(s *slot, buf []byte, offset int, from netip.AddrPort) error {
	mark, ok := noteOf(buf)
	if !ok {
		return errLarge
	}
	o := mark.outer()
	o.From, o.At = from, netip.AddrPortFrom(o.At.Addr(), t.local.Port())
	n, inner := header.HeadersLen(o.From.Addr()), buf[offset:]
	if n+len(inner) > transport.MaxPacket {
		return errLarge
	}
	b := s.size(n + len(inner))
	copy(b[n:], inner)
	header.PutHeaders(b, &o)
	return nil
}

// withZone adds the zone to a link-local address: it is that of the local address.
func (t *tunnel) withZone(a netip.AddrPort) netip.AddrPort {
	if zone := t.local.Addr().Zone(); zone != "" && a.Addr().IsLinkLocalUnicast() {
		return netip.AddrPortFrom(a.Addr().WithZone(zone), a.Port())
	}
	return a
}

// source returns the source address of an inner packet, and dest its destination address;
// the zero value if there is none.
func source(inner []byte) netip.Addr { return addressAt(inner, 12, 8) }
func dest(inner []byte) netip.Addr   { return addressAt(inner, 16, 24) }

func addressAt(inner []byte, in4, in6 int) netip.Addr {
	switch {
	case len(inner) >= header.IPv4Len && header.Version(inner) == 4:
		return netip.AddrFrom4([4]byte(inner[in4:]))
	case len(inner) >= header.IPv6Len && header.Version(inner) == 6:
		return netip.AddrFrom16([16]byte(inner[in6:]))
	}
	return netip.Addr{}
}
