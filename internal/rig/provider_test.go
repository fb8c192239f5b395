package rig

import (
	"testing"
	"time"
)

// A provider forwards packets of both IP versions, whole transfers included, delays them, and
// drops those that it is told to.
func TestProvider(t *testing.T) {
	a, b := namespace(t, "a"), namespace(t, "b")
	p, err := Through(a, "va", b, "vb", 1500)
	check(t, err)
	defer func() { check(t, p.Close()) }()
	check(t, a.AddAddr("va", left4))
	check(t, b.AddAddr("vb", right4))
	check(t, a.AddAddr("va", left6))
	check(t, b.AddAddr("vb", right6))
	settle(t, a, right4.Addr())
	settle(t, a, right6.Addr())
	if r, err := TCPTransfer(soon(t), a, b, addrPort(right4, 5001), 1<<20); err != nil || r.Bytes != 1<<20 {
		t.Errorf("TCP: %+v, %v", r, err)
	}
	ds, err := UDPExchange(soon(t), a, b, addrPort(right6, 5002), []int{24, 1000, 1400}, UDPOptions{})
	if err != nil || Intact(ds) != 3 {
		t.Errorf("UDP: %+v, %v", ds, err)
	}

	const delay = 20 * time.Millisecond
	p.Delay(delay)
	r, err := Ping(soon(t), a, right4.Addr(), PingOptions{Count: 3})
	if err != nil || r.Received != 3 || min(r.RTTs[0], r.RTTs[1], r.RTTs[2]) < 2*delay {
		t.Errorf("delayed: %+v, %v", r, err)
	}
	p.Delay(0)

	p.Drop(func(packet []byte) bool { return packet[0]>>4 == 4 })
	for _, c := range []struct {
		name string
		want int
	}{{"IPv4", 0}, {"IPv6", 1}} {
		to := right4.Addr()
		if c.name == "IPv6" {
			to = right6.Addr()
		}
		r, err := Ping(soon(t), a, to, PingOptions{Timeout: 200 * time.Millisecond})
		if err != nil || r.Received != c.want {
			t.Errorf("with a filter on IPv4, %s: %+v, %v", c.name, r, err)
		}
	}
	p.Drop(nil)
	if r, err := Ping(soon(t), a, right4.Addr(), PingOptions{}); err != nil || r.Received != 1 {
		t.Errorf("without a filter: %+v, %v", r, err)
	}
}
