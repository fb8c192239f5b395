package probing

import (
	"encoding/binary"
	"testing"
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

// counted counts the answers that are passed on.
type counted struct {
	nobody
	life, mtu int
}

func (c *counted) AnsweredMTU(uint16)              { c.mtu++ }
func (c *counted) AnsweredLiveness(LivenessAnswer) { c.life++ }
