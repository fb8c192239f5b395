package selection

import (
	"math"
	"sync"
)

// Slots is the number of parts into which the flows to a peer are divided. A flow belongs to
// one of them by its hash.
const Slots = 256

// Divide returns the index of the weight to which each slot belongs. There are at most
// MaxPaths weights, at least one of which is not 0.
//
// Each weight has a score for each slot, and the highest one has the slot (rendezvous
// hashing, or highest random weight). So if a weight becomes smaller, only slots of its own
// change, and if it becomes larger, slots change only to it.
func Divide(weights []float64) *[Slots]uint8 {
	table := new([Slots]uint8)
	logs := logarithms()
	for slot := range table {
		best := math.Inf(-1)
		for i, w := range weights {
			if w == 0 {
				continue
			}
			if score := logs[i][slot] / w; score > best {
				best, table[slot] = score, uint8(i)
			}
		}
	}
	return table
}

// MaxPaths is the largest number of paths to a peer.
const MaxPaths = 8

// logarithms returns for each path and slot the logarithm of a constant that is uniformly
// distributed between 0 and 1. The quotient of it and a weight is the largest of several
// with a probability proportional to the weight.
var logarithms = sync.OnceValue(func() *[MaxPaths][Slots]float64 {
	logs := new([MaxPaths][Slots]float64)
	for i := range logs {
		for slot := range logs[i] {
			x := scramble(uint64(i)<<32 | uint64(slot))
			logs[i][slot] = math.Log((float64(x>>11) + 0.5) / (1 << 53))
		}
	}
	return logs
})

// scramble returns a number in which each bit depends on all bits of x.
func scramble(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>32) * 0xd6e8feb86659fd93
	x = (x ^ x>>32) * 0xd6e8feb86659fd93
	return x ^ x>>32
}
