package engine

import (
	"errors"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"sixfour/encap"
	"sixfour/encap/drop"
	"sixfour/encap/header"
	"sixfour/encap/icmp"
	"sixfour/transport"
)

// outerErrors receives the ICMP errors to an outer address of ours, on one
// goroutine: what routers on the way say of outer packets.
type outerErrors struct {
	rx  transport.Receiver
	in  *inbound // whose table says which tunnel an error is about
	log *zap.Logger
}

// heard counts what came back about a tunnel's outer packets.
type heard struct {
	errors  atomic.Uint64 // that are about packets of ours
	ignored atomic.Uint64 // that are not, or cannot be true
}

// listenErrors opens the receiver of an address.
func (e *Engine) listenErrors(local netip.Addr, in *inbound) error {
	rx, err := transport.ListenRaw4(local, header.ICMP, transport.Shard{}, transport.Options{
		ICMP: []int{icmp.Unreachable4, icmp.TimeExceeded4, icmp.Parameter4},
	})
	if err != nil {
		return err
	}
	o := &outerErrors{rx, in, e.log.Named("icmp").With(zap.Stringer("local", local))}
	e.errors[local] = rx
	e.wg.Go(o.run)
	return nil
}

// errorBatch is how many errors are read at a time.
const errorBatch = 16

// run works until the receiver is closed.
func (o *outerErrors) run() {
	bufs, sizes := buffers(errorBatch, transport.MaxPacket), make([]int, errorBatch)
	for {
		n, err := o.rx.Receive(bufs, sizes)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			o.log.Warn("receive", zap.Error(err))
			time.Sleep(readPause)
			continue
		}
		for i, size := range sizes[:n] {
			o.hear(bufs[i][:size])
		}
	}
}

// hear takes one packet.
func (o *outerErrors) hear(b []byte) {
	pkt, r := header.ParseIPv4(b)
	if r != drop.None {
		return
	}
	err, ok := icmp.Parse(pkt)
	if !ok || len(err.Quote) < header.IPv4Len {
		return
	}
	quoted := header.IPv4(err.Quote)
	var pair [8]byte // as it stands in packets that come in
	copy(pair[:], quoted.Dest())
	copy(pair[4:], quoted.Source())
	if end := (*o.in.ends.Load())[pair]; end != nil {
		end.t.hear(err)
	}
}

// leastByICMP is the least path MTU that a router's word can bring about, as the
// kernel's net.ipv4.route.min_pmtu: with less, whoever forges one could have every
// packet cut into dozens. DF is clear then, so that routers cut what they must.
const leastByICMP = 552

// hear takes an ICMP error about a packet between the ends of the tunnel, or of
// its IPv6 layer, and reports whether it is about one that we sent.
func (t *tunnel) hear(err icmp.Error) bool {
	p := t.path.Load()
	if p == nil {
		return false
	}
	q, ok := p.stack.Unquote(err.Quote)
	if !ok {
		t.heard.ignored.Add(1)
		return false
	}
	switch m := err.Meaning(); m {
	case icmp.Nothing:
	case icmp.TooBig:
		mtu := err.MTU(q.Size)
		if mtu == 0 || t.cfg.Options.StaticMTU {
			t.heard.ignored.Add(1)
			return true
		}
		t.prober.tooBig(t, encap.PathMTU(max(mtu+q.Outside, leastByICMP)), q.Inner)
	default:
		switch {
		case q.Inner == nil:
			t.soft.note(m)
		case !t.echo.sent(q.Inner): // not to ourselves
			t.reply.unreachable(m, q.Inner)
		}
	}
	t.heard.errors.Add(1)
	return true
}
