package fragment_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"sixfour/encap/drop"
	"sixfour/encap/fragment"
	"sixfour/encap/header"
)

var noon = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

// counts holds how many fragments were lost for each reason.
type counts map[drop.Reason]int

func newReassembler(l fragment.Limits) (*fragment.Reassembler, counts) {
	lost := make(counts)
	return fragment.NewReassembler(l, func(r drop.Reason, n int) { lost[r] += n }), lost
}

// cut is fragment.IPv6 with a copy of each fragment.
func cut(pkt []byte, mtu int, id uint32) (all []header.IPv6) {
	for f := range fragment.IPv6(pkt, mtu, id, make([]byte, mtu), 0) {
		all = append(all, bytes.Clone(f))
	}
	return all
}

// fragmentOf returns a fragment with any offset, flag and payload.
func fragmentOf(id uint32, off int, more bool, payload []byte, exts ...ext) header.IPv6 {
	h := make([]byte, 8)
	binary.BigEndian.PutUint16(h[2:], uint16(off))
	if more {
		h[3] |= 1
	}
	binary.BigEndian.PutUint32(h[4:], id)
	ip := packet6(0, append(slices.Clone(exts), ext{header.FragmentHdr, h})...)
	ip = append(ip, payload...)
	binary.BigEndian.PutUint16(ip[4:], uint16(len(ip)-header.IPv6Len))
	return ip
}

// frag returns a fragment whose payload depends on its offset.
func frag(off, n int, more bool) header.IPv6 {
	return fragmentOf(7, off, more, packet6(off + n)[header.IPv6Len+off:])
}

// alter changes a fragment's last byte.
func alter(f header.IPv6) header.IPv6 { f[len(f)-1] ^= 1; return f }

// mark sets a fragment's ECN field.
func mark(f header.IPv6, ecn byte) header.IPv6 { f.SetECN(ecn); return f }

// step is a fragment and the expected result. whole is the size of the payload of the
// packet that it completes.
type step struct {
	f     header.IPv6
	want  drop.Reason
	whole int
	after time.Duration
}

