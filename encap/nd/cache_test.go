package nd

import (
	"testing"
	"time"

	"sixfour/encap/header"
)

// Consecutive addresses fill the cache, whatever the factors of its hash are.
func TestCacheSpreads(t *testing.T) {
	for _, factor := range []uint64{1, 3, 1<<63 | 1, 1<<62 | 1, 1<<63/3 | 1, 1<<32 | 1, 1<<55 | 1, 1<<33 | 3, 0x9e3779b97f4a7c15, 0xfffffffffffffffd} {
		c := NewCache()
		c.Factor = [2]uint64{factor, factor}
		for i := range 10 << setBits * Ways {
			c.Add(header.Word6{Hi: 0x20010db8 << 32, Lo: uint64(i) + 1<<32}, time.Time{})
		}
		n := 0
		c.All(func(*Neighbour) { n++ })
		if n < Ways<<setBits*97/100 {
			t.Errorf("factor %#x: %d of %d entries are used", factor, n, Ways<<setBits)
		}
	}
}
