package datapath

import (
	"encoding/binary"
	"testing"

	"sixfour/encap/header"
)

// udpFlow returns an inner IPv4 packet of a flow.
func udpFlow(flow uint16) []byte {
	pkt := arriving("10.0.0.1", "10.0.0.2", header.UDP, 0, 0, 0, 9, 0, 8, 0, 0)
	binary.BigEndian.PutUint16(pkt[header.IPv4Len:], flow)
	return pkt
}

// The flows to a peer are divided among the wires by slots. A flow keeps its wire while that is
// in its slot. The choice allocates nothing.
func TestDivide(t *testing.T) {
	const flows = 2000
	var p Peer
	wires := []*Wire{new(Wire), nil, new(Wire)}
	slots := new([Slots]uint8)
	for i := range slots {
		slots[i] = uint8(i / 64 & 2) // half of them each
	}
	p.Divide(wires, slots)
	first := make([]*Wire, flows)
	n := 0
	for flow := range first {
		first[flow] = p.wireFor(udpFlow(uint16(flow)))
		if first[flow] == wires[0] {
			n++
		}
	}
	if n < flows*4/10 || n > flows*6/10 {
		t.Errorf("%d of %d flows use the first wire", n, flows)
	}
	moved := *slots
	for i := range moved[:64] { // of the first wire
		moved[i] = 2
	}
	p.Divide(wires, &moved)
	changed := 0
	for flow := range first {
		switch w := p.wireFor(udpFlow(uint16(flow))); {
		case w == first[flow]:
		case first[flow] != wires[0]:
			t.Fatal("a flow has left a wire that keeps its slots")
		default:
			changed++
		}
	}
	if changed == 0 || changed == n {
		t.Errorf("%d of %d flows have changed", changed, n)
	}
	pkt := udpFlow(1)
	if n := testing.AllocsPerRun(100, func() { p.wireFor(pkt) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
	p.Use(wires[0])
	if p.wireFor(pkt) != wires[0] {
		t.Error("not the only wire")
	}
	p.Use(nil)
	if p.wireFor(pkt) != nil {
		t.Error("a wire, though packets are to be dropped")
	}
}