func TestReassemble(t *testing.T) {
	const none, over, bad, limit = drop.None, drop.FragmentOverlap, drop.Fragment, drop.FragmentLimit
	for _, c := range []struct {
		name  string
		steps []step
		lost  counts // fragments that were held, after two minutes
	}{
		{"in order", []step{{f: frag(0, 16, true)}, {f: frag(16, 8, true)}, {f: frag(24, 5, false), whole: 29}}, nil},
		{"reversed", []step{{f: frag(24, 5, false)}, {f: frag(16, 8, true)}, {f: frag(0, 16, true), whole: 29}}, nil},
		{"the middle last", []step{{f: frag(24, 5, false)}, {f: frag(0, 16, true)}, {f: frag(16, 8, true), whole: 29}}, nil},
		{"the last first", []step{{f: frag(24, 5, false)}, {f: frag(0, 16, true)}, {f: frag(16, 8, true), whole: 29}}, nil},
		{"across blocks", []step{{f: frag(1232, 1232, true)}, {f: frag(2464, 600, false)}, {f: frag(0, 1232, true), whole: 3064}}, nil},
		{"65535 bytes", []step{{f: frag(32768, 32767, false)}, {f: frag(0, 32768, true), whole: 65535}}, nil},
		{"twice the same identification", []step{{f: frag(0, 8, true)}, {f: frag(8, 5, false), whole: 13}, {f: frag(8, 5, false)}, {f: frag(0, 8, true), whole: 13}}, nil},

		{"one alone", []step{{f: frag(0, 16, true)}}, counts{drop.FragmentTimeout: 1}},
		{"a gap", []step{{f: frag(0, 8, true)}, {f: frag(16, 8, false)}}, counts{drop.FragmentTimeout: 2}},
		{"no end", []step{{f: frag(0, 8, true)}, {f: frag(8, 8, true)}, {f: frag(16, 8, true)}}, counts{drop.FragmentTimeout: 3}},
		{"in the last moment", []step{{f: frag(0, 8, true)}, {f: frag(8, 8, false), whole: 16, after: fragment.Timeout - 1}}, nil},
		{"too late", []step{{f: frag(0, 8, true)}, {f: frag(8, 8, false), after: fragment.Timeout}}, counts{drop.FragmentTimeout: 2}},

		{"duplicate", []step{{f: frag(0, 8, true)}, {f: frag(0, 8, true), want: bad}, {f: frag(8, 5, false), whole: 13}}, nil},
		{"duplicate across blocks", []step{{f: frag(0, 1232, true)}, {f: frag(0, 1232, true), want: bad}, {f: frag(1232, 5, false), whole: 1237}}, nil},
		{"duplicate of the last", []step{{f: frag(8, 5, false)}, {f: frag(8, 5, false), want: bad}, {f: frag(0, 8, true), whole: 13}}, nil},
		{"duplicate with other bytes", []step{{f: frag(0, 8, true)}, {f: alter(frag(0, 8, true)), want: over}, {f: frag(8, 5, false), want: over}}, counts{over: 1}},
		{"other bytes in the third block", []step{{f: frag(0, 1232, true)}, {f: alter(frag(0, 1232, true)), want: over}}, counts{over: 1}},
		{"duplicate of the last, but not last", []step{{f: frag(8, 8, false)}, {f: frag(8, 8, true), want: over}}, counts{over: 1}},
		{"duplicate of one, but last", []step{{f: frag(8, 8, true)}, {f: frag(8, 8, false), want: over}}, counts{over: 1}},

		{"overlaps the one before", []step{{f: frag(0, 16, true)}, {f: frag(8, 16, true), want: over}}, counts{over: 1}},
		{"overlaps the one after", []step{{f: frag(8, 16, true)}, {f: frag(0, 16, true), want: over}}, counts{over: 1}},
		{"inside one", []step{{f: frag(0, 32, true)}, {f: frag(8, 8, true), want: over}}, counts{over: 1}},
		{"at the start of one", []step{{f: frag(0, 32, true)}, {f: frag(0, 8, true), want: over}}, counts{over: 1}},
		{"at the end of one", []step{{f: frag(0, 32, true)}, {f: frag(24, 8, true), want: over}}, counts{over: 1}},
		{"around one", []step{{f: frag(8, 8, true)}, {f: frag(0, 32, true), want: over}}, counts{over: 1}},
		{"around several", []step{{f: frag(8, 8, true)}, {f: frag(24, 8, true)}, {f: frag(0, 64, true), want: over}}, counts{over: 2}},
		{"by one byte", []step{{f: frag(8, 9, false)}, {f: frag(16, 8, true), want: over}}, counts{over: 1}},
		{"of the teardrop kind", []step{{f: frag(0, 40, true)}, {f: frag(24, 4, false), want: over}}, counts{over: 1}},
		{"what comes after an overlap", []step{{f: frag(0, 16, true)}, {f: frag(8, 16, true), want: over}, {f: frag(16, 8, false), want: over}, {f: frag(0, 16, true), want: over, after: fragment.Timeout - 1}}, counts{over: 1}},
		{"until its time is over", []step{{f: frag(0, 16, true)}, {f: frag(8, 16, true), want: over}, {f: frag(0, 16, true), after: fragment.Timeout}, {f: frag(16, 8, false), whole: 24}}, counts{over: 1}},

		{"no payload", []step{{f: frag(8, 0, false), want: bad}}, nil},
		{"no payload, more to come", []step{{f: frag(8, 0, true), want: bad}}, nil},
		{"not a multiple of 8", []step{{f: frag(0, 12, true), want: bad}}, nil},
		{"not a multiple of 8 costs itself", []step{{f: frag(0, 8, true)}, {f: frag(8, 12, true), want: bad}, {f: frag(8, 5, false), whole: 13}}, nil},
		{"beyond 65535", []step{{f: frag(65528, 8, false), want: bad}}, nil},
		{"beyond 65535 with the headers", []step{{f: fragmentOf(7, 65520, false, make([]byte, 8), ext{header.HopByHop, hopByHop}), want: bad}}, nil},
		{"beyond 65535 with the headers of the first", []step{{f: frag(32768, 32767, false)}, {f: fragmentOf(7, 0, true, make([]byte, 32768), ext{header.HopByHop, hopByHop}), want: bad}}, counts{bad: 1}},
		{"beyond the end", []step{{f: frag(8, 8, false)}, {f: frag(16, 8, true), want: bad}, {f: frag(0, 8, true), whole: 16}}, nil},
		{"an end in front of others", []step{{f: frag(16, 8, true)}, {f: frag(8, 8, false), want: bad}, {f: frag(0, 16, true)}, {f: frag(24, 8, false), whole: 32}}, nil},
		{"two ends", []step{{f: frag(8, 8, false)}, {f: frag(24, 8, false), want: bad}, {f: frag(0, 8, true), whole: 16}}, nil},
		{"two ends, the second sooner", []step{{f: frag(24, 8, false)}, {f: frag(8, 8, false), want: bad}, {f: frag(0, 24, true), whole: 32}}, nil},

		{"a fifth fragment where four may be", []step{{f: frag(0, 8, true)}, {f: frag(8, 8, true)}, {f: frag(16, 8, true)}, {f: frag(24, 8, true)},
			{f: frag(32, 8, false), want: limit}, {f: frag(40, 8, true), want: limit}}, counts{limit: 4}},

		{"atomic", []step{{f: frag(0, 20, false), whole: 20}}, nil},
		{"atomic between others", []step{{f: frag(0, 8, true)}, {f: frag(0, 20, false), whole: 20}, {f: frag(8, 5, false), whole: 13}}, nil},
		{"atomic without payload", []step{{f: frag(0, 0, false), want: bad}}, nil},
		{"no fragment", []step{{f: packet6(20), whole: 20}}, nil},

		{"fragment header cut", []step{{f: packet6(0, ext{header.FragmentHdr, []byte{4, 0, 0, 1}}), want: drop.BadExtension}}, nil},
		{"a header that leads out", []step{{f: packet6(0, ext{header.Routing, []byte{44, 9, 4, 0, 0, 0, 0, 0}}), want: drop.BadExtension}}, nil},

		{"all marked", []step{{f: mark(frag(0, 8, true), header.CE)}, {f: mark(frag(8, 5, false), header.CE), whole: 13}}, nil},
		{"one marked of those that can be", []step{{f: mark(frag(0, 8, true), header.ECT0)}, {f: mark(frag(8, 5, false), header.CE), whole: 13}}, nil},
		{"one marked of those that cannot", []step{{f: mark(frag(0, 8, true), header.NotECT)}, {f: mark(frag(8, 5, false), header.CE), want: drop.Congestion}}, counts{drop.Congestion: 1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, lost := newReassembler(fragment.Limits{Pieces: 4})
			now := noon
			var ecn byte
			for i, s := range c.steps {
				now = now.Add(s.after)
				before := bytes.Clone(s.f)
				whole, reason := r.Add(s.f, now)
				if reason != s.want || len(whole) != 0 != (s.whole > 0) {
					t.Fatalf("step %d: %v and %d bytes, want %v and %d", i, reason, len(whole), s.want, s.whole)
				}
				if !bytes.Equal(s.f, before) {
					t.Errorf("step %d: the fragment was changed", i)
				}
				ecn = max(ecn, s.f.TrafficClass()&header.ECNMask)
				if s.whole > 0 {
					want := packet6(s.whole)
					want.SetECN(ecn)
					if !bytes.Equal(whole, want) {
						t.Errorf("step %d:\n got %x\nwant %x", i, whole, want)
					}
				}
			}
			r.Expire(now.Add(2 * fragment.Timeout))
			if fmt.Sprint(lost) != fmt.Sprint(c.lost) {
				t.Errorf("lost %v, want %v", lost, c.lost)
			}
			if r.Held() != 0 {
				t.Errorf("%d bytes held in the end", r.Held())
			}
		})
	}
}

