package encap_test

import (
	"bytes"
	"testing"

	"sixfour/encap"
	"sixfour/encap/drop"
	"sixfour/encap/header"
)

// Whatever arrives: no panic, and what is let through is a whole packet that
// lies inside what arrived, with a source that may be, and unchanged but for
// its ECN field; encapsulated again, it comes out the same.
func FuzzDecapsulate(f *testing.F) {
	for _, v := range readVectors(f) {
		f.Add(v)
	}
	double := newStack(f, "4in6in4", swap(addrs("203.0.113.10", "203.0.113.20", "fc00::1", "fc00::2")), encap.DefaultOptions)
	back := newStack(f, "4in6in4", addrs("203.0.113.10", "203.0.113.20", "fc00::1", "fc00::2"), encap.DefaultOptions)
	f.Fuzz(func(t *testing.T, b []byte) {
		// Let the fuzzer past the checks that random bytes would hardly pass.
		if len(b) >= 20 && b[0] == 0x45 {
			copy(b[12:20], []byte{203, 0, 113, 10, 203, 0, 113, 20})
			header.IPv4(b[:20]).SetChecksum()
		}
		before := bytes.Clone(b)
		inner, r := double.Decapsulate(b)
		if r != drop.None {
			if inner != nil && r != drop.Fragment { // which is for reassembly
				t.Fatalf("refused (%v), but returned %x", r, inner)
			}
			return
		}
		off := cap(b) - cap(inner)
		if off < 20 || off+len(inner) > len(b) {
			t.Fatalf("inner packet at %d, %d bytes, of %d", off, len(inner), len(b))
		}
		if _, r := header.Parse(inner, header.Version(inner)); r != drop.None {
			t.Fatalf("let through: %v", r)
		}
		was := before[off : off+len(inner)]
		if header.Version(inner) == 4 {
			was[1], was[10], was[11] = inner[1], inner[10], inner[11]
		} else {
			was[1] = was[1]&0xcf | inner[1]&0x30
		}
		if !bytes.Equal(was, inner) {
			t.Fatalf("changed\n got %x\nwant %x", inner, was)
		}
		outer, r := encapsulate(back, inner)
		if r != drop.None {
			if r != drop.Loop && r != drop.TooBig {
				t.Fatalf("encapsulate again: %v", r)
			}
			return
		}
		again, r := double.Decapsulate(outer)
		if r == drop.None && !bytes.Equal(again, inner) {
			t.Fatalf("again\n got %x\nwant %x", again, inner)
		}
	})
}
