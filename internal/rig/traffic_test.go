package rig

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func addrPort(p netip.Prefix, port uint16) netip.AddrPort { return netip.AddrPortFrom(p.Addr(), port) }

// both runs a test over IPv4 and IPv6.
func both(t *testing.T, f func(t *testing.T, right netip.Prefix)) {
	for name, right := range map[string]netip.Prefix{"IPv4": right4, "IPv6": right6} {
		t.Run(name, func(t *testing.T) { f(t, right) })
	}
}

func TestPing(t *testing.T) {
	both(t, func(t *testing.T, right netip.Prefix) {
		a, _ := pair(t)
		for name, o := range map[string]PingOptions{
			"one":        {},
			"some":       {Count: 5, Size: 56},
			"paced":      {Count: 5, Size: 1, Interval: time.Millisecond},
			"fragmented": {Count: 2, Size: 20000},
			"options":    {Count: 2, Size: 56, TTL: 7, TOS: 0xb8, DF: true},
			"source":     {Source: map[bool]netip.Addr{true: left4.Addr(), false: left6.Addr()}[right.Addr().Is4()]},
		} {
			r, err := Ping(soon(t), a, right.Addr(), o)
			want := max(o.Count, 1)
			if err != nil || r.Sent != want || r.Received != want || len(r.RTTs) != want || r.Corrupt+r.Duplicates+len(r.Errors)+len(r.ICMP) != 0 {
				t.Errorf("%s: %+v, %v", name, r, err)
			}
		}
		// With DF, a packet that exceeds the device's MTU is not sent at all.
		r, err := Ping(soon(t), a, right.Addr(), PingOptions{Size: 1500, DF: true})
		if err != nil || r.Sent != 0 || len(r.Errors) != 1 || !errors.Is(r.Errors[0], unix.EMSGSIZE) {
			t.Errorf("too big with DF: %+v, %v", r, err)
		}
	})
}

// TestPingHeader: the headers have the values of the options.
func TestPingHeader(t *testing.T) {
	a, b := pair(t)
	c := capture(t, b, "eth0")
	options := []byte{7, 7, 4, 0, 0, 0, 0, 0} // record route with one slot, end of list
	r, err := Ping(soon(t), a, right4.Addr(), PingOptions{Size: 10, TTL: 9, TOS: 0xb8, DF: true, IPv4Options: options})
	check(t, err)
	f, err := c.Find(soon(t), func(f Frame) bool { return f.Type == unix.ETH_P_IP })
	check(t, err)
	p := f.Packet()
	if r.Received != 1 || p[0] != 0x47 || p[1] != 0xb8 || p[6] != 0x40 || p[8] != 9 || p[20] != 7 || len(p) != 46 {
		t.Errorf("%+v: % x", r, p)
	}
	_, err = Ping(soon(t), a, right6.Addr(), PingOptions{Size: 10, TTL: 9, TOS: 0xb8})
	check(t, err)
	f, err = c.Find(soon(t), func(f Frame) bool { return f.Type == unix.ETH_P_IPV6 && f.Packet()[7] == 9 })
	check(t, err)
	if p := f.Packet(); p[0] != 0x6b || p[1]&0xf0 != 0x80 || len(p) != 58 {
		t.Errorf("% x", p)
	}
}

func TestPingReportsErrors(t *testing.T) {
	a, _, _ := line(t)
	for _, c := range []struct {
		dst      string
		o        PingOptions
		from     string
		typ      int
		code     int
		mtu      int
		received int
	}{
		{"198.51.100.2", PingOptions{TTL: 1}, "203.0.113.2", 11, 0, 0, 0},
		{"2001:db8:1::2", PingOptions{TTL: 1}, "2001:db8::2", 3, 0, 0, 0},
		{"198.51.100.2", PingOptions{Size: 1300, DF: true}, "203.0.113.2", 3, 4, 1280, 0},
		{"2001:db8:1::2", PingOptions{Size: 1300, DF: true}, "2001:db8::2", 2, 0, 1280, 0},
		{"198.51.100.2", PingOptions{Size: 1300}, "", 0, 0, 0, 1},
		{"2001:db8:1::2", PingOptions{Size: 1300}, "", 0, 0, 0, 1},
	} {
		c.o.Timeout = 300 * time.Millisecond
		r, err := Ping(soon(t), a, netip.MustParseAddr(c.dst), c.o)
		check(t, err)
		var want []ICMPError
		if c.from != "" {
			want = []ICMPError{{netip.MustParseAddr(c.from), c.typ, c.code, c.mtu}}
		}
		if r.Received != c.received || !slices.Equal(r.ICMP, want) {
			t.Errorf("%s %+v: %+v, want %v", c.dst, c.o, r, want)
		}
	}
}

func TestDropUnreachable(t *testing.T) {
	a, router, _ := line(t)
	check(t, router.DropUnreachable())
	for _, c := range []struct {
		o              PingOptions
		received, icmp int
	}{
		{PingOptions{}, 1, 0},
		{PingOptions{Size: 1300, DF: true}, 0, 0},
		{PingOptions{TTL: 1}, 0, 1},
	} {
		c.o.Timeout = 300 * time.Millisecond
		r, err := Ping(soon(t), a, netip.MustParseAddr("198.51.100.2"), c.o)
		check(t, err)
		if r.Received != c.received || len(r.ICMP) != c.icmp {
			t.Errorf("%+v: %+v", c.o, r)
		}
	}
}

