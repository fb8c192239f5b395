package datapath

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync/atomic"
	"testing"

	"sixfour/encap"
	"sixfour/encap/framing"
	"sixfour/encap/header"
)

// tableOf makes a table with one peer for each outermost layer.
func tableOf(layers ...encap.Layer) (*Table, []*End) {
	t := NewTable(len(layers))
	var ends []*End
	for i := range layers {
		ends = append(ends, endOf(layers[i]))
	}
	t.Replace(nil, ends)
	return t, ends
}

// endOf returns an entry of a path of its own.
func endOf(l encap.Layer) *End {
	e := &End{Path: new(Path), Arrives: new(atomic.Pointer[Wire])}
	e.Arrives.Store(&Wire{Layers: []encap.Layer{l}})
	e.set(&l)
	return e
}

func TestFind(t *testing.T) {
	const here, there, elsewhere = "192.0.2.1", "198.51.100.2", "203.0.113.3"
	const here6, there6 = "2001:db8::1", "2001:db8::2"
	table, ends := tableOf(
		layer(encap.SixInFour, here, there, framing.GRE{}),                             // 0
		layer(encap.GREInFour, here, there, framing.GRE{}),                             // 1
		layer(encap.GREInFour, here, there, framing.GRE{Keyed: true, Key: 7}),          // 2
		layer(encap.GREInFour, here, there, framing.GRE{Keyed: true}),                  // 3
		layer(encap.SixInFour, here, elsewhere, framing.GRE{}),                         // 4
		layer(encap.SixInSix, here6, there6, framing.GRE{}),                            // 5
		layer(encap.GREInSix, here6, there6, framing.GRE{Keyed: true, Key: 1<<32 - 1}), // 6
	)
	key := func(flags byte, key uint32) []byte {
		return binary.BigEndian.AppendUint32([]byte{flags, 0, 8, 0}, key)
	}
	for _, c := range []struct {
		name string
		pkt  []byte
		want int // -1: none
	}{
		{"by address", arriving(there, here, header.ProtoIPv6), 0},
		{"by another address", arriving(elsewhere, here, header.ProtoIPv6), 4},
		{"to another address", arriving(there, elsewhere, header.ProtoIPv6), -1},
		{"by protocol", arriving(there, here, header.ProtoIPv4), -1},
		{"no key", arriving(there, here, header.GRE, 0, 0, 8, 0), 1},
		{"key 7", arriving(there, here, header.GRE, key(0x20, 7)...), 2},
		{"key 0", arriving(there, here, header.GRE, key(0x20, 0)...), 3},
		{"key cut off", arriving(there, here, header.GRE, 0x20, 0, 8, 0), 3},
		{"key of nobody", arriving(there, here, header.GRE, key(0x20, 8)...), 3}, // that entry drops it
		{"no GRE header", arriving(there, here, header.GRE), 1},
		{"IPv6", arriving(there6, here6, header.ProtoIPv6), 5},
		{"IPv6, GRE", arriving(there6, here6, header.GRE, key(0x20, 1<<32-1)...), 6},
		{"IPv6, another protocol", arriving(there6, here6, header.ProtoIPv4), -1},
		{"IPv6, the other way", arriving(here6, there6, header.ProtoIPv6), -1},
	} {
		got := table.Find(c.pkt, 0)
		if c.want < 0 && got != nil || c.want >= 0 && got != ends[c.want] {
			t.Errorf("%s: %+v, want that of %d", c.name, got, c.want)
		}
	}
}

// A peer with which there is a tunnel in UDP can be a node of an automatic tunnel at other ports,
// too: packets to these go to the latter.
func TestFindBeside(t *testing.T) {
	local, remote := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("198.51.100.1")
	fixed := endOf(encap.Layer{Kind: encap.SixInFour.With(framing.FOU{Local: 5555, Remote: 5555}), Local: local, Remote: remote})
	l := encap.Layer{Kind: encap.InLISP, Local: local, Resolver: &StaticHop{}}
	automatic := endOf(l)
	table := NewTable(1)
	table.Replace(nil, []*End{fixed})
	at := func(port uint16) []byte {
		return arriving("198.51.100.1", "192.0.2.1", header.UDP, 16, 246, byte(port>>8), byte(port), 0, 8, 0, 0)
	}
	for _, port := range []uint16{5555, 4342, 9} {
		if got := table.Find(at(port), 0); got != fixed {
			t.Errorf("alone, port %d: %p", port, got)
		}
	}
	table.Replace(nil, []*End{automatic})
	for port, want := range map[uint16]*End{5555: fixed, 4341: nil, 4342: nil} {
		if got := table.Find(at(port), 0); got != want {
			t.Errorf("port %d: %p, want %p", port, got, want)
		}
	}
	if !slices.Contains(table.toAny(local), automatic) {
		t.Error("the automatic tunnel has no entry")
	}
}

