package fragment_test

import (
	"bytes"
	"testing"
	"time"

	"sixfour/encap/fragment"
	"sixfour/encap/header"
)

// TestOnTimeout: if a packet times out after its first fragment has arrived, that
// fragment is rebuilt exactly.
func TestOnTimeout(t *testing.T) {
	long := fragmentOf(7, 0, true, make([]byte, 1200), ext{header.DestOptions, []byte{0, 0, 1, 4, 0, 0, 0, 0}})
	for _, c := range []struct {
		name string
		came []header.IPv6
		want []byte // nil: its sender gets no error
	}{
		{"the first", []header.IPv6{frag(0, 16, true)}, frag(0, 16, true)},
		{"behind an option, in several blocks", []header.IPv6{long}, long},
		{"the first, later than others", []header.IPv6{frag(16, 8, true), frag(0, 8, true)}, frag(0, 8, true)},
		{"another", []header.IPv6{frag(16, 8, true)}, nil},
		{"an overlap, which is an attack", []header.IPv6{frag(0, 16, true), frag(8, 16, true)}, nil},
		{"complete", []header.IPv6{frag(0, 8, true), frag(8, 8, false)}, nil},
	} {
		var got []byte
		calls := 0
		r := fragment.NewReassembler(fragment.Limits{}, nil)
		r.OnTimeout(func(first func() []byte) { got, calls = first(), calls+1 })
		now := time.Now()
		for _, f := range c.came {
			r.Add(bytes.Clone(f), now)
		}
		r.Expire(now.Add(fragment.Timeout - 1))
		if calls != 0 {
			t.Errorf("%s: too early", c.name)
		}
		r.Expire(now.Add(fragment.Timeout))
		if !bytes.Equal(got, c.want) || calls > 1 {
			t.Errorf("%s: %d times\n got %x\nwant %x", c.name, calls, got, c.want)
		}
		// All memory was freed, and the reassembler still works.
		got, now = nil, now.Add(time.Hour)
		r.Add(frag(0, 16, true), now)
		if r.Expire(now.Add(fragment.Timeout)); got == nil {
			t.Errorf("%s: not told a second time", c.name)
		}
	}
}
