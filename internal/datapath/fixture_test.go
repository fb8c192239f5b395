package datapath

import (
	"bytes"
	"net/netip"
	"sync/atomic"
	"testing"

	"go.uber.org/zap"

	"sixfour/encap"
	"sixfour/encap/framing"
	"sixfour/encap/header"
	"sixfour/encap/icmp"
	"sixfour/encap/source"
	"sixfour/internal/icmpreply"
	"sixfour/internal/probe"
)

// stub is the owner of a path and of its tunnel, in tests.
type stub struct{ panics atomic.Int64 }

func (s *stub) Recovered(string) { s.panics.Add(1) }

func (*stub) Notify(uint32) {}

func (*stub) LargeSent() {}

func (*stub) SendFailed(error) {}

func (*stub) HopRefused(netip.Addr) {}

func (*stub) ReportedTooBig(encap.PathMTU, encap.Quote, icmp.Error) {}

func (*stub) ReportedUnreachable(netip.Addr, icmp.Error) {}

func (*stub) Reported(netip.Addr, icmp.Error) {}

func (*stub) Returned([]byte) bool { return false }

func (*stub) AnswersBetween([]probe.Pair, []byte) bool { return false }

func (*stub) Answer(header.IPv6) bool { return false }

func (*stub) IsReply([]byte, byte) bool { return false }

func (*stub) PassReply([]byte) {}

func (*stub) Sent([]byte) bool { return false }

func (*stub) SentOutside([]byte) bool { return false }

// lab returns a 4in6in4 tunnel without devices and sockets, and what receives its packets.
func lab(t testing.TB) (e *Plane, tun *Tunnel, p *Path, to *Wire) {
	return labOf(t, 1500, encap.DefaultOptions,
		layer(encap.FourInSix, "fc00::1", "fc00::2", framing.GRE{}),
		layer(encap.SixInFour, "192.0.2.1", "198.51.100.1", framing.GRE{}))
}

// labOf returns a tunnel with the given layers over a path with the given MTU. Its interface
// has the address fc00::1.
func labOf(t testing.TB, mtu encap.PathMTU, options encap.Options, layers ...encap.Layer) (e *Plane, tun *Tunnel, p *Path, to *Wire) {
	t.Helper()
	e, owner := new(Plane), new(stub)
	tun = &Tunnel{Name: "t0", Queues: 1, Log: zap.NewNop(), Captures: &e.Captures, Owner: owner, Reply: icmpreply.New("", new(atomic.Int64), zap.NewNop())}
	tun.MTU.Store(1440)
	p = &Path{PathOf: PathOf{Tunnel: tun}, Record: encap.NewRecord(), Owner: owner, Probes: owner}
	p.Peer = new(Peer)
	p.Peer.SetPaths([]*Path{p})
	tun.Peers.Only = p.Peer
	to = &Wire{Path: p, MTU: mtu, Options: options, Layers: layers}
	var err error
	if to.Stack, err = encap.New(to.Layers, mtu, options, source.New(nil, nil, false), p.Record); err != nil {
		t.Fatal(err)
	}
	useWire(p, to)
	e.Table.Store(tableFor(p))
	return e, tun, p, to
}

// panics returns how many panics the tunnel has survived.
func panics(tun *Tunnel) int64 { return tun.Owner.(*stub).panics.Load() }

// tableFor returns a table with an entry for each path.
func tableFor(paths ...*Path) *Table {
	t := NewTable(len(paths))
	for _, p := range paths {
		t.Replace(nil, []*End{NewEnd(p, &p.Wire, false, func(a netip.Addr) bool { return a == netip.MustParseAddr("fc00::1") })})
	}
	return t
}

// useWire makes packets of a path leave by a wire.
func useWire(p *Path, w *Wire) {
	w.Path = p
	p.Wire.Store(w)
}

func layer(k encap.Kind, local, remote string, g framing.GRE) encap.Layer {
	l := encap.Layer{Kind: k, Local: netip.MustParseAddr(local), Remote: netip.MustParseAddr(remote)}
	if g != (framing.GRE{}) {
		l.Kind = k.With(g)
	}
	return l
}

// arriving returns the beginning of an outer packet.
func arriving(src, dst string, protocol byte, payload ...byte) []byte {
	s, d := netip.MustParseAddr(src), netip.MustParseAddr(dst)
	if s.Is4() {
		b := make([]byte, header.IPv4Len)
		b[0], b[9] = 0x45, protocol
		copy(b[12:], s.AsSlice())
		copy(b[16:], d.AsSlice())
		return append(b, payload...)
	}
	b := make([]byte, header.IPv6Len)
	b[0], b[6] = 0x60, protocol
	copy(b[8:], s.AsSlice())
	copy(b[24:], d.AsSlice())
	return append(b, payload...)
}

// memory is a sink that stores a capture.
type memory struct{ bytes.Buffer }

func (*memory) Flush() error { return nil }
