package transport_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"sixfour/encap/header"
	"sixfour/internal/rig"
	"sixfour/internal/rig/rigtest"
	"sixfour/transport"
	"sixfour/transport/wiretest"
)

const (
	leftPort  = 5555
	rightPort = 6635
)

// udp opens a UDP port that is closed at the end of the test.
func udp(t testing.TB, n *rig.Namespace, local netip.Addr, port uint16, s transport.Shard, o transport.Options) (p *transport.UDPPort) {
	t.Helper()
	rigtest.Must(t, n.Do(func() (err error) {
		p, err = transport.ListenUDP(netip.AddrPortFrom(local, port), s, o)
		return err
	}))
	t.Cleanup(func() { p.Close() })
	return p
}

// sender opens a sender that is closed at the end of the test.
func sender(t testing.TB, n *rig.Namespace, p transport.Port, o transport.Options) (tx transport.Sender) {
	t.Helper()
	rigtest.Must(t, n.Do(func() (err error) {
		tx, err = p.Sender(o)
		return err
	}))
	t.Cleanup(func() { tx.Close() })
	return tx
}

// datagram returns a UDP packet from the left to the right end, with a checksum.
func datagram(e wiretest.Ends, from, to uint16, payload []byte) []byte {
	u := make([]byte, 8, 8+len(payload))
	binary.BigEndian.PutUint16(u, from)
	binary.BigEndian.PutUint16(u[2:], to)
	binary.BigEndian.PutUint16(u[4:], uint16(8+len(payload)))
	u = append(u, payload...)
	binary.BigEndian.PutUint16(u[6:], ^header.Sum(u, header.PseudoSum(e.Left.AsSlice(), e.Right.AsSlice(), len(u), header.UDP)))
	return e.Outer(header.UDP, u)
}

func addrPort(a netip.Addr, port uint16) netip.AddrPort { return netip.AddrPortFrom(a, port) }

// TestUDP: packets are on the wire as they are given to a sender (destination, port, TOS,
// TTL, flow label, DF, checksum), and arrive without headers, which the description has.
// The answer to the source of a packet arrives at the port that sent it.
func TestUDP(t *testing.T) {
	left, right := wiretest.Two(t)
	wiretest.Both(t, func(t *testing.T, e wiretest.Ends) {
		for _, wild := range []bool{false, true} {
			local := e.Left
			if wild {
				local = map[bool]netip.Addr{true: netip.IPv4Unspecified(), false: netip.IPv6Unspecified()}[e.Left.Is4()]
			}
			l, r := udp(t, left, local, leftPort, transport.Shard{}, transport.Options{}), udp(t, right, e.Right, rightPort, transport.Shard{}, transport.Options{})
			tx, back := sender(t, left, l, transport.Options{}), sender(t, right, r, transport.Options{})
			if got, want := l.KernelHeaders(), len(datagram(e, leftPort, rightPort, nil)); got != want {
				t.Errorf("the kernel's headers have %d bytes, want %d", got, want)
			}
			c := wiretest.Capture(t, right, "eth0")
			var pkts [][]byte
			for i := range 2*transport.BatchSize + 3 {
				pkts = append(pkts, datagram(e, leftPort, rightPort, bytes.Repeat([]byte{byte(i)}, 100+i)))
			}
			if n, err := tx.Send(wiretest.Pieces(pkts)); err != nil || n != len(pkts) {
				t.Fatalf("sent %d: %v", n, err)
			}
			one := datagram(e, leftPort, rightPort, make([]byte, 1000))
			rigtest.Must(t, tx.SendOne(one))
			pkts = append(pkts, one)
			got := arrivals(t, r, len(pkts))
			for i, pkt := range pkts {
				want := header.Outer{From: addrPort(e.Left, leftPort), At: addrPort(e.Right, rightPort), TOS: 0xb9, TTL: 61} // as in Ends.Outer
				if got[i].Outer != want || !bytes.Equal(got[i].data, pkt[l.KernelHeaders():]) {
					t.Fatalf("packet %d: %+v, %x\nwant %+v, %x", i, got[i].Outer, got[i].data, want, pkt[l.KernelHeaders():])
				}
			}
			for _, pkt := range [][]byte{pkts[0], one} {
				f, err := c.Find(wiretest.Soon(t), func(f rig.Frame) bool { return len(f.Packet()) == len(pkt) })
				rigtest.Must(t, err)
				if have := without(f.Packet()); !bytes.Equal(have, without(pkt)) {
					t.Errorf("\n got %x\nwant %x", have, without(pkt))
				}
			}
			mirror := wiretest.Ends{Left: e.Right, Right: e.Left}
			answer := datagram(mirror, rightPort, leftPort, []byte("answer"))
			rigtest.Must(t, back.SendOne(answer))
			if got := arrivals(t, l, 1)[0]; string(got.data) != "answer" || got.Outer.At != addrPort(e.Left, leftPort) {
				t.Errorf("the answer: %+v %q", got.Outer, got.data)
			}
			rigtest.Must(t, l.Close())
			rigtest.Must(t, r.Close())
		}
	})
}

