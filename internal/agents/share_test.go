package agents

import (
	"net/netip"
	"testing"
	"time"
)

// sourceNumber returns one of many addresses.
func sourceNumber(n int) netip.Addr {
	return netip.AddrFrom4([4]byte{203, byte(n >> 16), byte(n >> 8), byte(n)})
}

// A source that floods is limited, and others are not.
func TestShares(t *testing.T) {
	now := time.Unix(1000, 0)
	s := newShares(100, now)
	var noisy, quiet, asked int
	for range 10 * 1000 { // ten seconds, in milliseconds
		now = now.Add(time.Millisecond)
		for range 10 {
			if s.allow(sourceNumber(0), now) {
				noisy++
			}
		}
		if now.UnixMilli()%100 == 0 {
			asked++
			if s.allow(sourceNumber(asked), now) {
				quiet++
			}
		}
	}
	// It has two places, each of which is full at the beginning.
	if most := 2 * 11 * 100; noisy < 1000 || noisy > most {
		t.Errorf("%d messages of the source that floods, at most %d are within its limit", noisy, most)
	}
	if quiet != asked {
		t.Errorf("%d of %d messages of others", quiet, asked)
	}
	if s.allow(sourceNumber(0), now) || !s.allow(sourceNumber(0), now.Add(time.Second)) {
		t.Error("the source that floods is not limited, or for ever")
	}
	if n := testing.AllocsPerRun(100, func() { s.allow(sourceNumber(1), now) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// Twenty sources that flood shut out few of many others.
func TestSharesCollisions(t *testing.T) {
	now := time.Unix(1000, 0)
	s := newShares(100, now)
	for n := range sharesOfBusy {
		for range 1000 {
			s.allow(sourceNumber(n), now)
		}
	}
	out := 0
	const others = 10_000
	for n := range others {
		if !s.allow(sourceNumber(1000+n), now) {
			out++
		}
	}
	if out > others/100 {
		t.Errorf("%d of %d sources are shut out", out, others)
	}
}
