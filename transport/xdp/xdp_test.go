package xdp_test

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"sixfour/encap/header"
	"sixfour/internal/rig"
	"sixfour/internal/rig/rigtest"
	"sixfour/transport"
	"sixfour/transport/wiretest"
	"sixfour/transport/xdp"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// port opens queue 0 of the device eth0.
func port(t *testing.T, n *rig.Namespace) (p *xdp.Port, device int) {
	t.Helper()
	l, err := n.Handle().LinkByName("eth0")
	rigtest.Must(t, err)
	rigtest.Must(t, n.Do(func() (err error) {
		p, err = xdp.Open(l.Attrs().Index, 0, 1500)
		return err
	}))
	t.Cleanup(func() { p.Close() })
	return p, l.Attrs().Index
}

// filter takes packets of up to mtu bytes from eth0 for a port.
func filter(t *testing.T, n *rig.Namespace, mtu int) (*xdp.Filter, *xdp.Port) {
	t.Helper()
	p, device := port(t, n)
	var f *xdp.Filter
	rigtest.Must(t, n.Do(func() (err error) {
		f, err = xdp.Attach(device, mtu)
		return err
	}))
	t.Cleanup(func() { f.Close() })
	rigtest.Must(t, f.Serve(0, p))
	return f, p
}

// TestSender: a port's packets have the EtherType of their IP version. Other packets
// go to the other sender, which returns the error.
func TestSender(t *testing.T) {
	left, right := wiretest.Two(t)
	p, _ := port(t, left)
	from, err := left.MAC("eth0")
	rigtest.Must(t, err)
	to, err := right.MAC("eth0")
	rigtest.Must(t, err)
	wiretest.Both(t, func(t *testing.T, e wiretest.Ends) {
		tx := xdp.NewSender(p, [6]byte(from), [6]byte(to), wiretest.Dial(t, left, e.Left, transport.Options{}))
		rx := wiretest.Listen(t, right, e.Right, header.GRE, transport.Shard{}, transport.Options{})
		c := wiretest.Capture(t, right, "eth0")
		pkts := [][]byte{e.Outer(header.GRE, make([]byte, 100)), e.Outer(header.GRE, make([]byte, 102))}
		if n, err := tx.Send(wiretest.Pieces(pkts)); err != nil {
			t.Fatalf("sent %d: %v", n, err)
		}
		wiretest.Expect(t, rx, pkts...)
		want := map[bool]uint16{true: unix.ETH_P_IP, false: unix.ETH_P_IPV6}[e.Left.Is4()]
		for _, pkt := range pkts {
			f, err := c.Find(wiretest.Soon(t), func(f rig.Frame) bool { return bytes.Equal(f.Packet(), pkt) })
			rigtest.Must(t, err)
			if frame := rig.Ethernet(to, from, want, pkt); !bytes.Equal(f.Data, frame) {
				t.Errorf("\n got %x\nwant %x", f.Data, frame)
			}
		}
		for _, bad := range [][]byte{{}, make([]byte, 60)} {
			if n, err := tx.Send([]transport.Packet{{Head: pkts[0]}, {Head: bad}, {Head: pkts[1]}}); n != 1 || err == nil {
				t.Errorf("%x: sent %d, %v", bad, n, err)
			}
			wiretest.Expect(t, rx, pkts[0])
		}
		batch := wiretest.Pieces(pkts)
		if n := testing.AllocsPerRun(100, func() { _, _ = tx.Send(batch) }); n != 0 {
			t.Errorf("%v allocations a batch", n)
		}
	})
}