// without returns a packet without what the kernel chooses: the identification and the
// checksum of IPv4, and the checksum of UDP, which it may leave to the device.
func without(pkt []byte) []byte {
	b := bytes.Clone(pkt)
	if header.Version(b) == 4 {
		copy(b[4:], []byte{0, 0})
		copy(b[10:], []byte{0, 0})
		copy(b[26:], []byte{0, 0})
	} else {
		copy(b[46:], []byte{0, 0})
	}
	return b
}

// setDF sets or clears DF in a packet, if it is one of IPv4.
func setDF(pkt []byte, on bool) {
	if header.Version(pkt) == 4 {
		if pkt[6] &^= header.DF >> 8; on {
			pkt[6] |= header.DF >> 8
		}
		header.IPv4(pkt).SetChecksum()
	}
}

// arrived is a packet with its description.
type arrived struct {
	transport.Meta
	data []byte
}

// arrivals waits for n packets.
func arrivals(t testing.TB, rx transport.Receiver, n int) []arrived {
	t.Helper()
	return arrivalsIn(t, rx, n, transport.MaxPacket)
}

// arrivalsIn is arrivals with buffers of a size.
func arrivalsIn(t testing.TB, rx transport.Receiver, n, size int) (got []arrived) {
	t.Helper()
	const count = 16
	bufs, meta := wiretest.Buffers(count, size), make([]transport.Meta, count)
	for len(got) < n {
		k, err := rx.Receive(bufs, meta)
		rigtest.Must(t, err)
		for i := range k {
			each := max(meta[i].Each, 1)
			data := bytes.Clone(bufs[i][:meta[i].Size])
			for ; meta[i].Each > 0 && len(data) > each; data = data[each:] {
				got = append(got, arrived{meta[i], data[:each]})
			}
			got = append(got, arrived{meta[i], data})
		}
	}
	return got
}

// TestUDPOptions: DF and the checksum are as the options of the port say.
func TestUDPOptions(t *testing.T) {
	left, right := wiretest.Two(t)
	e := wiretest.Ends4
	for _, o := range []transport.Options{{}, {Fragment: true}, {NoChecksum: true}} {
		p := udp(t, left, e.Left, 0, transport.Shard{}, o)
		from := p.Local().Port()
		c := wiretest.Capture(t, right, "eth0")
		pkt := datagram(e, from, rightPort, make([]byte, 333))
		setDF(pkt, !o.Fragment)
		rigtest.Must(t, sender(t, left, p, transport.Options{}).SendOne(pkt))
		f, err := c.Find(wiretest.Soon(t), func(f rig.Frame) bool { return len(f.Packet()) == len(pkt) })
		rigtest.Must(t, err)
		got := f.Packet()
		if df := binary.BigEndian.Uint16(got[6:])&header.DF != 0; df == o.Fragment {
			t.Errorf("%+v: DF is %v", o, df)
		}
		if none := binary.BigEndian.Uint16(got[26:]) == 0; none != o.NoChecksum {
			t.Errorf("%+v: no checksum: %v", o, none)
		}
		if _, err := p.Sender(transport.Options{Mark: 7}); err == nil {
			t.Error("a sender has another mark than the socket")
		}
	}
}

