package rig

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Provider is a link between two namespaces that drops some packets, and delays all, as a
// provider's network can. It needs no packet filter and no queueing discipline of the kernel.
// It is for tests of some thousand packets per second.
type Provider struct {
	ns    *Namespace
	ends  [2]*Capture
	drops atomic.Pointer[func(packet []byte) bool]
	delay atomic.Int64
	run   sync.WaitGroup
}

// frames that wait for the end of their delay, in one direction.
const providerQueue = 1 << 14

// Through is Veth with a provider between the two devices. Close it after use.
func Through(a *Namespace, nameA string, b *Namespace, nameB string, mtu int) (*Provider, error) {
	ns, err := New("provider")
	if err != nil {
		return nil, err
	}
	p := &Provider{ns: ns}
	for i, end := range []struct {
		n         *Namespace
		dev, with string
	}{{a, nameA, "pa"}, {b, nameB, "pb"}} {
		err := Veth(end.n, end.dev, ns, end.with, mtu)
		if err == nil { // what a capture sees must be whole packets with checksums
			err = end.n.Feature(end.dev, "tx-checksum-ip-generic", false)
		}
		if err == nil {
			p.ends[i], err = ns.Capture(end.with)
		}
		if err != nil {
			return nil, errors.Join(err, p.Close())
		}
	}
	p.forward(p.ends[0], p.ends[1])
	p.forward(p.ends[1], p.ends[0])
	return p, nil
}

// Drop makes the provider drop the IP packets for which match returns true, in both
// directions; nil: none. Several goroutines call match.
func (p *Provider) Drop(match func(packet []byte) bool) {
	if match == nil {
		p.drops.Store(nil)
		return
	}
	p.drops.Store(&match)
}

// Delay makes the provider delay each frame that arrives from now on, in each direction.
func (p *Provider) Delay(d time.Duration) { p.delay.Store(int64(d)) }

// forward starts to forward the frames of one direction.
func (p *Provider) forward(from, to *Capture) {
	type frame struct {
		data []byte
		due  time.Time
	}
	queue := make(chan frame, providerQueue)
	p.run.Go(func() {
		defer close(queue)
		for {
			var f Frame
			var err error
			rerr := from.raw.Read(func(fd uintptr) bool {
				f, err = from.receive(int(fd))
				return !errors.Is(err, unix.EAGAIN)
			})
			if rerr != nil { // closed
				return
			}
			if err != nil || f.Outgoing || p.drop(f) {
				continue
			}
			select {
			case queue <- frame{f.Data, time.Now().Add(time.Duration(p.delay.Load()))}:
			default:
			}
		}
	})
	p.run.Go(func() {
		for f := range queue {
			time.Sleep(time.Until(f.due))
			_ = to.Inject(f.data) // as a link, it loses what cannot be sent
		}
	})
}

// drop reports whether a frame is dropped.
func (p *Provider) drop(f Frame) bool {
	match := p.drops.Load()
	return match != nil && (f.Type == unix.ETH_P_IP || f.Type == unix.ETH_P_IPV6) && (*match)(f.Packet())
}

// Close removes the link.
func (p *Provider) Close() (err error) {
	for _, c := range p.ends {
		if c != nil {
			err = errors.Join(err, c.Close())
		}
	}
	p.run.Wait()
	p.ns.Close()
	return err
}
