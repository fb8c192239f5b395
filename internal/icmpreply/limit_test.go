package icmpreply

import (
	"hash/maphash"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"

	"sixfour/encap/header"
	"sixfour/encap/icmp"
)

// crowd returns the nth address of a network.
func crowd(network string, n int) netip.Addr {
	a := netip.MustParseAddr(network)
	if a.Is4() {
		b := a.As4()
		b[2], b[3] = b[2]+byte(n>>8), byte(n)
		return netip.AddrFrom4(b)
	}
	b := a.As16()
	b[14], b[15] = byte(n>>8), byte(n)
	return netip.AddrFrom16(b)
}

// Neither a sender that ignores errors, nor a network that forges senders, uses up the limits
// of the others.
func TestErrorLimit(t *testing.T) {
	for _, c := range []struct {
		name, noisy, quiet string
		crowd, most        int // number of forged senders, and the most errors they may get at once
	}{
		{"one sender", "2001:db8:1::", "2001:db8:2::1", 1, PerSender},
		{"one sender of the same network", "2001:db8:1::", "2001:db8:1::1:1", 1, PerSender},
		{"one sender, IPv4", "10.1.1.1", "10.1.2.1", 1, PerSender},
		{"a network of senders", "2001:db8:1::", "2001:db8:2::1", 1 << 16, perNetwork},
		{"a network of senders, IPv4", "10.1.1.0", "10.1.2.1", 256, perNetwork},
	} {
		var l errorLimit
		now := time.Now()
		flood := func() (told int) {
			for i := range 100_000 {
				if l.allow(crowd(c.noisy, i%c.crowd), now) {
					told++
				}
			}
			return told
		}
		if told := flood(); told != c.most {
			t.Errorf("%s: %d are told, want %d", c.name, told, c.most)
		}
		// Some hashes may collide with those of the noisy senders.
		if heard := quietHeard(&l, c.quiet, now); c.crowd == 1 && heard == 0 {
			t.Errorf("%s: nobody else is told", c.name)
		}
		for range 10 { // over a longer time
			now = now.Add(time.Second)
			if told := flood(); told > c.most {
				t.Errorf("%s: %d are told in a second", c.name, told)
			}
		}
	}
	// The total is limited, however many networks there are.
	var l errorLimit
	told := 0
	now := time.Now()
	for i := range 100_000 {
		b := netip.MustParseAddr("2001:db8::1").As16()
		b[5], b[6], b[7] = byte(i>>16), byte(i>>8), byte(i)
		if l.allow(netip.AddrFrom16(b), now) {
			told++
		}
	}
	if told != perSecond {
		t.Errorf("%d are told, want %d", told, perSecond)
	}
}

// quietHeard returns how many of three quiet senders get an error beside a noisy one.
func quietHeard(l *errorLimit, first string, now time.Time) (heard int) {
	a := netip.MustParseAddr(first)
	for range 3 {
		if l.allow(a, now) {
			heard++
		}
		a = a.Next()
	}
	return heard
}

// A sender that is over its limit does not use up a stored error that quoted too little.
func TestLateErrorIsForOthers(t *testing.T) {
	r := New("", new(atomic.Int64), zap.NewNop())
	r.Retire() // what is allowed need not be sent
	var soft Soft
	l := &r.relayed
	first := netip.MustParseAddr("192.0.2.1")
	l.allow(first, time.Now())
	share := func(a netip.Addr) *atomic.Int64 {
		return &l.senders.until[maphash.Comparable(l.seed, a)%uint64(len(l.senders.until))]
	}
	share(first).Store(int64(time.Hour)) // its limit is used up for an hour
	other := first.Next()
	for share(other) == share(first) {
		other = other.Next()
	}
	noisy, quiet := packetFrom(first), packetFrom(other)
	soft.Note(icmp.Unreachable)
	for range 100 {
		r.Late(&soft, noisy)
	}
	if n := soft.Pending.Load(); n != 1 {
		t.Fatalf("%d errors are left", n)
	}
	r.Late(&soft, quiet)
	if n := soft.Pending.Load(); n != 0 {
		t.Errorf("%d errors are left", n)
	}
}

// packetFrom returns a UDP packet over IPv4 from an address.
func packetFrom(a netip.Addr) []byte {
	pkt := make([]byte, header.IPv4Len+8)
	ip := header.IPv4(pkt)
	ip[0], ip[3], ip[8], ip[9] = 0x45, byte(len(pkt)), 64, header.UDP
	copy(ip.Source(), a.AsSlice())
	copy(ip.Dest(), []byte{10, 0, 0, 2})
	ip.SetChecksum()
	return pkt
}
