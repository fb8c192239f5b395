package probing

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"

	"sixfour/encap/fragment"
	"sixfour/encap/header"
	"sixfour/encap/icmp"
	"sixfour/internal/probe"
)

// answers checks the answers that are passed on.
type answers struct {
	nobody
	t *testing.T
}

func (a *answers) AnsweredMTU(uint16) { a.t.Error("an answer to a path MTU probe that was not sent") }

func (a *answers) AnsweredLiveness(l LivenessAnswer) {
	if l.Way >= NoWay {
		a.t.Errorf("way %d", l.Way)
	}
}

// Answers to no question, or to that of another, change nothing.
func FuzzPassReply(f *testing.F) {
	var r answers
	e, w := newEcho(f, &r)
	w.Life.Every = 1
	good := make([]byte, requestLen)
	binary.BigEndian.PutUint16(good[4:], e.ID)
	copy(good[8:], e.Cookie[:])
	for _, p := range []purpose{forPathMTU, forOperator, forLiveness, forLiveness + purpose(Outside), forLiveness + purpose(NoWay), 255} {
		good[purposeAt] = byte(p)
		f.Add(append([]byte(nil), good...), []byte{0x45})
	}
	f.Fuzz(func(t *testing.T, m, pkt []byte) {
		r.t = t
		e.expected.Store(1)
		if len(m) >= purposeAt {
			e.PassReply(m)
		}
		e.Returned(pkt)
	})
}

// A peer that repeats its answers cannot crowd out others: no more are passed on than there
// were probes.
func TestRepeatedAnswers(t *testing.T) {
	n := counted{}
	e, _ := newEcho(t, &n)
	m := make([]byte, requestLen)
	m[purposeAt] = byte(forLiveness)
	e.expected.Store(2)
	e.probes.Store(3)
	for range 10 {
		e.PassReply(m)
		e.PassReply(m[:purposeAt])
	}
	if n.life != 2 || n.mtu != 3 {
		t.Errorf("%+v", n)
	}
}

// A far end whose MTU is smaller than ours answers in fragments, of which the first is
// enough, both at its end of the layer and at an inner address. Fragments of other packets,
// and those between other addresses, are not ours.
func TestAnswerInFragments(t *testing.T) {
	here, there := netip.MustParseAddr("2001:db8:6::2"), netip.MustParseAddr("2001:db8:6::1")
	other := []probe.Pair{{Local: here, Remote: netip.MustParseAddr("2001:db8:6::3")}}
	between := append(slices.Clone(other), probe.Pair{Local: here, Remote: there})
	for _, c := range []struct {
		name    string
		between []probe.Pair
		answers func(e *Echo, pkt []byte) bool
	}{
		{"end of the layer", nil, func(e *Echo, pkt []byte) bool { return e.Answer(pkt) }},
		{"inner address", between, func(e *Echo, pkt []byte) bool { return e.AnswersBetween(between, pkt) }},
	} {
		var n counted
		e, _ := newEcho(t, &n)
		e.probes.Store(2)
		if c.between != nil && e.AnswersBetween(other, reply(e, there, here)) {
			t.Errorf("%s: an answer from another address", c.name)
		}
		for id := range uint32(2) {
			for piece := range fragment.IPv6(reply(e, there, here), 1280, 2*id, make([]byte, 1280), 0) {
				if !c.answers(e, piece) {
					t.Errorf("%s: fragment % x of an answer", c.name, piece[header.IPv6Len:][:fragment.HeaderLen])
				}
			}
		}
		foreign, _ := newEcho(t, &n)
		for piece := range fragment.IPv6(reply(foreign, there, here), 1280, 1, make([]byte, 1280), 0) {
			if c.answers(e, piece) {
				t.Errorf("%s: fragment % x of another packet", c.name, piece[header.IPv6Len:][:fragment.HeaderLen])
			}
		}
		if n.mtu != 2 {
			t.Errorf("%s: %d answers to 2 probes", c.name, n.mtu)
		}
	}
}

// reply returns the reply of 1400 bytes to a path MTU probe.
func reply(e *Echo, from, to netip.Addr) []byte {
	pkt := make([]byte, 1400)
	e.Fill(pkt, from, to, 7)
	pkt[header.IPv6Len] = icmp.EchoReply6
	return pkt
}

// counted counts the answers that are passed on.
type counted struct {
	nobody
	life, mtu int
}

func (c *counted) AnsweredMTU(uint16)              { c.mtu++ }
func (c *counted) AnsweredLiveness(LivenessAnswer) { c.life++ }
