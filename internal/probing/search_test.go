package probing

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"sixfour/encap"
	"sixfour/internal/datapath"
)

// nobody is a receiver that drops all answers, and a peer of which nothing is known.
type nobody struct{}

func (nobody) AnsweredMTU(uint16)              {}
func (nobody) AnsweredLiveness(LivenessAnswer) {}
func (nobody) Relay() netip.Addr               { return netip.Addr{} }
func (nobody) Unreachable() error              { return errors.New("no path") }
func (nobody) LastError(time.Time) string      { return "" }

// newEcho returns the probes of a 6in4 path with a wire, without sockets.
func newEcho(t testing.TB, r Receiver) (*Echo, *datapath.Wire) {
	t.Helper()
	p := &datapath.Path{PathOf: datapath.PathOf{Tunnel: new(datapath.Tunnel)}, Record: encap.NewRecord()}
	w := &datapath.Wire{Path: p, MTU: 1500, Options: encap.DefaultOptions, Layers: []encap.Layer{
		{Kind: encap.SixInFour, Local: netip.MustParseAddr("192.0.2.1"), Remote: netip.MustParseAddr("198.51.100.1")},
	}}
	var err error
	if w.Stack, err = encap.New(w.Layers, w.MTU, w.Options, nil, p.Record); err != nil {
		t.Fatal(err)
	}
	p.Wire.Store(w)
	return New(p, r), w
}

// A lack of room for a question, because of too many others, says nothing about the path.
func TestSearchAmongMany(t *testing.T) {
	e, w := newEcho(t, nobody{})
	for range maxAsked {
		if _, err := e.asked.next(make(chan heardAt, 1)); err != nil {
			t.Fatal(err)
		}
	}
	a := &asking{echo: e, peer: nobody{}, wire: w, heard: make(chan heardAt, 1)}
	if _, err := a.passes(t.Context(), probeUsual, time.Millisecond); !errors.Is(err, errBusy) {
		t.Error(err)
	}
}