// TestUDPHeaders: with the option, packets begin with their headers, and a packet that
// does not fit with them has size 0.
func TestUDPHeaders(t *testing.T) {
	host := wiretest.Alone(t)
	wiretest.Both(t, func(t *testing.T, e wiretest.Ends) {
		l, r := udp(t, host, e.Left, leftPort, transport.Shard{}, transport.Options{}), udp(t, host, e.Right, rightPort, transport.Shard{}, transport.Options{Headers: true})
		if n := r.KernelHeaders(); n != 0 {
			t.Errorf("%d bytes of headers are missing", n)
		}
		tx := sender(t, host, l, transport.Options{})
		large := datagram(e, leftPort, rightPort, make([]byte, 2048-l.KernelHeaders()))
		pkts := [][]byte{datagram(e, leftPort, rightPort, []byte("whole")), large, append(bytes.Clone(large), 0), datagram(e, leftPort, rightPort, nil)}
		for _, pkt := range pkts {
			rigtest.Must(t, tx.SendOne(pkt))
		}
		pkts[2] = nil
		for i, got := range arrivalsIn(t, r, len(pkts), 2048) {
			want := bytes.Clone(pkts[i])
			if want != nil {
				want = without(wiretest.Arrived(want))
			}
			if have := got.data; len(have) > 0 && e.Left.Is4() { // DF is not known
				if header.IPv4(have).HeaderLen() != header.IPv4Len || header.Sum(have[:header.IPv4Len], 0) != 0xffff {
					t.Errorf("packet %d: the header checksum is wrong: %x", i, have)
				}
				have[6] |= header.DF >> 8
				got.data = without(have)
			}
			if !bytes.Equal(got.data, want) || len(want) > 0 && got.Outer.From != addrPort(e.Left, leftPort) {
				t.Errorf("packet %d: %+v\n got %x\nwant %x", i, got.Meta, got.data, want)
			}
		}
	})
}

// TestUDPAboveMTU: a packet larger than the device's MTU is refused, and no other.
func TestUDPAboveMTU(t *testing.T) {
	left, right := wiretest.Two(t)
	wiretest.Both(t, func(t *testing.T, e wiretest.Ends) {
		for _, fragment := range []bool{false, true} {
			l := udp(t, left, e.Left, leftPort, transport.Shard{}, transport.Options{Fragment: fragment})
			r := udp(t, right, e.Right, rightPort, transport.Shard{}, transport.Options{})
			room := 1500 - l.KernelHeaders()
			sent := [][]byte{datagram(e, leftPort, rightPort, make([]byte, room)), datagram(e, leftPort, rightPort, make([]byte, room+1)), datagram(e, leftPort, rightPort, make([]byte, room))}
			tx := sender(t, left, l, transport.Options{})
			for _, pkt := range sent {
				setDF(pkt, !fragment)
			}
			if n, err := tx.Send(wiretest.Pieces(sent)); n != 1 || !errors.Is(err, unix.EMSGSIZE) {
				t.Errorf("sent %d: %v", n, err)
			}
			if n, err := tx.Send(wiretest.Pieces(sent[2:])); n != 1 || err != nil {
				t.Errorf("sent %d: %v", n, err)
			}
			for _, got := range arrivals(t, r, 2) {
				if got.Size != room {
					t.Errorf("%d bytes", got.Size)
				}
			}
			rigtest.Must(t, l.Close())
			rigtest.Must(t, r.Close())
		}
	})
}

// A packet from another port than the sender's leaves from that port.
func TestUDPFromAnotherPort(t *testing.T) {
	host := wiretest.Alone(t)
	wiretest.Both(t, func(t *testing.T, e wiretest.Ends) {
		l, r := udp(t, host, e.Left, leftPort, transport.Shard{}, transport.Options{}), udp(t, host, e.Right, rightPort, transport.Shard{}, transport.Options{})
		tx := sender(t, host, l, transport.Options{})
		ports := []uint16{leftPort, 50000, 50000, 65535, leftPort}
		var pkts []transport.Packet
		for _, port := range ports {
			pkts = append(pkts, transport.Packet{Head: datagram(e, port, rightPort, []byte("flow"))})
		}
		if n, err := tx.Send(pkts); n != len(pkts) || err != nil {
			t.Fatalf("sent %d: %v", n, err)
		}
		rigtest.Must(t, tx.SendOne(pkts[1].Head))
		count := make(map[uint16]int)
		for _, got := range arrivals(t, r, len(pkts)+1) {
			count[got.Outer.From.Port()]++
		}
		if count[leftPort] != 2 || count[50000] != 3 || count[65535] != 1 {
			t.Errorf("packets by their ports: %v", count)
		}
	})
}

