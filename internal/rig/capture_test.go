package rig

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// udp4 returns a UDP datagram from 192.0.2.66, which no host has, to right. The kernel
// fills in total length and header checksum for Raw.
func udp4(payload string) []byte {
	p := []byte{
		0x45, 0, 0, 0, 0x12, 0x34, 0, 0, 64, unix.IPPROTO_UDP, 0, 0,
		192, 0, 2, 66, 203, 0, 113, 2,
		0x27, 0x0f, 0x27, 0x10, 0, byte(8 + len(payload)), 0, 0, // ports 9999 and 10000, no checksum
	}
	return append(p, payload...)
}

func capture(t *testing.T, n *Namespace, dev string) *Capture {
	t.Helper()
	c, err := n.Capture(dev)
	check(t, err)
	t.Cleanup(func() { c.Close() })
	return c
}

func TestCaptureSeesBothDirections(t *testing.T) {
	a, b := pair(t)
	c := capture(t, b, "eth0")
	before := time.Now().Add(-time.Second)
	_, err := Ping(soon(t), a, right4.Addr(), PingOptions{Size: 100})
	check(t, err)
	for _, outgoing := range []bool{false, true} { // the request, then the answer
		f, err := c.Find(soon(t), func(f Frame) bool { return f.Type == unix.ETH_P_IP })
		check(t, err)
		p := f.Packet()
		if f.Outgoing != outgoing || len(p) != 128 || p[0] != 0x45 || p[9] != unix.IPPROTO_ICMP || len(f.Data) != 14+128 {
			t.Errorf("outgoing %v, %d bytes: % x", f.Outgoing, len(p), p)
		}
		if f.Time.Before(before) || f.Time.After(time.Now().Add(time.Second)) {
			t.Errorf("the time is %v", f.Time)
		}
	}
	if lost, err := c.Lost(); lost != 0 || err != nil {
		t.Errorf("%d frames lost, %v", lost, err)
	}
}

// TestVethHasNoTraffic: a veth pair without IPv6 addresses carries no traffic of its own.
func TestVethHasNoTraffic(t *testing.T) {
	a, b := namespace(t, "a"), namespace(t, "b")
	check(t, Veth(a, "eth0", b, "eth0", 1500))
	c := capture(t, b, "eth0")
	check(t, a.AddAddr("eth0", left4))
	check(t, a.LinkDown("eth0"))
	check(t, a.LinkUp("eth0"))
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	if f, err := c.Next(ctx); err == nil {
		t.Errorf("% x", f.Data)
	} else if !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
}

func TestRawAndInject(t *testing.T) {
	a, b := pair(t)
	c := capture(t, b, "eth0")
	raw, err := a.OpenRaw()
	check(t, err)
	defer raw.Close()
	sink, err := b.ListenUDP(addrPort(right4, 10000))
	check(t, err)
	defer sink.Close()
	check(t, sink.SetReadDeadline(time.Now().Add(time.Minute)))
	expect := func(payload string) {
		t.Helper()
		buf := make([]byte, 100)
		n, from, err := sink.ReadFromUDPAddrPort(buf)
		if err != nil || string(buf[:n]) != payload || from.String() != "192.0.2.66:9999" {
			t.Errorf("%q from %v, %v: want %q", buf[:n], from, err, payload)
		}
	}

	// A source that reverse path filtering would refuse, and the kernel's own checksum.
	check(t, raw.Send(udp4("spoofed")))
	f, err := c.Find(soon(t), func(f Frame) bool { return bytes.Contains(f.Packet(), []byte("spoofed")) })
	check(t, err)
	expect("spoofed")

	// The same frame again, unchanged; then with a checksum that the kernel would never
	// send.
	mac, err := b.MAC("eth0")
	check(t, err)
	from := capture(t, a, "eth0")
	again := Ethernet(mac, f.Data[6:12], unix.ETH_P_IP, f.Packet())
	if !bytes.Equal(again, f.Data) {
		t.Errorf("got  % x\nwant % x", again, f.Data)
	}
	bad := bytes.Clone(again)
	binary.BigEndian.PutUint16(bad[14+10:], ^binary.BigEndian.Uint16(bad[14+10:]))
	check(t, from.Inject(bad))
	check(t, from.Inject(again))
	for _, want := range [][]byte{bad, again} {
		f, err := c.Find(soon(t), func(f Frame) bool { return bytes.Contains(f.Packet(), []byte("spoofed")) })
		if err != nil || !bytes.Equal(f.Data, want) {
			t.Errorf("%v: got  % x\nwant % x", err, f.Data, want)
		}
	}
	expect("spoofed")
	if err := raw.Send([]byte("short")); err == nil {
		t.Error("5 bytes were sent")
	}
}

func TestCaptureWaiting(t *testing.T) {
	a, b := pair(t)
	c := capture(t, b, "eth0")
	r, err := Ping(soon(t), a, right4.Addr(), PingOptions{Count: 3})
	check(t, err)
	frames, err := c.Waiting()
	n := 0
	for _, f := range frames {
		if f.Type == unix.ETH_P_IP {
			n++
		}
	}
	if n != 6 || r.Received != 3 || err != nil {
		t.Errorf("%d frames, %d answers, %v; want 6 and 3", n, r.Received, err)
	}
	c.Close()
	if _, err := c.Next(soon(t)); err == nil {
		t.Error("a closed capture returns a frame")
	}
}
