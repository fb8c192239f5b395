package probing

import (
	"sync/atomic"

	"sixfour/encap"
	"sixfour/encap/drop"
	"sixfour/encap/header"
	"sixfour/internal/api"
	"sixfour/internal/datapath"
)

// marks is what is known of congestion marks in outer packets on the way to the peer (RFC
// 6040). A probe that may be marked inside, ECT(0), goes in an outer packet that is marked,
// CE. The far end decapsulates it as CE if the mark has arrived (section 4.2), and as ECT(0)
// if the path has removed it; hosts answer an echo request with the ECN field that it has.
type marks struct {
	expected atomic.Int64  // probes that may still be answered
	removed  atomic.Uint32 // answers in a row that show that the mark was removed
	known    atomic.Uint32 // 0: nothing; marksKept or marksRemoved
}

const (
	marksKept = 1 + iota
	marksRemoved
)

// removedFrom is how many answers in a row show that a path removes marks. One packet may
// have taken another way through the network.
const removedFrom = 3

// answered handles the answer to a probe, with the ECN field that it has inside. An answer
// that cannot be marked is that of a host that does not copy the field, and shows nothing.
func (m *marks) answered(ecn byte) {
	if m.expected.Add(-1) < 0 {
		m.expected.Add(1)
		return
	}
	switch ecn {
	case header.CE:
		m.removed.Store(0)
		m.known.Store(marksKept)
	case header.ECT0, header.ECT1:
		if m.removed.Add(1) >= removedFrom {
			m.known.Store(marksRemoved)
		}
	}
}

// Marks returns what is known of congestion marks on the way to the peer.
func (e *Echo) Marks() api.Marks {
	switch e.marks.known.Load() {
	case marksKept:
		return api.MarksKept
	case marksRemoved:
		return api.MarksRemoved
	}
	return api.MarksUnknown
}

// ForgetMarks forgets what is known of congestion marks: the path is another one now.
func (e *Echo) ForgetMarks() {
	e.marks.expected.Store(0)
	e.marks.removed.Store(0)
	e.marks.known.Store(0)
}

// SendMarked sends a probe that shows whether congestion marks reach the peer. Its answer
// says nothing about liveness, because networks may drop marked packets.
func (e *Echo) SendMarked(wire *datapath.Wire, q Request) error {
	q.purpose = forMarks
	e.marks.expected.Add(1) // before an answer can arrive
	err := e.send(wire, q)
	if err != nil {
		e.marks.expected.Add(-1)
	}
	return err
}

// marked returns a function that encapsulates a packet, and marks the outer packet.
func marked(stack *encap.Stack) func(buf []byte, off int) ([]byte, drop.Reason) {
	return func(buf []byte, off int) ([]byte, drop.Reason) {
		outer, r := stack.Encapsulate(buf, off)
		if r == drop.None {
			setECN(outer, header.CE)
		}
		return outer, r
	}
}

// setECN sets the ECN field of a packet.
func setECN(pkt []byte, ecn byte) {
	if header.Version(pkt) == 4 {
		header.IPv4(pkt).SetECN(ecn)
	} else {
		header.IPv6(pkt).SetECN(ecn)
	}
}

// ecnOf returns the ECN field of a packet.
func ecnOf(pkt []byte) byte {
	if header.Version(pkt) == 4 {
		return header.IPv4(pkt).TOS() & header.ECNMask
	}
	return header.IPv6(pkt).TrafficClass() & header.ECNMask
}