// An entry that is replaced is not found any more, one for a former address only if there is
// no other, and all others are found.
func TestReplace(t *testing.T) {
	const n = 3000
	one := func(i int) (encap.Layer, []byte) {
		remote := netip.AddrFrom4([4]byte{100, 64, byte(i >> 8), byte(i)}).String()
		return layer(encap.SixInFour, "192.0.2.1", remote, framing.GRE{}), arriving(remote, "192.0.2.1", header.ProtoIPv6)
	}
	table, present := NewTable(n), make(map[int]*End)
	r := rand.New(rand.NewPCG(1, 2))
	for range 4 * n {
		i := r.IntN(n)
		l, _ := one(i)
		old := present[i]
		switch {
		case old == nil:
			present[i] = endOf(l)
			table.Replace(nil, []*End{present[i]})
		case r.IntN(3) == 0:
			delete(present, i)
			table.Replace([]*End{old}, nil)
		default:
			present[i] = endOf(l)
			table.Replace([]*End{old}, []*End{present[i]})
		}
	}
	for i := range n {
		_, pkt := one(i)
		if got := table.Find(pkt, 0); got != present[i] {
			t.Fatalf("%d: %p, want %p", i, got, present[i])
		}
	}
	l, pkt := one(n)
	former, present1, anew := endOf(l), endOf(l), endOf(l)
	former.former = true
	for _, step := range []struct{ old, fresh, want *End }{
		{nil, former, former}, {nil, present1, present1}, {present1, anew, anew}, {anew, nil, former}, {former, nil, nil},
	} {
		var old, fresh []*End
		if step.old != nil {
			old = []*End{step.old}
		}
		if step.fresh != nil {
			fresh = []*End{step.fresh}
		}
		table.Replace(old, fresh)
		if got := table.Find(pkt, 0); got != step.want {
			t.Errorf("%p, want %p", got, step.want)
		}
	}
	if table.over4.n != len(present) {
		t.Errorf("%d entries, want %d", table.over4.n, len(present))
	}
}

// Readers find every entry that stays while others come and go.
func TestReplaceWhileRead(t *testing.T) {
	l := layer(encap.SixInFour, "192.0.2.1", "198.51.100.1", framing.GRE{})
	table, pkt := NewTable(1), arriving("198.51.100.1", "192.0.2.1", header.ProtoIPv6)
	stays := endOf(l)
	table.Replace(nil, []*End{stays})
	stop, missed := make(chan struct{}), make(chan int)
	for range 2 {
		go func() {
			n := 0
			for {
				select {
				case <-stop:
					missed <- n
					return
				default:
					if table.Find(pkt, 0) != stays {
						n++
					}
				}
			}
		}()
	}
	var others []*End
	for i := range 20_000 {
		e := endOf(layer(encap.SixInFour, "192.0.2.1", netip.AddrFrom4([4]byte{100, byte(i >> 16), byte(i >> 8), byte(i)}).String(), framing.GRE{}))
		table.Replace(nil, []*End{e})
		if others = append(others, e); i%3 == 0 {
			table.Replace(others[:1], nil)
			others = others[1:]
		}
	}
	close(stop)
	for range 2 {
		if n := <-missed; n > 0 {
			t.Errorf("an entry that stays was not found %d times", n)
		}
	}
}

// BenchmarkReplace measures the change of one path of many.
func BenchmarkReplace(b *testing.B) {
	for _, n := range []int{1000, 100_000} {
		layers := make([]encap.Layer, n)
		for i := range n {
			layers[i] = layer(encap.GREInFour, "192.0.2.1", netip.AddrFrom4([4]byte{100, byte(i >> 16), byte(i >> 8), byte(i)}).String(), framing.GRE{})
		}
		table, ends := tableOf(layers...)
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				at := i * 7919 % n
				fresh := endOf(layers[at])
				table.Replace(ends[at:at+1], []*End{fresh})
				ends[at] = fresh
			}
		})
	}
}

// BenchmarkFind measures finding the peer of an arriving packet.
func BenchmarkFind(b *testing.B) {
	for _, n := range []int{1, 1000, 100_000} {
		layers, pkts := make([]encap.Layer, n), make([][]byte, n)
		for i := range n {
			remote := netip.AddrFrom4([4]byte{100, byte(i >> 16), byte(i >> 8), byte(i)}).String()
			layers[i] = layer(encap.GREInFour, "192.0.2.1", remote, framing.GRE{})
			pkts[i] = arriving(remote, "192.0.2.1", header.GRE, 0, 0, 8, 0)
		}
		table, _ := tableOf(layers...)
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if table.Find(pkts[i*7919%n], 0) == nil {
					b.Fatal("not found")
				}
			}
		})
	}
}
