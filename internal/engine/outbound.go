package engine

import (
	"errors"
	"net"
	"time"

	"golang.org/x/sys/unix"

	"sixfour/encap"
	"sixfour/encap/drop"
	"sixfour/encap/header"
	"sixfour/transport"
	"sixfour/tun"
)

// outbound carries packets from a TUN device to the peer, on one goroutine.
type outbound struct {
	t     *tunnel
	drops drops

	bufs    [][]byte
	sizes   []int
	batch   [][]byte // outer packets
	inner   []int    // the sizes of the inner packets in them
	scratch []byte   // for a fragment
}

func newOutbound(t *tunnel, batch int) *outbound {
	return &outbound{
		t:       t,
		drops:   drops{counters: &t.out, log: t.log.Named("out")},
		bufs:    buffers(batch, encap.Headroom+transport.MaxPacket),
		sizes:   make([]int, batch),
		batch:   make([][]byte, 0, batch),
		inner:   make([]int, 0, batch),
		scratch: make([]byte, transport.MaxPacket),
	}
}

// buffers makes n buffers of size bytes each. Memory is only taken where
// packets really are: the kernel maps a page when it is first written to.
func buffers(n, size int) [][]byte {
	arena := make([]byte, n*size)
	bufs := make([][]byte, n)
	for i := range bufs {
		bufs[i] = arena[i*size : (i+1)*size : (i+1)*size]
	}
	return bufs
}

// readPause keeps a device or a socket that does nothing but fail from burning a
// processor.
const readPause = 10 * time.Millisecond

// run works until the device is closed or deleted.
func (o *outbound) run(dev *tun.Device) {
	for {
		n, err := dev.Read(o.bufs, o.sizes, encap.Headroom)
		if errors.Is(err, tun.ErrGone) {
			return
		}
		if n > 0 {
			o.carry(n)
		}
		if err != nil {
			o.drops.countN(drop.TunFailed, 1, nil, err)
			time.Sleep(readPause)
		}
	}
}

// carry encapsulates and sends the n packets that were read.
func (o *outbound) carry(n int) {
	p := o.t.path.Load()
	if p == nil {
		o.drops.countN(drop.NoRoute, n, o.bufs[0][encap.Headroom:encap.Headroom+o.sizes[0]], nil)
		return
	}
	o.batch, o.inner = o.batch[:0], o.inner[:0]
	for i, size := range o.sizes[:n] {
		buf := o.bufs[i][:encap.Headroom+size]
		pkt, r := p.stack.Encapsulate(buf, encap.Headroom)
		switch {
		case r != drop.None:
			o.drops.count(r, buf[encap.Headroom:])
		case len(pkt) > int(p.mtu):
			o.oversize(p, pkt, size)
		default:
			o.batch, o.inner = append(o.batch, pkt), append(o.inner, size)
		}
	}
	o.send(p)
}

// send sends the batch. A packet that the kernel refuses costs itself only; if
// the path is replaced meanwhile, the rest goes the new way.
func (o *outbound) send(p *path) {
	packets, bytes := 0, 0
	for done := 0; done < len(o.batch); {
		n, err := p.sender.Send(o.batch[done:])
		packets += n
		for _, size := range o.inner[done : done+n] {
			bytes += size
		}
		done += n
		if errors.Is(err, net.ErrClosed) {
			if p = o.t.path.Load(); p == nil {
				o.drops.countN(drop.NoRoute, len(o.batch)-done, o.batch[done], nil)
				break
			}
		} else if err != nil {
			o.drops.countN(sendReason(err), 1, o.batch[done], err)
			done++
		}
	}
	o.t.out.carried(packets, bytes)
}

// oversize is the door for packets larger than the path's MTU: a raw socket
// that writes its own headers does not fragment. It happens when the interface
// keeps the 1280 bytes that IPv6 needs over a path of less (RFC 4213 3.2.2), or
// when the MTU was configured that way.
func (o *outbound) oversize(p *path, pkt []byte, size int) {
	if !header.IPv4(pkt).MayFragment() {
		o.drops.count(drop.TooBig, pkt)
		return
	}
	for frag := range encap.Fragments4(pkt, int(p.mtu), o.scratch) {
		if err := p.sender.SendOne(frag); err != nil {
			o.drops.countN(sendReason(err), 1, pkt, err)
			return
		}
	}
	o.t.out.carried(1, size)
}

// sendReason says under which reason a packet goes that the kernel refused.
func sendReason(err error) drop.Reason {
	switch {
	case errors.Is(err, unix.EMSGSIZE):
		return drop.TooBig
	case errors.Is(err, unix.ENETUNREACH), errors.Is(err, unix.EHOSTUNREACH), errors.Is(err, unix.ENETDOWN),
		errors.Is(err, unix.EADDRNOTAVAIL), errors.Is(err, unix.EINVAL):
		return drop.NoRoute
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return drop.Filtered
	case errors.Is(err, unix.ENOBUFS), errors.Is(err, unix.ENOMEM):
		return drop.NoBuffer
	}
	return drop.SendFailed
}