// TestUDPHostile: a packet that a sender cannot send costs only itself. A datagram that
// is larger than the buffer has size 0; those around it arrive.
func TestUDPHostile(t *testing.T) {
	host := wiretest.Alone(t)
	wiretest.Both(t, func(t *testing.T, e wiretest.Ends) {
		l, r := udp(t, host, e.Left, leftPort, transport.Shard{}, transport.Options{}), udp(t, host, e.Right, rightPort, transport.Shard{}, transport.Options{})
		tx := sender(t, host, l, transport.Options{})
		good := datagram(e, leftPort, rightPort, []byte("good"))
		other := wiretest.Ends6
		if e == wiretest.Ends6 {
			other = wiretest.Ends4
		}
		bad := [][]byte{nil, datagram(other, leftPort, rightPort, nil), make([]byte, 60)}
		for n := range l.KernelHeaders() {
			bad = append(bad, good[:n])
		}
		if e.Left.Is4() { // with options
			options := bytes.Clone(good)
			options[0] = 0x46
			bad = append(bad, options)
		}
		for _, pkt := range bad {
			batch := []transport.Packet{{Head: good}, {Head: pkt}, {Head: good}}
			if n, err := tx.Send(batch); n != 1 || !errors.Is(err, unix.EINVAL) {
				t.Errorf("%x: sent %d, %v", pkt, n, err)
			}
			if n, err := tx.Send(batch[2:]); n != 1 || err != nil {
				t.Errorf("%x: sent %d, %v", pkt, n, err)
			}
			if err := tx.SendOne(pkt); !errors.Is(err, unix.EINVAL) {
				t.Errorf("%x: %v", pkt, err)
			}
			arrivals(t, r, 2)
		}
		large := datagram(e, leftPort, rightPort, make([]byte, 3000))
		for _, pkt := range [][]byte{good, large, datagram(e, leftPort, rightPort, nil), good} {
			rigtest.Must(t, tx.SendOne(pkt))
		}
		for i, got := range arrivalsIn(t, r, 4, 2048) {
			if want := []string{"good", "", "", "good"}[i]; string(got.data) != want {
				t.Errorf("%d: %q", i, got.data)
			}
		}
	})
}

// TestUDPOthers: packets that a UDP socket cannot send leave as they are, in their place
// among the others.
func TestUDPOthers(t *testing.T) {
	left, right := wiretest.Two(t)
	wiretest.Both(t, func(t *testing.T, e wiretest.Ends) {
		l, r := udp(t, left, e.Left, leftPort, transport.Shard{}, transport.Options{}), udp(t, right, e.Right, rightPort, transport.Shard{}, transport.Options{})
		gre := wiretest.Listen(t, right, e.Right, header.GRE, transport.Shard{}, transport.Options{})
		tx := sender(t, left, l, transport.Options{})
		payload := bytes.Repeat([]byte("sixfour!"), 20)
		whole, other := datagram(e, leftPort, rightPort, payload), e.Outer(header.GRE, payload)
		fragments := e.Fragments(header.UDP, whole[l.KernelHeaders()-8:])
		batch := wiretest.Pieces(append([][]byte{whole, other, whole}, append(fragments, other, whole, other)...))
		if n, err := tx.Send(batch); n != len(batch) || err != nil {
			t.Fatalf("sent %d: %v", n, err)
		}
		for _, one := range [][]byte{other, fragments[1], fragments[0], whole} {
			rigtest.Must(t, tx.SendOne(one))
		}
		for i, got := range arrivals(t, r, 6) {
			if !bytes.Equal(got.data, payload) {
				t.Errorf("packet %d: %x", i, got.data)
			}
		}
		wiretest.Expect(t, gre, other, other, other, other)
		if !e.Left.Is4() {
			return
		}
		// DF is as in the packet, whether it is as that of the port or not.
		c := wiretest.Capture(t, right, "eth0")
		for size, df := range map[int]bool{300: true, 301: false} {
			pkt := datagram(e, leftPort, rightPort, make([]byte, size))
			setDF(pkt, df)
			rigtest.Must(t, tx.SendOne(pkt))
			f, err := c.Find(wiretest.Soon(t), func(f rig.Frame) bool { return len(f.Packet()) == len(pkt) })
			rigtest.Must(t, err)
			if got := binary.BigEndian.Uint16(f.Packet()[6:])&header.DF != 0; got != df {
				t.Errorf("DF is %v, want %v", got, df)
			}
		}
		arrivals(t, r, 2)
	})
}

