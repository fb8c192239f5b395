package prober

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"sixfour/encap"
	"sixfour/encap/framing"
	"sixfour/encap/icmp"
	"sixfour/encap/source"
	"sixfour/internal/probe"
)

func TestMeaning(t *testing.T) {
	for _, test := range []struct {
		err  icmp.Error
		want string
	}{
		{icmp.Error{Version: 4, Type: 3, Code: 4, Arg: 1400}, "MTU of 1400"},
		{icmp.Error{Version: 4, Type: 11}, "hop limit"},
		{icmp.Error{Version: 4, Type: 3, Code: 2}, "no tunnel"},
		{icmp.Error{Version: 4, Type: 3, Code: 13}, "firewall"},
		{icmp.Error{Version: 4, Type: 3, Code: 6}, "type 3 code 6"},
		{icmp.Error{Version: 6, Type: 2, Arg: 1300}, "MTU of 1300"},
		{icmp.Error{Version: 6, Type: 3}, "hop limit"},
		{icmp.Error{Version: 6, Type: 1, Code: 1}, "firewall"},
	} {
		if got := Meaning(test.err); !strings.Contains(got, test.want) {
			t.Errorf("%+v: %q, want %q", test.err, got, test.want)
		}
	}
}

// listening is an asker without sockets.
func listening(kind encap.Kind) *Prober {
	l := encap.Layer{Kind: kind, Local: netip.MustParseAddr("203.0.113.10"), Remote: netip.MustParseAddr("203.0.113.20")}
	if kind.Over() == 6 {
		l.Local, l.Remote = netip.MustParseAddr("2001:db8::10"), netip.MustParseAddr("2001:db8::20")
	}
	stack, err := encap.New([]encap.Layer{l}, 65535, encap.DefaultOptions, source.New(nil, nil, false), encap.NewRecord())
	if err != nil {
		panic(err)
	}
	return &Prober{
		Layers: []encap.Layer{l}, stack: stack, local: l.Local, remote: l.Remote,
		waiting: &waiting{ID: probe.Identity{ID: 7, Cookie: [8]byte{1, 2, 3, 4, 5, 6, 7, 8}}, pending: make(map[uint16]*Probe)},
	}
}

// No packet causes a panic, and none without our identity counts as an answer.
func FuzzHear(f *testing.F) {
	kinds := []encap.Kind{encap.SixInFour, encap.FourInFour, encap.GREInFour, encap.FourInSix, encap.SixInSix, encap.GREInSix}
	for i, kind := range kinds {
		a := listening(kind)
		q := &Probe{Kind: Inside, Local: netip.MustParseAddr("10.0.0.1"), Remote: netip.MustParseAddr("10.0.0.2")}
		if !kind.Carries(4) {
			q.Local, q.Remote = netip.MustParseAddr("fc00::1"), netip.MustParseAddr("fc00::2")
		}
		for _, w := range []Kind{Inside, Keepalive, Outside} {
			if _, ok := kind.Framing().(framing.Keepaliver); w == Keepalive && !ok {
				continue
			}
			q.Kind = w
			b, err := a.build(q, 1)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(uint8(i), b)
		}
	}
	f.Fuzz(func(t *testing.T, kind uint8, b []byte) {
		a := listening(kinds[int(kind)%len(kinds)])
		q := &Probe{replies: make(chan Reply, 4)}
		q.packet, _ = a.build(&Probe{Kind: Outside}, 1)
		a.pending[1] = q
		cookie := string(a.ID.Cookie[:])
		known := strings.Contains(string(b), cookie)
		a.receivePacket(slices.Clone(b))
		a.receiveICMP(slices.Clone(b))
		for len(q.replies) > 0 {
			if r := <-q.replies; r.Answer && !known {
				t.Errorf("% x is an answer", b)
			}
		}
	})
}
