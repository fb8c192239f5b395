package fragment_test

import (
	"bytes"
	"encoding/binary"
	"slices"
	"testing"
	"time"

	"sixfour/encap/drop"
	"sixfour/encap/fragment"
	"sixfour/encap/header"
)

// FuzzFragments cuts random packets to random sizes: no fragment is too large, and they
// can be reassembled in any order.
func FuzzFragments(f *testing.F) {
	f.Add([]byte(packet6(1400)), 1280, uint32(7), uint8(1))
	f.Add([]byte(packet6(100, ext{header.HopByHop, hopByHop}, ext{header.DestOptions, limit}, ext{header.Routing, routing})), 80, uint32(7), uint8(0))
	f.Add([]byte(frag(8, 100, true)), 64, uint32(7), uint8(2))
	f.Add([]byte(packet4([]byte{0x94, 4, 0, 0, 7, 3, 4, 0}, 100)), 68, uint32(7), uint8(2))
	f.Fuzz(func(t *testing.T, b []byte, mtu int, id uint32, turn uint8) {
		mtu = min(mtu, 70000)
		const off = 16
		buf := make([]byte, off+max(mtu, 0))
		if ip, r := header.ParseIPv4(b); r == drop.None {
			var payload []byte
			for f := range fragment.IPv4(ip, mtu, buf, 0) {
				got, r := header.ParseIPv4(f)
				if r != drop.None || len(f) > mtu || len(got) != len(f) {
					t.Fatalf("%v, %d bytes, MTU %d", r, len(f), mtu)
				}
				payload = append(payload, got.Payload()...)
			}
			if payload != nil && !bytes.Equal(payload, ip.Payload()) {
				t.Fatal("what comes out is not what went in")
			}
		}
		ip, r := header.ParseIPv6(b)
		if r != drop.None {
			return
		}
		// As a fragment, for a reassembler with little memory.
		small := fragment.NewReassembler(fragment.Limits{Bytes: 2000, Packets: 2, Pieces: 2}, nil)
		if whole, _ := small.Add(ip, noon); whole != nil {
			if _, r := header.ParseIPv6(whole); r != drop.None {
				t.Fatalf("makes a bad packet: %v %x", r, whole)
			}
		}
		if small.Held() > 2000 || fragment.Allocated(small) > 2000 {
			t.Fatal("holds more than it may")
		}

		var frags []header.IPv6
		for f := range fragment.IPv6(ip, mtu, id, buf, off) {
			if got, r := header.ParseIPv6(f); r != drop.None || len(got) != len(f) || len(f) > mtu {
				t.Fatalf("%v, %d bytes, MTU %d", r, len(f), mtu)
			}
			frags = append(frags, bytes.Clone(f))
		}
		if len(frags) < 2 {
			if len(frags) == 1 && !bytes.Equal(frags[0], ip) {
				t.Fatal("one fragment, and not the packet")
			}
			return
		}
		at := int(turn) % len(frags)
		frags = append(slices.Clone(frags[at:]), frags[:at]...)
		if turn >= 128 {
			slices.Reverse(frags)
		}
		all := fragment.NewReassembler(fragment.Limits{Bytes: 16 << 20, Pieces: 1 << 16}, nil)
		for i, f := range frags {
			whole, r := all.Add(f, noon)
			if r != drop.None || whole != nil != (i == len(frags)-1) {
				t.Fatalf("fragment %d of %d: %v", i, len(frags), r)
			}
			if whole != nil && !bytes.Equal(whole, ip) {
				t.Fatalf("\n got %x\nwant %x", whole, ip)
			}
		}
	})
}

// model is a simple reassembler, written for clarity only.
type model struct {
	packets map[uint32]*modelPacket
	lost    counts
}

type modelPacket struct {
	born   time.Time
	dead   bool
	pieces []modelPiece
}

type modelPiece struct {
	from, to int
	more     bool
	data     []byte
}

func (m *model) expire(now time.Time) {
	for id, p := range m.packets {
		if now.Sub(p.born) >= fragment.Timeout {
			if len(p.pieces) > 0 {
				m.lost[drop.FragmentTimeout] += len(p.pieces)
			}
			delete(m.packets, id)
		}
	}
}