// TestReassembleHeaders: the headers before the fragment header are restored, with the
// next header of the fragment of offset 0, whatever the other fragments have.
func TestReassembleHeaders(t *testing.T) {
	hbh, dst, rt := ext{header.HopByHop, hopByHop}, ext{header.DestOptions, limit}, ext{header.Routing, routing}
	for _, exts := range [][]ext{nil, {dst}, {hbh}, {rt}, {hbh, dst}, {hbh, dst, rt, dst}} {
		pkt := packet6(3000, exts...)
		frags := cut(pkt, 1280, 1)
		r, _ := newReassembler(fragment.Limits{})
		for i, f := range []header.IPv6{frags[2], frags[1], frags[0]} {
			whole, reason := r.Add(f, noon)
			if reason != drop.None || i < 2 && whole != nil || i == 2 && !bytes.Equal(whole, pkt) {
				t.Fatalf("%d headers, fragment %d: %v\n got %x\nwant %x", len(exts), i, reason, whole, pkt)
			}
		}
	}
	r, _ := newReassembler(fragment.Limits{})
	later := frag(8, 8, false)
	later[40] = header.ICMPv6
	r.Add(later, noon)
	if whole, _ := r.Add(frag(0, 8, true), noon); !bytes.Equal(whole, packet6(16)) {
		t.Errorf("%x", whole)
	}
}