// TestFilter: a filter takes the packets that it must take, and passes all others to
// the kernel.
func TestFilter(t *testing.T) {
	left, right := wiretest.Two(t)
	const mtu = 1000
	f, taken := filter(t, right, mtu)
	payload := bytes.Repeat([]byte("sixfour!"), 20)
	wiretest.Both(t, func(t *testing.T, e wiretest.Ends) {
		other := wiretest.Ends{Left: netip.MustParseAddr("203.0.113.9"), Right: e.Right} // from another host
		room := mtu - len(e.Outer(0, nil))
		if !e.Left.Is4() {
			other.Left = netip.MustParseAddr("2001:db8::9")
		}
		tx := wiretest.Dial(t, left, e.Left, transport.Options{})
		kernel := make(map[byte]*transport.RawPort)
		for _, p := range wiretest.TunnelProtocols {
			kernel[p] = wiretest.Listen(t, right, e.Right, int(p), transport.Shard{}, transport.Options{})
		}
		goes := func(p byte, rx transport.Receiver, pkt []byte) {
			t.Helper()
			rigtest.Must(t, tx.SendOne(pkt))
			if rx == taken { // with its flow label
				if got := wiretest.Receive(t, rx, 1)[0]; !bytes.Equal(got, pkt) {
					t.Errorf("protocol %d\n got %x\nwant %x", p, got, pkt)
				}
			} else {
				wiretest.Expect(t, rx, pkt)
			}
		}
		for i, p := range wiretest.TunnelProtocols {
			goes(p, kernel[p], e.Outer(p, payload))
			rigtest.Must(t, f.Take(e.Left, e.Right, p))
			goes(p, taken, e.Outer(p, payload))
			goes(p, kernel[p], other.Outer(p, payload))
			next := wiretest.TunnelProtocols[(i+1)%len(wiretest.TunnelProtocols)]
			goes(next, kernel[next], e.Outer(next, payload))
			goes(p, taken, e.Outer(p, make([]byte, room)))
			goes(p, kernel[p], e.Outer(p, make([]byte, room+1)))

			// Fragments, and headers between the IP header and the payload.
			for _, fragment := range e.Fragments(p, payload) {
				rigtest.Must(t, tx.SendOne(fragment))
			}
			rigtest.Must(t, tx.SendOne(withOption(e, p, payload)))
			for _, got := range wiretest.Receive(t, kernel[p], 2) {
				if !bytes.HasSuffix(got, payload) {
					t.Errorf("protocol %d: %x", p, got)
				}
			}

			f.Pass(e.Left, e.Right, p)
			goes(p, kernel[p], e.Outer(p, payload))
		}
	})
	if err := f.Take(wiretest.Ends4.Left, wiretest.Ends6.Right, header.ProtoIPv6); err == nil {
		t.Error("a pair of two IP versions was taken")
	}
}

// withOption returns a packet with an IPv4 option or an IPv6 extension header.
func withOption(e wiretest.Ends, protocol byte, payload []byte) []byte {
	if !e.Left.Is4() {
		return e.Outer(header.DestOptions, append([]byte{protocol, 0, 4, 1, 4, 1, 1, 0}, payload...))
	}
	p := e.Outer(protocol, append([]byte{1, 1, 1, 0}, payload...)) // no operation, and the end
	p[0] = 0x46
	binary.BigEndian.PutUint16(p[10:], 0)
	binary.BigEndian.PutUint16(p[10:], ^header.Sum(p[:24], 0))
	return p
}

// TestFilterOfAnything: short or invalid frames do no harm.
func TestFilterOfAnything(t *testing.T) {
	left, right := wiretest.Two(t)
	f, taken := filter(t, right, 1500)
	mac, err := right.MAC("eth0")
	rigtest.Must(t, err)
	c := wiretest.Capture(t, left, "eth0")
	wiretest.Both(t, func(t *testing.T, e wiretest.Ends) {
		rigtest.Must(t, f.Take(e.Left, e.Right, header.ProtoIPv6))
		whole := e.Outer(header.ProtoIPv6, nil)
		types := [2]uint16{unix.ETH_P_IP, unix.ETH_P_IPV6}
		for n := range whole {
			for _, etherType := range types {
				rigtest.Must(t, c.Inject(rig.Ethernet(mac, mac, etherType, whole[:n])))
			}
		}
		etherType, foreign := types[0], types[1]
		if !e.Left.Is4() {
			etherType, foreign = foreign, etherType
		}
		rigtest.Must(t, c.Inject(rig.Ethernet(mac, mac, foreign, whole)))
		rigtest.Must(t, c.Inject(rig.Ethernet(mac, mac, etherType, whole)))
		if got := wiretest.Receive(t, taken, 1)[0]; !bytes.Equal(got, whole) {
			t.Errorf("%x", got)
		}
	})
}
