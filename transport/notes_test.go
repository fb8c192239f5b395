package transport

import (
	"bytes"
	"testing"

	"sixfour/encap/header"
)

// outerPacket returns a packet with a payload. For IPv6 it has destination options if
// options is set.
func outerPacket(version byte, options bool, payload []byte) []byte {
	if version == 4 {
		b := append(make([]byte, header.IPv4Len), payload...)
		b[0], b[2], b[3], b[9] = 0x45, byte(len(b)>>8), byte(len(b)), header.ProtoIPv6
		return b
	}
	b := make([]byte, header.IPv6Len)
	b[0], b[6] = 0x60, header.ProtoIPv6
	if options {
		b[6] = header.DestOptions
		b = append(b, header.ProtoIPv6, 0, 4, 1, 4, 1, 1, 0)
	}
	b = append(b, payload...)
	b[4], b[5] = byte((len(b)-header.IPv6Len)>>8), byte(len(b)-header.IPv6Len)
	return b
}

// TestNoteKey: a packet is recognized by its beginning, and without the options that a
// raw socket does not return.
func TestNoteKey(t *testing.T) {
	n := new(notes)
	n.init()
	payload := bytes.Repeat([]byte{7}, 1000)
	other := bytes.Clone(payload)
	other[60]++
	for _, c := range []struct {
		name string
		a, b []byte
		same bool
	}{
		{"its beginning, IPv4", outerPacket(4, false, payload), outerPacket(4, false, payload)[:300], true},
		{"its beginning, IPv6", outerPacket(6, false, payload), outerPacket(6, false, payload)[:300], true},
		{"without options", outerPacket(6, false, payload), outerPacket(6, true, payload)[:300], true},
		{"another one", outerPacket(4, false, payload), outerPacket(4, false, other), false},
		{"a longer one", outerPacket(4, false, payload), outerPacket(4, false, append(bytes.Clone(payload), 7)), false},
		{"IPv4 and IPv6", outerPacket(4, false, payload), outerPacket(6, false, payload), false},
	} {
		a, ok := n.key(c.a)
		b, also := n.key(c.b)
		if !ok || !also || (a == b) != c.same {
			t.Errorf("%s: %x %v, %x %v", c.name, a, ok, b, also)
		}
	}
	for _, short := range [][]byte{nil, {0x45}, {0x60}, outerPacket(4, false, nil), outerPacket(6, true, nil)[:44]} {
		if _, ok := n.key(short); ok {
			t.Errorf("%x has a key", short)
		}
	}
}

// TestNotes: packets that begin in the same way are counted; a VLAN's device reports a
// packet again; and sizes that contradict each other are not used.
func TestNotes(t *testing.T) {
	n := new(notes)
	n.init()
	const key, device, vlan = 1<<40 | 1, 3, 4
	n.put(key, 1000, device)
	n.put(key, 1000, vlan)
	n.put(key, 1000, device)
	for range 2 {
		if size, ok := n.take(key); size != 1000 || !ok {
			t.Fatalf("%d, %v", size, ok)
		}
	}
	if _, ok := n.take(key); ok || n.live.Load() != 0 {
		t.Errorf("a third one, of %d", n.live.Load())
	}
	n.put(key, 1000, device)
	n.put(key, 500, device)
	if size, ok := n.take(key); ok {
		t.Errorf("ambiguous, but %d", size)
	}
	for range noteLife {
		n.age()
	}
	if _, ok := n.take(key); ok || n.live.Load() != 0 {
		t.Error("notes do not age")
	}
	for i := range uint64(noteLife) { // of packets that do not arrive here
		n.age()
		n.put(key+2*i, 1000, device)
	}
	if n.age(); n.live.Load() != 0 {
		t.Errorf("%d notes that nothing takes are kept as long as others come", n.live.Load())
	}
	for i := range uint64(4 * noteSets * noteWays) { // more than there is room for
		n.put(i<<1|1, 1, device)
	}
	if live := n.live.Load(); live > noteSets*noteWays {
		t.Errorf("%d notes", live)
	}
}