func TestTCPTransfer(t *testing.T) {
	both(t, func(t *testing.T, right netip.Prefix) {
		a, b := pair(t)
		for _, size := range []int64{0, 1, 100_000, 10_000_000} {
			r, err := TCPTransfer(soon(t), a, b, addrPort(right, 0), size)
			if err != nil || r.Bytes != size || r.Elapsed <= 0 {
				t.Errorf("%d bytes: %+v, %v", size, r, err)
			}
		}
	})
}

// TestTCPTransferDetectsChange: a receiver whose answer does not match the sent content
// is detected.
func TestTCPTransferDetectsChange(t *testing.T) {
	a, b := pair(t)
	l, err := b.ListenTCP(addrPort(right4, 0))
	check(t, err)
	defer l.Close()
	go func() {
		c, err := l.AcceptTCP()
		if err != nil {
			return
		}
		defer c.Close()
		buf := make([]byte, 8+1000)
		for n := 0; n < len(buf); {
			m, err := c.Read(buf[n:])
			if err != nil {
				return
			}
			n += m
		}
		_, _ = c.Write(make([]byte, 32))
	}()
	dst := netip.MustParseAddrPort(l.Addr().String())
	if _, err := SendTCP(soon(t), a, dst, 1000); !errors.Is(err, errChanged) {
		t.Errorf("error is %v", err)
	}
}

func TestUDPExchange(t *testing.T) {
	both(t, func(t *testing.T, right netip.Prefix) {
		a, b := pair(t)
		sizes := []int{MinDatagram, 100, 1400, 1473, 5000, 60000} // from 1473 on, or 1453, in fragments
		ds, err := UDPExchange(soon(t), a, b, addrPort(right, 0), sizes, UDPOptions{})
		if err != nil || Intact(ds) != len(sizes) {
			t.Errorf("%+v, %v", ds, err)
		}
		ds, err = UDPExchange(soon(t), a, b, addrPort(right, 0), sizes, UDPOptions{DF: true})
		check(t, err)
		for i, d := range ds {
			if small := sizes[i] <= 1400; d.Arrived != small || d.Intact != small || errors.Is(d.Err, unix.EMSGSIZE) == small {
				t.Errorf("with DF: %+v", d)
			}
		}
		if _, err := UDPExchange(soon(t), a, b, addrPort(right, 0), []int{3}, UDPOptions{}); err == nil {
			t.Error("a datagram too small to be numbered is taken")
		}
	})
}

func TestUDPExchangeReportsLoss(t *testing.T) {
	a, b := pair(t)
	check(t, b.SetMTU("eth0", 1000)) // a veth drops what is too big for its peer
	ds, err := UDPExchange(soon(t), a, b, addrPort(right4, 0), []int{900, 1200, 901}, UDPOptions{Timeout: 300 * time.Millisecond})
	check(t, err)
	var got []bool
	for _, d := range ds {
		got = append(got, d.Arrived)
	}
	if !slices.Equal(got, []bool{true, false, true}) {
		t.Errorf("%+v", ds)
	}
}

func TestLoad(t *testing.T) {
	both(t, func(t *testing.T, right netip.Prefix) {
		a, b := pair(t)
		for name, o := range map[string]LoadOptions{
			"tcp":   {Streams: 2, Duration: 100 * time.Millisecond},
			"udp":   {UDP: true, Streams: 2, Duration: 100 * time.Millisecond, Size: 1200},
			"paced": {UDP: true, Duration: 100 * time.Millisecond, Rate: 1000},
		} {
			r, err := Load(soon(t), a, b, addrPort(right, 7000), o)
			if err != nil || r.Bytes == 0 || r.BytesPerSecond() == 0 {
				t.Errorf("%s: %+v, %v", name, r, err)
			}
			// A sender that moves to another processor can reorder its own packets, because
			// veth has a queue for each processor. So Reordered may have any value.
			if o.UDP && (r.Received == 0 || r.Received > r.Sent) {
				t.Errorf("%s: %+v", name, r)
			}
			if o.Rate > 0 && (r.Sent > 101 || r.Lost() != 0) {
				t.Errorf("%s: %+v", name, r)
			}
		}
	})
}

// TestContextEndsOperations: without answers, each function ends with its context, and returns
// why.
func TestContextEndsOperations(t *testing.T) {
	a, b := pair(t)
	nobody := netip.MustParseAddrPort("203.0.113.77:9")
	for name, f := range map[string]func(context.Context) error{
		"ping": func(ctx context.Context) error {
			_, err := Ping(ctx, a, nobody.Addr(), PingOptions{Timeout: time.Hour})
			return err
		},
		"paced ping": func(ctx context.Context) error {
			_, err := Ping(ctx, a, nobody.Addr(), PingOptions{Count: 2, Interval: time.Hour})
			return err
		},
		"tcp": func(ctx context.Context) error { _, err := SendTCP(ctx, a, nobody, 1); return err },
		"tcp, never read": func(ctx context.Context) error {
			l, err := b.ListenTCP(addrPort(right4, 0))
			check(t, err)
			defer l.Close()
			_, err = SendTCP(ctx, a, netip.MustParseAddrPort(l.Addr().String()), 1<<30)
			return err
		},
		"udp": func(ctx context.Context) error {
			_, err := SendUDP(ctx, a, nobody, []int{100}, UDPOptions{Timeout: time.Hour})
			return err
		},
		"load": func(ctx context.Context) error {
			check(t, b.LinkDown("eth0"))
			defer func() { check(t, b.LinkUp("eth0")) }()
			_, err := Load(ctx, a, b, addrPort(right4, 0), LoadOptions{Duration: time.Hour})
			return err
		},
		"capture": func(ctx context.Context) error {
			_, err := capture(t, namespace(t, "c"), "lo").Next(ctx)
			return err
		},
	} {
		ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
		if err := f(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: %v", name, err)
		}
		cancel()
	}
}