// TestReassembleKey: both addresses and the identification distinguish packets.
func TestReassembleKey(t *testing.T) {
	for _, at := range []int{8, 23, 24, 39, 44, 47} { // source, destination, identification
		r, lost := newReassembler(fragment.Limits{})
		other := frag(8, 5, false)
		other[at] ^= 0x80
		r.Add(frag(0, 8, true), noon)
		if whole, reason := r.Add(other, noon); whole != nil || reason != drop.None {
			t.Errorf("byte %d does not matter: %v %x", at, reason, whole)
		}
		r.Expire(noon.Add(fragment.Timeout))
		if lost[drop.FragmentTimeout] != 2 {
			t.Errorf("byte %d: %v", at, lost)
		}
	}
}

// TestReassembleRandom: packets that are cut and shuffled are reassembled unchanged.
func TestReassembleRandom(t *testing.T) {
	rnd := rand.New(rand.NewPCG(5, 6))
	r, lost := newReassembler(fragment.Limits{})
	for round := range 200 {
		packets := make(map[uint32][]byte)
		var frags []header.IPv6
		for range 1 + rnd.IntN(8) {
			id, mtu := rnd.Uint32(), 1280+rnd.IntN(300)
			size := mtu + rnd.IntN(8000)
			pkt := packet6(size, ext{header.DestOptions, limit})
			for i := 48; i < len(pkt); i++ {
				pkt[i] = byte(rnd.Uint32())
			}
			packets[id] = pkt
			frags = append(frags, cut(pkt, mtu, id)...)
		}
		rnd.Shuffle(len(frags), func(i, j int) { frags[i], frags[j] = frags[j], frags[i] })
		for _, f := range frags {
			id := binary.BigEndian.Uint32(f[44:])
			whole, reason := r.Add(f, noon)
			if reason != drop.None {
				t.Fatalf("round %d: %v", round, reason)
			}
			if whole != nil {
				if !bytes.Equal(whole, packets[id]) {
					t.Fatalf("round %d:\n got %x\nwant %x", round, whole, packets[id])
				}
				delete(packets, id)
			}
		}
		if len(packets) != 0 || r.Held() != 0 {
			t.Fatalf("round %d: %d packets did not come out", round, len(packets))
		}
	}
	if len(lost) != 0 {
		t.Errorf("lost %v", lost)
	}
}

// TestReassembleFlood: with any number of fragments of different packets, memory stays
// within its limit, each fragment is counted, and a later packet is still reassembled.
func TestReassembleFlood(t *testing.T) {
	big, small := packet6(1400)[40:], packet6(16)[40:]
	for _, c := range []struct {
		name   string
		limits fragment.Limits
		make   func(i int) header.IPv6
	}{
		{"small fragments", fragment.Limits{}, func(i int) header.IPv6 { return fragmentOf(uint32(i), 0, true, small) }},
		{"large fragments", fragment.Limits{}, func(i int) header.IPv6 { return fragmentOf(uint32(i), 0, true, big) }},
		{"of all sizes", fragment.Limits{}, func(i int) header.IPv6 { return fragmentOf(uint32(i/2), 8+i%2*1400, true, big[:8+i%170*8]) }},
		{"claims of 65535", fragment.Limits{}, func(i int) header.IPv6 { return fragmentOf(uint32(i), 65520, false, small[:8]) }},
		{"few packets", fragment.Limits{Packets: 3}, func(i int) header.IPv6 { return fragmentOf(uint32(i), 0, true, small) }},
		{"little memory", fragment.Limits{Bytes: 70000}, func(i int) header.IPv6 { return fragmentOf(uint32(i), 0, true, big) }},
		{"overlaps", fragment.Limits{}, func(i int) header.IPv6 { return fragmentOf(uint32(i/2), i%2*8, true, small) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, lost := newReassembler(c.limits)
			bound := c.limits.Bytes
			if bound == 0 {
				bound = fragment.DefaultLimits.Bytes
			}
			refused := 0
			const flood = 20000
			for i := range flood {
				whole, reason := r.Add(c.make(i), noon)
				if whole != nil {
					t.Fatal("complete")
				}
				if reason != drop.None {
					refused++
				}
				if r.Held() > bound || fragment.Allocated(r) > bound {
					t.Fatalf("%d bytes held, %d allocated, of %d", r.Held(), fragment.Allocated(r), bound)
				}
			}
			pkt := packet6(4000)
			var got []byte
			for _, f := range cut(pkt, 1280, 1<<31) {
				got, _ = r.Add(f, noon)
			}
			if !bytes.Equal(got, pkt) {
				t.Error("a packet after the flood does not get through")
			}
			r.Expire(noon.Add(fragment.Timeout))
			sum := refused
			for _, n := range lost {
				sum += n
			}
			if sum != flood || r.Held() != 0 || fragment.Allocated(r) != 0 {
				t.Errorf("%d accounted for, %d refused, %v; %d bytes held", sum, refused, lost, r.Held())
			}
		})
	}
}

