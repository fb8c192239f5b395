package ayiya

import (
	"math"
	"testing"
	"time"
)

func TestSkew(t *testing.T) {
	for _, c := range []struct {
		epoch uint32
		now   int64
		want  time.Duration
	}{
		{1700000000, 1700000000, 0},
		{1700000120, 1700000000, 120 * time.Second},
		{1699999880, 1700000000, -120 * time.Second},
		{0, 1700000000, -1700000000 * time.Second},                        // 1970
		{0x7fffffff, 0x80000001, -2 * time.Second},                        // 2038
		{0x80000001, 0x7fffffff, 2 * time.Second},                         //
		{0xfffffffe, 1<<32 + 3, -5 * time.Second},                         // 2106
		{3, 1<<32 - 2, 5 * time.Second},                                   //
		{7, 1<<33 + 7, 0},                                                 // 2242
		{1700000000 + 1<<31, 1700000000, math.MinInt32 * time.Second},     // the farthest
		{1700000000 + 1<<31 - 1, 1700000000, math.MaxInt32 * time.Second}, //
		{math.MaxUint32, 0, -1 * time.Second},                             // a clock at its beginning
		{uint32(1<<32 - 1700000000), -1700000000, 0},                      // before 1970
		{1<<32 + 1700000000 - 1<<31, 1700000000, math.MinInt32 * time.Second},
		{1<<32 + 1700000000 - (1<<31 - 1), 1700000000, -math.MaxInt32 * time.Second},
	} {
		if got := Skew(c.epoch, time.Unix(c.now, 0)); got != c.want {
			t.Errorf("epoch %d at %d: %v, want %v", c.epoch, c.now, got, c.want)
		}
	}
}

func TestRecent(t *testing.T) {
	const epoch = 1700000000
	var r Recent
	for i := range 40 { // few enough that none is forgotten
		m := signedAt(epoch+uint32(i), i)
		if age := r.Check(m); age != New {
			t.Fatalf("message %d: %d", i, age)
		}
		r.Add(m, DefaultWindow)
		if age := r.Check(m); age != Copy {
			t.Errorf("message %d again: %d", i, age)
		}
	}
	for i := range 40 {
		if age := r.Check(signedAt(epoch+uint32(i), i)); age != Copy {
			t.Errorf("message %d later: %d", i, age)
		}
	}
	if age := r.Check(signedAt(epoch+1, 0)); age != New {
		t.Errorf("the same signature in another second: %d", age)
	}
	if age := r.Check(signedAt(epoch-1000, 5000)); age != New { // nothing was forgotten
		t.Errorf("an early message: %d", age)
	}
}

// Of a client that only sends heartbeats no message is forgotten while it is valid.
func TestRecentOfHeartbeats(t *testing.T) {
	const interval, count = 20, 1000
	var r Recent
	for i := range count {
		epoch := uint32(math.MaxUint32 - interval*count/2 + interval*i)
		m := signedAt(epoch, i)
		if age := r.Check(m); age != New {
			t.Fatalf("heartbeat %d: %d", i, age)
		}
		r.Add(m, DefaultWindow)
		for k := max(0, i-2*120/interval); k <= i; k++ {
			if age := r.Check(signedAt(epoch-uint32(interval*(i-k)), k)); age != Copy {
				t.Errorf("heartbeat %d after heartbeat %d: %d", k, i, age)
			}
		}
	}
	if r.many != nil || r.forgot {
		t.Error("heartbeats need more than little memory")
	}
}

// Of many messages none that was forgotten is taken for a new one.
func TestRecentForgets(t *testing.T) {
	epoch := uint32(math.MaxUint32 - 50) // begins again meanwhile
	var r Recent
	const n = 5000
	for i := range n {
		at := epoch + uint32(i)/50
		m := signedAt(at, i)
		if age := r.Check(m); age == Copy || age == Old && r.until != at {
			t.Fatalf("message %d: %d", i, age)
		}
		r.Add(m, DefaultWindow)
	}
	copies := 0
	for i := range n {
		switch r.Check(signedAt(epoch+uint32(i)/50, i)) {
		case New:
			t.Errorf("message %d is new again", i)
		case Copy:
			copies++
		}
	}
	if copies < 100 || copies > recentSets*recentWays {
		t.Errorf("%d messages are remembered", copies)
	}
	if age := r.Check(signedAt(epoch+n/50+1, n)); age != New {
		t.Errorf("a message of the next second: %d", age)
	}
}