// TestUDPClose: closing a port ends its Receive and closes its senders.
func TestUDPClose(t *testing.T) {
	host := wiretest.Alone(t)
	p := udp(t, host, wiretest.Ends4.Left, leftPort, transport.Shard{}, transport.Options{})
	tx, err := p.Sender(transport.Options{})
	rigtest.Must(t, err)
	done := make(chan error)
	go func() {
		_, err := p.Receive(wiretest.Buffers(1, 100), make([]transport.Meta, 1))
		done <- err
	}()
	rigtest.Must(t, p.Close())
	if err := <-done; !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
	pkt := datagram(wiretest.Ends4, leftPort, rightPort, nil)
	if _, err := tx.Send([]transport.Packet{{Head: pkt}}); !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
	if err := tx.SendOne(pkt); !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
	if _, err := p.Sender(transport.Options{}); !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
	rigtest.Must(t, tx.Close())
	udp(t, host, wiretest.Ends4.Left, leftPort, transport.Shard{}, transport.Options{}) // the address is free
}

// TestUDPShards: each remote port belongs to one shard, and each packet arrives once.
func TestUDPShards(t *testing.T) {
	host := wiretest.Alone(t)
	wiretest.Both(t, func(t *testing.T, e wiretest.Ends) {
		const shards, remotes, each = 3, 30, 5
		type packet struct {
			shard int
			from  netip.AddrPort
		}
		got := make(chan packet, remotes*each)
		for i := range shards {
			p := udp(t, host, e.Right, rightPort, transport.Shard{Index: i, Count: shards}, transport.Options{})
			done := make(chan struct{})
			go func() {
				defer close(done)
				bufs, meta := wiretest.Buffers(transport.BatchSize, 100), make([]transport.Meta, transport.BatchSize)
				for {
					n, err := p.Receive(bufs, meta)
					if err != nil {
						return
					}
					for _, m := range meta[:n] {
						got <- packet{i, m.Outer.From}
					}
				}
			}()
			t.Cleanup(func() { p.Close(); <-done })
		}
		for range remotes {
			p := udp(t, host, e.Left, 0, transport.Shard{}, transport.Options{})
			tx := sender(t, host, p, transport.Options{})
			for range each {
				rigtest.Must(t, tx.SendOne(datagram(e, p.Local().Port(), rightPort, nil)))
			}
		}
		shardOf, used := make(map[netip.AddrPort]int), make(map[int]bool)
		for range remotes * each {
			p := <-got
			if shard, ok := shardOf[p.from]; ok && shard != p.shard {
				t.Errorf("packets from %v arrive at shards %d and %d", p.from, shard, p.shard)
			}
			shardOf[p.from], used[p.shard] = p.shard, true
		}
		if len(shardOf) != remotes || len(used) != shards {
			t.Errorf("%d remotes at %d shards", len(shardOf), len(used))
		}
	})
}

// TestUDPWithoutCapabilities: a thread without capabilities opens and uses a port.
func TestUDPWithoutCapabilities(t *testing.T) {
	host := wiretest.Alone(t)
	wiretest.Both(t, func(t *testing.T, e wiretest.Ends) {
		rigtest.Must(t, host.Do(func() error { // on a thread of its own
			var none [2]unix.CapUserData
			if err := unix.Capset(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &none[0]); err != nil {
				return err
			}
			if _, err := transport.ListenRaw(e.Left, 41, transport.Shard{}, transport.Options{}); !errors.Is(err, unix.EPERM) {
				t.Errorf("a raw socket: %v", err)
			}
			if _, err := transport.ListenUDP(addrPort(e.Left, 53), transport.Shard{}, transport.Options{}); !errors.Is(err, unix.EACCES) || !strings.Contains(err.Error(), "CAP_NET_BIND_SERVICE") {
				t.Errorf("port 53: %v", err)
			}
			l, err := transport.ListenUDP(addrPort(e.Left, leftPort), transport.Shard{}, transport.Options{NoChecksum: true})
			if err != nil {
				return err
			}
			defer l.Close()
			r, err := transport.ListenUDP(addrPort(e.Right, rightPort), transport.Shard{}, transport.Options{})
			if err != nil {
				return err
			}
			defer r.Close()
			tx, err := l.Sender(transport.Options{})
			if err != nil {
				return err
			}
			if _, err := tx.Send([]transport.Packet{{Head: datagram(e, leftPort, rightPort, []byte("free"))}}); err != nil {
				return err
			}
			if got := arrivals(t, r, 1)[0]; string(got.data) != "free" {
				t.Errorf("%q", got.data)
			}
			return nil
		}))
	})
}