// TestReassembleTooLargeForLimit: a packet that exceeds the limit affects no other
// packet.
func TestReassembleTooLargeForLimit(t *testing.T) {
	r, lost := newReassembler(fragment.Limits{Bytes: 10000})
	r.Add(frag(0, 8, true), noon)
	if _, reason := r.Add(fragmentOf(8, 0, true, make([]byte, 16000)), noon); reason != drop.FragmentLimit || len(lost) != 0 {
		t.Errorf("%v, lost %v", reason, lost)
	}
	r.Add(fragmentOf(9, 0, true, make([]byte, 8000)), noon)
	if _, reason := r.Add(fragmentOf(9, 8000, true, make([]byte, 8000)), noon); reason != drop.FragmentLimit || lost[drop.FragmentLimit] != 1 {
		t.Errorf("%v, lost %v", reason, lost)
	}
	if whole, _ := r.Add(frag(8, 8, false), noon); whole == nil {
		t.Error("its neighbour suffered")
	}
}

// TestReassembleEvictsOldest: the oldest packet is evicted first, but not the one to
// which a fragment is being added.
func TestReassembleEvictsOldest(t *testing.T) {
	r, lost := newReassembler(fragment.Limits{Bytes: 5400})
	for id := range uint32(3) {
		r.Add(fragmentOf(id, 0, true, make([]byte, 800)), noon)
	}
	r.Add(fragmentOf(0, 800, true, make([]byte, 1600)), noon)
	if whole, _ := r.Add(fragmentOf(0, 2400, false, make([]byte, 8)), noon); whole == nil {
		t.Error("the oldest did not get through")
	}
	if whole, _ := r.Add(fragmentOf(2, 800, false, make([]byte, 8)), noon); whole == nil || lost[drop.FragmentLimit] != 1 {
		t.Errorf("lost %v", lost)
	}
}

func TestReassembleNoAllocs(t *testing.T) {
	r, _ := newReassembler(fragment.Limits{})
	frags := cut(packet6(3000), 1280, 1)
	if n := testing.AllocsPerRun(100, func() {
		for _, f := range frags {
			r.Add(f, noon)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkIPv6(b *testing.B) {
	pkt, buf := packet6(1400), make([]byte, 128+1280)
	b.ReportAllocs()
	for b.Loop() {
		for f := range fragment.IPv6(pkt, 1280, 7, buf, 128) {
			_ = f
		}
	}
}

// BenchmarkAdd measures the cost of one fragment: of packets in two pieces; of a flood
// of fragments of different packets; of a packet in many pieces in the worst order; of
// overlaps.
func BenchmarkAdd(b *testing.B) {
	pair := cut(packet6(1460), 1480, 1) // a packet of 1460 bytes in 4in6in4 over 1500
	many := make([]header.IPv6, 63)
	for i := range many {
		many[i] = frag(i%2*8*64+i/2*8, 8, true)
	}
	for _, c := range []struct {
		name  string
		frags []header.IPv6
		ids   bool
	}{
		{"pair", pair, false},
		{"flood/8", []header.IPv6{frag(0, 8, true)}, true},
		{"flood/1400", []header.IPv6{frag(0, 1400, true)}, true},
		{"pieces", many, true},
		{"overlap", []header.IPv6{frag(0, 16, true), frag(8, 16, true)}, true},
	} {
		b.Run(c.name, func(b *testing.B) {
			r, _ := newReassembler(fragment.Limits{})
			b.ReportAllocs()
			i, id := 0, uint32(0)
			for b.Loop() {
				f := c.frags[i]
				if c.ids {
					binary.BigEndian.PutUint32(f[44:], id)
				}
				r.Add(f, noon)
				if i++; i == len(c.frags) {
					i, id = 0, id+1
				}
			}
		})
	}
}
