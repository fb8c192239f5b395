package agent

import (
	"math/rand/v2"
	"sync/atomic"

	"sixfour/encap/header"
)

// Table has a bounded number of values of type T, by key. One goroutine may change it while
// others call Find.
type Table[T any] struct {
	sets  [][ways]atomic.Pointer[slot[T]]
	seed  [2]uint64
	count int
}

// slot is a value with its key.
type slot[T any] struct {
	key   header.Word6
	value T
}

// ways is how many values there are at most whose keys have the same place.
const ways = 8

// NewTable returns a table for n values, a power of two.
func NewTable[T any](n int) *Table[T] {
	return &Table[T]{sets: make([][ways]atomic.Pointer[slot[T]], n/ways), seed: [2]uint64{rand.Uint64(), rand.Uint64()}}
}

// Len returns how many values there are.
func (t *Table[T]) Len() int { return t.count }

// set returns the place for a key. The seed keeps others from choosing keys with the same
// place.
func (t *Table[T]) set(k header.Word6) *[ways]atomic.Pointer[slot[T]] {
	h := (k.Hi ^ t.seed[0]) * 0x9e3779b97f4a7c15
	h = (h ^ h>>29 ^ k.Lo ^ t.seed[1]) * 0xbf58476d1ce4e5b9
	h = (h ^ h>>32) * 0x94d049bb133111eb
	return &t.sets[(h>>32)&uint64(len(t.sets)-1)]
}

// Find returns the value with a key; nil: there is none.
func (t *Table[T]) Find(k header.Word6) *T {
	set := t.set(k)
	for i := range set {
		if s := set[i].Load(); s != nil && s.key == k {
			return &s.value
		}
	}
	return nil
}

// Add makes a value with a key that the table does not have, and calls begin for it before
// others can find it. If there is no room, it takes the place of another one, the first in
// the order of less of those that may go. The result is nil if none may.
func (t *Table[T]) Add(k header.Word6, begin func(*T), mayGo func(*T) bool, less func(a, b *T) bool) *T {
	set := t.set(k)
	at := -1
	for i := range set {
		s := set[i].Load()
		if s == nil {
			at = i
			break
		}
		if mayGo(&s.value) && (at < 0 || less(&s.value, &set[at].Load().value)) {
			at = i
		}
	}
	if at < 0 {
		return nil
	}
	if set[at].Load() == nil {
		t.count++
	}
	s := &slot[T]{key: k}
	begin(&s.value)
	set[at].Store(s)
	return &s.value
}

// All calls f for each value; if f returns false, the value is removed.
func (t *Table[T]) All(f func(*T) (keep bool)) {
	for i := range t.sets {
		for j := range t.sets[i] {
			if s := t.sets[i][j].Load(); s != nil && !f(&s.value) {
				t.sets[i][j].Store(nil)
				t.count--
			}
		}
	}
}
