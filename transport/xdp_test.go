package transport_test

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"sixfour/encap/header"
	"sixfour/internal/rig"
	"sixfour/transport"
)

// port opens queue 0 of the device eth0.
func port(t *testing.T, n *rig.Namespace) (p *transport.XDPPort, device int) {
	t.Helper()
	l, err := n.Handle().LinkByName("eth0")
	check(t, err)
	check(t, n.Do(func() (err error) {
		p, err = transport.OpenXDP(l.Attrs().Index, 0, 1500)
		return err
	}))
	t.Cleanup(func() { p.Close() })
	return p, l.Attrs().Index
}

// filter takes packets of up to mtu bytes from eth0 for a port.
func filter(t *testing.T, n *rig.Namespace, mtu int) (*transport.XDPFilter, *transport.XDPPort) {
	t.Helper()
	p, device := port(t, n)
	var f *transport.XDPFilter
	check(t, n.Do(func() (err error) {
		f, err = transport.AttachXDP(device, mtu)
		return err
	}))
	t.Cleanup(func() { f.Close() })
	check(t, f.Serve(0, p))
	return f, p
}

// TestXDPSender: a port's packets have the EtherType of their IP version. Other packets
// go to the other sender, which returns the error.
func TestXDPSender(t *testing.T) {
	left, right := two(t)
	p, _ := port(t, left)
	from, err := left.MAC("eth0")
	check(t, err)
	to, err := right.MAC("eth0")
	check(t, err)
	both(t, func(t *testing.T, e ends) {
		tx := transport.NewXDPSender(p, [6]byte(from), [6]byte(to), dial(t, left, e.left, transport.Options{}))
		rx := listen(t, right, e.right, header.GRE, transport.Shard{}, transport.Options{})
		c := capture(t, right, "eth0")
		pkts := [][]byte{e.outer(header.GRE, make([]byte, 100)), e.outer(header.GRE, make([]byte, 102))}
		if n, err := tx.Send(pieces(pkts)); err != nil {
			t.Fatalf("sent %d: %v", n, err)
		}
		expect(t, rx, pkts...)
		want := map[bool]uint16{true: unix.ETH_P_IP, false: unix.ETH_P_IPV6}[e.left.Is4()]
		for _, pkt := range pkts {
			f, err := c.Find(soon(t), func(f rig.Frame) bool { return bytes.Equal(f.Packet(), pkt) })
			check(t, err)
			if frame := rig.Ethernet(to, from, want, pkt); !bytes.Equal(f.Data, frame) {
				t.Errorf("\n got %x\nwant %x", f.Data, frame)
			}
		}
		for _, bad := range [][]byte{{}, make([]byte, 60)} {
			if n, err := tx.Send([]transport.Packet{{Head: pkts[0]}, {Head: bad}, {Head: pkts[1]}}); n != 1 || err == nil {
				t.Errorf("%x: sent %d, %v", bad, n, err)
			}
			expect(t, rx, pkts[0])
		}
		batch := pieces(pkts)
		if n := testing.AllocsPerRun(100, func() { _, _ = tx.Send(batch) }); n != 0 {
			t.Errorf("%v allocations a batch", n)
		}
	})
}

// TestXDPFilter: a filter takes the packets that it must take, and passes all others to
// the kernel.
func TestXDPFilter(t *testing.T) {
	left, right := two(t)
	const mtu = 1000
	f, taken := filter(t, right, mtu)
	payload := bytes.Repeat([]byte("sixfour!"), 20)
	both(t, func(t *testing.T, e ends) {
		other := ends{netip.MustParseAddr("203.0.113.9"), e.right} // from another host
		room := mtu - len(e.outer(0, nil))
		if !e.left.Is4() {
			other.left = netip.MustParseAddr("2001:db8::9")
		}
		tx := dial(t, left, e.left, transport.Options{})
		kernel := make(map[byte]*transport.RawReceiver)
		for _, p := range tunnelProtocols {
			kernel[p] = listen(t, right, e.right, int(p), transport.Shard{}, transport.Options{})
		}
		goes := func(p byte, rx transport.Receiver, pkt []byte) {
			t.Helper()
			check(t, tx.SendOne(pkt))
			if rx == taken { // with its flow label
				if got := receive(t, rx, 1)[0]; !bytes.Equal(got, pkt) {
					t.Errorf("protocol %d\n got %x\nwant %x", p, got, pkt)
				}
			} else {
				expect(t, rx, pkt)
			}
		}
		for i, p := range tunnelProtocols {
			goes(p, kernel[p], e.outer(p, payload))
			check(t, f.Take(e.left, e.right, p))
			goes(p, taken, e.outer(p, payload))
			goes(p, kernel[p], other.outer(p, payload))
			next := tunnelProtocols[(i+1)%len(tunnelProtocols)]
			goes(next, kernel[next], e.outer(next, payload))
			goes(p, taken, e.outer(p, make([]byte, room)))
			goes(p, kernel[p], e.outer(p, make([]byte, room+1)))

			// Fragments, and headers between the IP header and the payload.
			for _, fragment := range e.fragments(p, payload) {
				check(t, tx.SendOne(fragment))
			}
			check(t, tx.SendOne(e.withOption(p, payload)))
			for _, got := range receive(t, kernel[p], 2) {
				if !bytes.HasSuffix(got, payload) {
					t.Errorf("protocol %d: %x", p, got)
				}
			}

			f.Pass(e.left, e.right, p)
			goes(p, kernel[p], e.outer(p, payload))
		}
	})
	if err := f.Take(ends4.left, ends6.right, header.ProtoIPv6); err == nil {
		t.Error("a pair of two IP versions was taken")
	}
}

// withOption returns a packet with an IPv4 option or an IPv6 extension header.
func (e ends) withOption(protocol byte, payload []byte) []byte {
	if !e.left.Is4() {
		return e.outer(header.DestOptions, append([]byte{protocol, 0, 4, 1, 4, 1, 1, 0}, payload...))
	}
	p := e.outer(protocol, append([]byte{1, 1, 1, 0}, payload...)) // no operation, and the end
	p[0] = 0x46
	binary.BigEndian.PutUint16(p[10:], 0)
	binary.BigEndian.PutUint16(p[10:], ^header.Sum(p[:24], 0))
	return p
}

// TestXDPFilterOfAnything: short or invalid frames do no harm.
func TestXDPFilterOfAnything(t *testing.T) {
	left, right := two(t)
	f, taken := filter(t, right, 1500)
	mac, err := right.MAC("eth0")
	check(t, err)
	c := capture(t, left, "eth0")
	both(t, func(t *testing.T, e ends) {
		check(t, f.Take(e.left, e.right, header.ProtoIPv6))
		whole := e.outer(header.ProtoIPv6, nil)
		types := [2]uint16{unix.ETH_P_IP, unix.ETH_P_IPV6}
		for n := range whole {
			for _, etherType := range types {
				check(t, c.Inject(rig.Ethernet(mac, mac, etherType, whole[:n])))
			}
		}
		etherType, foreign := types[0], types[1]
		if !e.left.Is4() {
			etherType, foreign = foreign, etherType
		}
		check(t, c.Inject(rig.Ethernet(mac, mac, foreign, whole)))
		check(t, c.Inject(rig.Ethernet(mac, mac, etherType, whole)))
		if got := receive(t, taken, 1)[0]; !bytes.Equal(got, whole) {
			t.Errorf("%x", got)
		}
	})
}
