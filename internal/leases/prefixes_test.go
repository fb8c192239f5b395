package leases

import (
	"math/rand/v2"
	"net/netip"
	"testing"
)

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

func TestPrefixes(t *testing.T) {
	pool := prefix("2001:db8:0:100::/58") // 64 of /64
	var s prefixes
	for _, c := range []struct{ do, arg, want string }{
		{"lowest", "64", "2001:db8:0:100::/64"},
		{"lowest", "58", "2001:db8:0:100::/58"},
		{"lowest", "57", ""},
		{"insert", "2001:db8:0:100::/64", "true"},
		{"insert", "2001:db8:0:100::/64", "false"},
		{"insert", "2001:db8:0:100::/60", "false"},
		{"insert", "2001:db8:0:100:1::/80", "false"},
		{"lowest", "64", "2001:db8:0:101::/64"},
		{"lowest", "60", "2001:db8:0:110::/60"},
		{"insert", "2001:db8:0:110::/60", "true"},
		{"lowest", "60", "2001:db8:0:120::/60"},
		{"insert", "2001:db8:0:101::/64", "true"},
		{"insert", "2001:db8:0:102::/63", "true"},
		{"insert", "2001:db8:0:104::/62", "true"},
		{"lowest", "64", "2001:db8:0:108::/64"},
		{"remove", "2001:db8:0:102::/63", ""},
		{"lowest", "64", "2001:db8:0:102::/64"},
		{"lowest", "63", "2001:db8:0:102::/63"},
		{"lowest", "61", "2001:db8:0:108::/61"},
		{"insert", "2001:db8:0:102::/63", "true"},
		{"insert", "2001:db8:0:108::/61", "true"},
		{"insert", "2001:db8:0:120::/59", "true"},
		{"lowest", "64", ""},
		{"remove", "2001:db8:0:101::/64", ""},
		{"lowest", "64", "2001:db8:0:101::/64"},
		{"lowest", "63", ""},
	} {
		got := ""
		switch c.do {
		case "insert":
			got = map[bool]string{true: "true", false: "false"}[s.insert(prefix(c.arg))]
		case "remove":
			s.remove(prefix(c.arg))
		case "lowest":
			if p, ok := s.lowest(pool, netip.MustParsePrefix("::/"+c.arg).Bits()); ok {
				got = p.String()
			}
		}
		if got != c.want {
			t.Errorf("%s %s: %q, want %q", c.do, c.arg, got, c.want)
		}
	}
}

// The tree does what a list of all prefixes would, in a random order of changes, and is empty
// after all are removed.
func TestPrefixesRandom(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	pool := prefix("2001:db8::/54") // 1024 of /64
	var s prefixes
	var list []netip.Prefix
	lowest := func(bits int) (first netip.Prefix, free uint64) {
		a := pool.Addr().As16()
		for n := 0; n < 1024; n += 1 << (64 - bits) {
			a[6], a[7] = byte(n>>8), byte(n)
			p, ok := netip.PrefixFrom(netip.AddrFrom16(a), bits), true
			for _, q := range list {
				ok = ok && !q.Overlaps(p)
			}
			if ok && free == 0 {
				first = p
			}
			if ok {
				free++
			}
		}
		return first, free
	}
	for range 600 {
		if len(list) > 0 && r.IntN(5) < 2 {
			i := r.IntN(len(list))
			s.remove(list[i])
			list = append(list[:i], list[i+1:]...)
		}
		bits := 58 + r.IntN(7)
		want, free := lowest(bits)
		got, ok := s.lowest(pool, bits)
		if got != want || ok != (free > 0) || s.count(pool, bits) != free {
			t.Fatalf("/%d with %d in the set: %v and %d free, want %v and %d", bits, len(list), got, s.count(pool, bits), want, free)
		}
		if ok && !s.insert(got) {
			t.Fatalf("%v is not free", got)
		}
		if ok {
			list = append(list, got)
		}
	}
	for _, p := range list {
		s.remove(p)
	}
	if s.root != nil {
		t.Error("not empty")
	}
}
