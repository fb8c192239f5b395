package selection

import (
	"math"
	"testing"
)

// counts returns how many slots each weight has.
func counts(table *[Slots]uint8) (n [MaxPaths]int) {
	for _, i := range table {
		n[i]++
	}
	return n
}

// Each weight has about its share of the slots.
func TestDivide(t *testing.T) {
	for _, weights := range [][]float64{
		{1}, {1, 1}, {1, 1, 1}, {1, 0, 1}, {3, 1}, {1, 10}, {0.5, 1, 2}, {1, 1, 1, 1, 1, 1, 1, 1}, {0, 0, 0, 0, 0, 0, 0, 1},
	} {
		sum := 0.0
		for _, w := range weights {
			sum += w
		}
		got := counts(Divide(weights))
		for i, w := range weights {
			want := w / sum * Slots
			if w == 0 && got[i] != 0 || math.Abs(float64(got[i])-want) > 25 {
				t.Errorf("%v: weight %d has %d slots, want about %.0f", weights, i, got[i], want)
			}
		}
	}
}

// When a weight becomes smaller, or 0, only its own slots change. When it comes back, they are
// as before.
func TestDivideAgain(t *testing.T) {
	before := Divide([]float64{1, 2, 1})
	for _, w := range []float64{1.5, 1, 0.1, 0} {
		moved := 0
		for slot, i := range Divide([]float64{1, w, 1}) {
			if i == before[slot] {
				continue
			}
			if moved++; before[slot] != 1 {
				t.Fatalf("weight %v: slot %d has changed from %d to %d", w, slot, before[slot], i)
			}
		}
		if moved == 0 {
			t.Errorf("weight %v: nothing has changed", w)
		}
	}
	if *Divide([]float64{1, 2, 1}) != *before {
		t.Error("the same weights have other slots")
	}
}