// TestAdoptUDP: a port is made from a descriptor that fits, with the packets that wait.
func TestAdoptUDP(t *testing.T) {
	host := wiretest.Alone(t)
	wiretest.Both(t, func(t *testing.T, e wiretest.Ends) {
		first := udp(t, host, e.Right, rightPort, transport.Shard{}, transport.Options{})
		l := udp(t, host, e.Left, leftPort, transport.Shard{}, transport.Options{})
		copyOf := func() (fd int) {
			rigtest.Must(t, first.Use(func(own int) (err error) {
				fd, err = unix.Dup(own)
				return err
			}))
			return fd
		}
		fd := copyOf()
		for _, other := range []netip.AddrPort{addrPort(e.Right, rightPort+1), addrPort(e.Left, rightPort), addrPort(netip.MustParseAddr("192.0.2.1"), rightPort)} {
			if _, err := transport.AdoptUDP(fd, other, transport.Options{}); !errors.Is(err, transport.ErrOther) {
				t.Errorf("%v: %v", other, err)
			}
		}
		rigtest.Must(t, sender(t, host, l, transport.Options{}).SendOne(datagram(e, leftPort, rightPort, []byte("waits"))))
		rigtest.Must(t, first.Close())
		second, err := transport.AdoptUDP(fd, addrPort(e.Right, rightPort), transport.Options{})
		rigtest.Must(t, err)
		defer second.Close()
		if got := arrivals(t, second, 1)[0]; string(got.data) != "waits" || got.Outer.From != addrPort(e.Left, leftPort) {
			t.Errorf("%+v", got)
		}
	})
}

// TestUDPOpenErrors: the error of an address in use names the address.
func TestUDPOpenErrors(t *testing.T) {
	host := wiretest.Alone(t)
	p := udp(t, host, wiretest.Ends4.Left, leftPort, transport.Shard{}, transport.Options{})
	rigtest.Must(t, host.Do(func() error {
		_, err := transport.ListenUDP(p.Local(), transport.Shard{}, transport.Options{})
		if !errors.Is(err, unix.EADDRINUSE) || !strings.Contains(err.Error(), p.Local().String()) {
			t.Error(err)
		}
		return nil
	}))
}

// TestUDPNoAllocs: sending and receiving allocate nothing.
func TestUDPNoAllocs(t *testing.T) {
	host := wiretest.Alone(t)
	wiretest.Both(t, func(t *testing.T, e wiretest.Ends) {
		l, r := udp(t, host, e.Left, leftPort, transport.Shard{}, transport.Options{}), udp(t, host, e.Right, rightPort, transport.Shard{}, transport.Options{Headers: true})
		tx := sender(t, host, l, transport.Options{})
		pkts := wiretest.Pieces([][]byte{datagram(e, leftPort, rightPort, make([]byte, 100)), datagram(e, leftPort, rightPort, make([]byte, 200))})
		one := datagram(e, leftPort, rightPort, make([]byte, 300))
		bufs, meta := wiretest.Buffers(transport.BatchSize, 2048), make([]transport.Meta, transport.BatchSize)
		n := testing.AllocsPerRun(100, func() {
			_, err := tx.Send(pkts)
			rigtest.Must(t, err)
			rigtest.Must(t, tx.SendOne(one))
			for got := 0; got < 3; {
				n, err := r.Receive(bufs, meta)
				rigtest.Must(t, err)
				got += n
			}
		})
		if n != 0 {
			t.Errorf("%v allocations", n)
		}
	})
}