func (m *model) add(id uint32, n modelPiece, now time.Time) (payload []byte, r drop.Reason) {
	m.expire(now)
	if len(n.data) == 0 || n.more && len(n.data)%8 != 0 || n.to > 65535 {
		return nil, drop.Fragment
	}
	if n.from == 0 && !n.more {
		return n.data, drop.None
	}
	p := m.packets[id]
	if p == nil {
		p = &modelPacket{born: now}
		m.packets[id] = p
	}
	if p.dead {
		return nil, drop.FragmentOverlap
	}
	overlap, contradiction := false, false
	for _, o := range p.pieces {
		if o.from == n.from && o.more == n.more && bytes.Equal(o.data, n.data) {
			return nil, drop.Fragment
		}
		overlap = overlap || o.from < n.to && n.from < o.to
		contradiction = contradiction || !o.more && n.to > o.to || !n.more && o.to > n.to
	}
	switch {
	case overlap:
		m.lost[drop.FragmentOverlap] += len(p.pieces)
		p.dead, p.pieces = true, nil
		return nil, drop.FragmentOverlap
	case contradiction:
		return nil, drop.Fragment
	}
	p.pieces = append(p.pieces, n)
	slices.SortFunc(p.pieces, func(a, b modelPiece) int { return a.from - b.from })
	for _, o := range p.pieces {
		if o.from != len(payload) {
			return nil, drop.None
		}
		payload = append(payload, o.data...)
	}
	if p.pieces[len(p.pieces)-1].more {
		return nil, drop.None
	}
	delete(m.packets, id)
	return payload, drop.None
}

// FuzzReassemble compares the reassembler with the model. The input is fragments of five
// bytes each: identification and flags, offset (2), length, time that passes.
func FuzzReassemble(f *testing.F) {
	f.Add([]byte{4, 0, 0, 16, 0, 0, 0, 2, 5, 0})                               // two in order
	f.Add([]byte{0, 0, 2, 5, 0, 4, 0, 0, 16, 0})                               // and reversed
	f.Add([]byte{4, 0, 0, 16, 0, 4, 0, 1, 16, 0, 0, 0, 3, 5, 0})               // overlap
	f.Add([]byte{4, 0, 0, 16, 0, 4, 0, 0, 16, 0, 8 | 4, 0, 0, 16, 0})          // duplicates, one with other bytes
	f.Add([]byte{0, 0, 0, 16, 0, 0, 31, 255, 16, 0, 4, 0, 0, 15, 0})           // atomic, too long, of a wrong size
	f.Add([]byte{4, 0, 0, 8, 0, 5, 0, 0, 8, 59, 0, 0, 1, 8, 1, 1, 0, 1, 8, 0}) // times
	f.Fuzz(func(t *testing.T, script []byte) {
		r, lost := newReassembler(fragment.Limits{Bytes: 16 << 20, Pieces: 1 << 16})
		m := model{make(map[uint32]*modelPacket), make(counts)}
		now := noon
		for ; len(script) >= 5; script = script[5:] {
			flags, off, n := script[0], int(binary.BigEndian.Uint16(script[1:])&0x1fff)*8, int(script[3])
			now = now.Add(time.Duration(script[4]) * time.Second)
			piece := modelPiece{off, off + n, flags&4 != 0, make([]byte, n)}
			for i := range piece.data {
				piece.data[i] = byte(off + i + off>>8)
				if flags&8 != 0 {
					piece.data[i]++
				}
			}
			id := uint32(flags & 3)
			whole, got := r.Add(fragmentOf(id, off, piece.more, piece.data), now)
			payload, want := m.add(id, piece, now)
			if got != want || whole != nil != (payload != nil) {
				t.Fatalf("%v, %d bytes, want %v, %d", got, len(whole), want, len(payload))
			}
			if whole == nil {
				continue
			}
			pkt := append(packet6(0), payload...)
			binary.BigEndian.PutUint16(pkt[4:], uint16(len(payload)))
			if !bytes.Equal(whole, pkt) {
				t.Fatalf("\n got %x\nwant %x", whole, pkt)
			}
		}
		now = now.Add(fragment.Timeout)
		r.Expire(now)
		m.expire(now)
		if len(lost) != len(m.lost) {
			t.Fatalf("lost %v, want %v", lost, m.lost)
		}
		for reason, n := range m.lost {
			if lost[reason] != n {
				t.Fatalf("lost %v, want %v", lost, m.lost)
			}
		}
		if r.Held() != 0 || fragment.Allocated(r) != 0 {
			t.Fatalf("%d bytes held", r.Held())
		}
	})
}
