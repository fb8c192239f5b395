package datapath

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"

	"sixfour/encap"
	"sixfour/encap/drop"
	"sixfour/encap/header"
)

// tableOf makes a table with one peer for each outermost layer.
func tableOf(layers ...encap.Layer) (*Table, []*End) {
	t := NewTable()
	var ends []*End
	for i := range layers {
		e := new(End)
		e.frame(layers[i].Kind)
		ends = append(ends, e)
		t.Add(e, &layers[i])
	}
	return t, ends
}

func TestFind(t *testing.T) {
	const here, there, elsewhere = "192.0.2.1", "198.51.100.2", "203.0.113.3"
	const here6, there6 = "2001:db8::1", "2001:db8::2"
	table, ends := tableOf(
		layer(encap.SixInFour, here, there, encap.GRE{}),                             // 0
		layer(encap.GREInFour, here, there, encap.GRE{}),                             // 1
		layer(encap.GREInFour, here, there, encap.GRE{Keyed: true, Key: 7}),          // 2
		layer(encap.GREInFour, here, there, encap.GRE{Keyed: true}),                  // 3
		layer(encap.SixInFour, here, elsewhere, encap.GRE{}),                         // 4
		layer(encap.SixInSix, here6, there6, encap.GRE{}),                            // 5
		layer(encap.GREInSix, here6, there6, encap.GRE{Keyed: true, Key: 1<<32 - 1}), // 6
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

// BenchmarkFind measures finding the peer of an arriving packet.
func BenchmarkFind(b *testing.B) {
	for _, n := range []int{1, 1000, 100_000} {
		layers, pkts := make([]encap.Layer, n), make([][]byte, n)
		for i := range n {
			remote := netip.AddrFrom4([4]byte{100, byte(i >> 16), byte(i >> 8), byte(i)}).String()
			layers[i] = layer(encap.GREInFour, "192.0.2.1", remote, encap.GRE{})
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

// A peer's drop counters take memory only after the first drop, and many goroutines can add
// to them.
func TestDropCounts(t *testing.T) {
	var c Counters
	if got := c.Traffic(); len(got.Drops) != 0 || c.drops.Load() != nil {
		t.Errorf("%+v", got)
	}
	done := make(chan struct{})
	for range 4 {
		go func() {
			for range 1000 {
				c.Dropped(drop.Spoof, 2)
			}
			done <- struct{}{}
		}()
	}
	for range 4 {
		<-done
	}
	if got := c.Traffic().Drops; got["spoof"] != 8000 || len(got) != 1 {
		t.Errorf("%v", got)
	}
}
