package transport_test

import (
	"bytes"
	"errors"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"sixfour/encap/header"
	"sixfour/internal/rig"
	"sixfour/internal/rig/rigtest"
	"sixfour/transport"
	"sixfour/transport/wiretest"
)

// fill returns n bytes of a value.
func fill(n int, value byte) []byte { return bytes.Repeat([]byte{value}, n) }

// split splits every other packet in two, behind the UDP header.
func split(pkts [][]byte) (out []transport.Packet) {
	for i, p := range pkts {
		cut := len(p)
		if i%2 == 1 {
			cut = max(len(p)/2, min(len(p), header.IPv6Len+header.UDPLen))
		}
		out = append(out, transport.Packet{Head: p[:cut], Body: p[cut:]})
	}
	return out
}

// changed returns a packet after a change.
func changed(pkt []byte, change func(pkt []byte)) []byte {
	b := bytes.Clone(pkt)
	change(b)
	if header.Version(b) == 4 {
		header.IPv4(b).SetChecksum()
	}
	return b
}

// TestUDPGroups: packets that follow each other and differ only in what the kernel writes
// leave in one message, the last of which may be shorter. All arrive as they are given, in
// their order.
func TestUDPGroups(t *testing.T) {
	left, right := wiretest.Two(t)
	wiretest.Both(t, func(t *testing.T, e wiretest.Ends) {
		r, s := udp(t, right, e.Right, rightPort, transport.Shard{}, transport.Options{}), udp(t, right, e.Right, rightPort+1, transport.Shard{}, transport.Options{})
		for _, local := range []netip.Addr{e.Left, wild(e.Left)} {
			l := udp(t, left, local, leftPort, transport.Shard{}, transport.Options{})
			tx := sender(t, left, l, transport.Options{})
			cut := l.KernelHeaders()
			of := func(sizes ...int) (pkts [][]byte) {
				for i, size := range sizes {
					pkts = append(pkts, datagram(e, leftPort, rightPort, fill(size, byte(i))))
				}
				return pkts
			}
			tos := func(pkt []byte) {
				if header.Version(pkt) == 4 {
					pkt[1] = 0x20
				} else {
					pkt[0], pkt[1] = 0x62, pkt[1]&0xf
				}
			}
			ttl := func(pkt []byte) {
				if header.Version(pkt) == 4 {
					pkt[8]--
				} else {
					pkt[7]--
				}
			}
			one := of(700)[0]
			other := datagram(e, leftPort, rightPort+1, fill(700, 9))
			many := make([]int, 100)
			for i := range many {
				many[i] = 64
			}
			for name, c := range map[string]struct {
				pkts     [][]byte
				messages int
			}{
				"one":                    {of(1000), 1},
				"equal":                  {of(1000, 1000, 1000, 1000), 1},
				"the last is shorter":    {of(1000, 1000, 999), 1},
				"one byte":               {of(1, 1, 1), 1},
				"one in between shorter": {of(1000, 999, 1000), 2},
				"growing":                {of(10, 20, 30), 3},
				"empty ones":             {of(10, 10, 0, 0, 10), 4},
				"more than 64":           {of(many...), 2},
				"more than 64 KB":        {append(of(1400, 1400), of(slicesOf(60, 1400)...)...), 2},
				"another TOS":            {[][]byte{one, one, changed(one, tos), changed(one, tos), one}, 3},
				"another TTL":            {[][]byte{one, one, changed(one, ttl), one}, 3},
				"another port":           {[][]byte{one, one, other, other, one}, 3},
			} {
				if n, err := tx.Send(split(c.pkts)); err != nil || n != len(c.pkts) {
					t.Fatalf("%s: sent %d: %v", name, n, err)
				}
				if n := transport.Messages(tx); n != c.messages {
					t.Errorf("%s: %d messages, want %d", name, n, c.messages)
				}
				var here, there [][]byte
				for _, pkt := range c.pkts {
					if bytes.Equal(pkt, other) {
						there = append(there, pkt)
					} else {
						here = append(here, pkt)
					}
				}
				same(t, name, arrivals(t, r, len(here)), here, cut)
				same(t, name, arrivals(t, s, len(there)), there, cut)
			}
			rigtest.Must(t, l.Close())
		}
		rigtest.Must(t, r.Close())
		rigtest.Must(t, s.Close())
	})
}

// wild returns the unspecified address of the same IP version.
func wild(a netip.Addr) netip.Addr {
	if a.Is4() {
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}

// slicesOf returns n times a value.
func slicesOf(n, value int) []int {
	all := make([]int, n)
	for i := range all {
		all[i] = value
	}
	return all
}

// same checks that packets arrived as they were sent, without their first cut bytes.
func same(t *testing.T, name string, got []arrived, want [][]byte, cut int) {
	t.Helper()
	for i, pkt := range want {
		tos, ttl := pkt[1], pkt[8]
		if header.Version(pkt) == 6 {
			tos, ttl = header.IPv6(pkt).TrafficClass(), header.IPv6(pkt).HopLimit()
		}
		if !bytes.Equal(got[i].data, pkt[cut:]) || got[i].Outer.TOS != tos || got[i].Outer.TTL != ttl {
			t.Errorf("%s: packet %d: %+v\n got %x\nwant %x", name, i, got[i].Outer, got[i].data, pkt[cut:])
		}
	}
}

// TestUDPGroupWithBadPackets: an error for a group is only about those of its packets that
// cannot be sent: the caller goes on behind each of them.
func TestUDPGroupWithBadPackets(t *testing.T) {
	left, right := wiretest.Two(t)
	wiretest.Both(t, func(t *testing.T, e wiretest.Ends) {
		l, r := udp(t, left, e.Left, leftPort, transport.Shard{}, transport.Options{}), udp(t, right, e.Right, rightPort, transport.Shard{}, transport.Options{})
		tx := sender(t, left, l, transport.Options{})
		most := 1500 - l.KernelHeaders()
		var pkts, good [][]byte
		for i, size := range []int{100, most + 1, most + 1, 100, 100, 100, most, most + 2, 99} {
			pkts = append(pkts, datagram(e, leftPort, rightPort, fill(size, byte(i))))
			if size <= most {
				good = append(good, pkts[i])
			}
		}
		lost := 0
		for rest := split(pkts); len(rest) > 0; {
			n, err := tx.Send(rest)
			if err == nil && n == len(rest) {
				break
			}
			if !errors.Is(err, unix.EMSGSIZE) || rest[n].Len() <= 1500 {
				t.Fatalf("%v about a packet of %d bytes", err, rest[n].Len())
			}
			lost++
			rest = rest[n+1:]
		}
		if lost != len(pkts)-len(good) {
			t.Errorf("%d are lost", lost)
		}
		same(t, "good", arrivals(t, r, len(good)), good, l.KernelHeaders())
		// Groups are still sent.
		again := [][]byte{good[0], good[0], good[0]}
		if n, err := tx.Send(split(again)); n != 3 || err != nil || transport.Messages(tx) != 1 {
			t.Errorf("sent %d in %d messages: %v", n, transport.Messages(tx), err)
		}
		arrivals(t, r, 3)
		rigtest.Must(t, l.Close())
		rigtest.Must(t, r.Close())
	})
}

// TestUDPWithoutGroups: where the kernel refuses groups, as with SO_NO_CHECK, every packet
// still leaves, and the next batches are sent without trying.
func TestUDPWithoutGroups(t *testing.T) {
	left, right := wiretest.Two(t)
	e := wiretest.Ends4
	l, r := udp(t, left, e.Left, leftPort, transport.Shard{}, transport.Options{NoChecksum: true}), udp(t, right, e.Right, rightPort, transport.Shard{}, transport.Options{})
	tx := sender(t, left, l, transport.Options{})
	var pkts [][]byte
	for i := range 10 {
		pkts = append(pkts, changed(datagram(e, leftPort, rightPort, fill(300, byte(i))), func(pkt []byte) { clear(pkt[26:28]) }))
	}
	for range 3 {
		if n, err := tx.Send(split(pkts)); n != len(pkts) || err != nil {
			t.Fatalf("sent %d: %v", n, err)
		}
		same(t, "alone", arrivals(t, r, len(pkts)), pkts, l.KernelHeaders())
	}
	if n := transport.Messages(tx); n != len(pkts) {
		t.Errorf("%d messages for %d packets: refused groups are tried again at once", n, len(pkts))
	}
	for range transport.PlainBatches {
		_, err := tx.Send(split(pkts[:1]))
		rigtest.Must(t, err)
	}
	if transport.WithoutGroups(tx) {
		t.Error("groups are never tried again")
	}
}

// TestUDPMerged: a port receives several datagrams in one buffer, with and without headers
// before them, of any size, and never more than fit.
func TestUDPMerged(t *testing.T) {
	host := wiretest.Alone(t)
	wiretest.Both(t, func(t *testing.T, e wiretest.Ends) {
		l := udp(t, host, e.Left, leftPort, transport.Shard{}, transport.Options{})
		l2 := udp(t, host, e.Left, leftPort+1, transport.Shard{}, transport.Options{})
		tx, tx2 := sender(t, host, l, transport.Options{}), sender(t, host, l2, transport.Options{})
		for _, headers := range []bool{false, true} {
			r := udp(t, host, e.Right, rightPort, transport.Shard{}, transport.Options{Headers: headers})
			front := l.KernelHeaders() - r.KernelHeaders()
			for _, c := range []struct {
				sizes []int
				each  int
			}{
				{[]int{1000, 1000, 1000}, 1000},
				{[]int{1000, 1000, 1}, 1000},
				{[]int{1, 1, 1, 1}, 1},
				{slicesOf(64, 5), 5},
				{slicesOf(45, 1400), 1400},
				{[]int{1400}, 0},
			} {
				var whole []byte
				var pkts [][]byte
				for i, size := range c.sizes {
					pkts = append(pkts, datagram(e, leftPort, rightPort, fill(size, byte(i))))
					whole = append(whole, fill(size, byte(i))...)
				}
				// One from another source in between is not merged with them.
				stranger := datagram(e, leftPort+1, rightPort, fill(c.sizes[0], 0xee))
				for _, send := range []struct {
					tx   transport.Sender
					pkts [][]byte
				}{{tx, pkts}, {tx2, [][]byte{stranger}}, {tx, pkts}} {
					if n, err := send.tx.Send(split(send.pkts)); n != len(send.pkts) || err != nil {
						t.Fatalf("sent %d: %v", n, err)
					}
				}
				got := buffers(t, r, 3, transport.MaxPacket)
				for _, i := range []int{0, 2} {
					b := got[i]
					if b.Each != c.each || b.Size != front+len(whole) || !bytes.Equal(b.data[front:], whole) || b.Outer.From != addrPort(e.Left, leftPort) {
						t.Errorf("%v: %+v, %d bytes", c.sizes, b.Meta, len(b.data))
					}
					if first := pkts[0]; headers && front > 0 {
						want := without(wiretest.Arrived(first))
						have := changed(b.data[:len(first)], func(pkt []byte) { // DF is not known
							if e.Left.Is4() {
								pkt[6] |= header.DF >> 8
							}
						})
						if !bytes.Equal(without(have), want) {
							t.Errorf("%v: headers:\n got %x\nwant %x", c.sizes, have[:front], want[:front])
						}
					}
				}
				if got[1].Each != 0 || got[1].Size != front+c.sizes[0] || got[1].Outer.From.Port() != leftPort+1 {
					t.Errorf("%v: the other source: %+v", c.sizes, got[1].Meta)
				}
			}
			// Datagrams that do not fit together are lost together; what follows arrives.
			for _, pkts := range [][][]byte{{datagram(e, leftPort, rightPort, fill(900, 1)), datagram(e, leftPort, rightPort, fill(900, 2))}, {datagram(e, leftPort, rightPort, fill(900, 3))}} {
				if _, err := tx.Send(split(pkts)); err != nil {
					t.Fatal(err)
				}
			}
			got := buffers(t, r, 2, 1000)
			if got[0].Size != 0 || got[1].Size != front+900 || got[1].Each != 0 {
				t.Errorf("in small buffers: %+v", got)
			}
			rigtest.Must(t, r.Close())
		}
		rigtest.Must(t, l.Close())
		rigtest.Must(t, l2.Close())
	})
}

// buffers waits until n buffers of a size were received, and returns what is in them.
func buffers(t *testing.T, rx transport.Receiver, n, size int) (got []arrived) {
	t.Helper()
	bufs, meta := wiretest.Buffers(4, size), make([]transport.Meta, 4)
	for len(got) < n {
		k, err := rx.Receive(bufs, meta)
		rigtest.Must(t, err)
		for i := range k {
			got = append(got, arrived{meta[i], bytes.Clone(bufs[i][:meta[i].Size])})
		}
	}
	return got
}

// TestUDPUnsummed: a packet whose checksum is any number but 0 leaves with the right one,
// through the UDP socket and, with another DF bit, through the raw socket.
func TestUDPUnsummed(t *testing.T) {
	left, right := wiretest.Two(t)
	wiretest.Both(t, func(t *testing.T, e wiretest.Ends) {
		l, r := udp(t, left, e.Left, leftPort, transport.Shard{}, transport.Options{}), udp(t, right, e.Right, rightPort, transport.Shard{}, transport.Options{})
		tx := sender(t, left, l, transport.Options{})
		c := wiretest.Capture(t, right, "eth0")
		for i, df := range []bool{true, false} {
			right := datagram(e, leftPort, rightPort, fill(401+i, 7))
			setDF(right, df)
			pkt := changed(right, func(pkt []byte) { copy(pkt[l.KernelHeaders()-2:], []byte{0xff, 0xff}) })
			if i == 0 {
				rigtest.Must(t, tx.SendOne(pkt))
			} else if _, err := tx.Send(split([][]byte{pkt})); err != nil {
				t.Fatal(err)
			}
			if got := arrivals(t, r, 1); !bytes.Equal(got[0].data, right[l.KernelHeaders():]) {
				t.Errorf("%x", got[0].data)
			}
			f, err := c.Find(wiretest.Soon(t), func(f rig.Frame) bool { return len(f.Packet()) == len(right) })
			rigtest.Must(t, err)
			if at := l.KernelHeaders() - 2; e.Left.Is4() && !df && !bytes.Equal(f.Packet()[at:], right[at:]) {
				t.Errorf("through the raw socket: %x, want %x", f.Packet()[at:at+2], right[at:at+2])
			}
		}
		// From another port than the socket's: always through the raw socket.
		other := changed(datagram(e, leftPort+7, rightPort, fill(99, 7)), func(pkt []byte) { copy(pkt[l.KernelHeaders()-2:], []byte{0xff, 0xff}) })
		if _, err := tx.Send(split([][]byte{other, bytes.Clone(other)})); err != nil {
			t.Fatal(err)
		}
		for _, got := range arrivals(t, r, 2) {
			if got.Outer.From.Port() != leftPort+7 || !bytes.Equal(got.data, fill(99, 7)) {
				t.Errorf("from another port: %+v", got)
			}
		}
		rigtest.Must(t, l.Close())
		rigtest.Must(t, r.Close())
	})
}

// TestUDPOldKernel: on a kernel without UDP_SEGMENT, which would ignore it, each packet leaves
// in a message of its own, always.
func TestUDPOldKernel(t *testing.T) {
	host := wiretest.Alone(t)
	wiretest.Both(t, func(t *testing.T, e wiretest.Ends) {
		l, r := udp(t, host, e.Left, leftPort, transport.Shard{}, transport.Options{}), udp(t, host, e.Right, rightPort, transport.Shard{}, transport.Options{})
		tx := sender(t, host, l, transport.Options{})
		transport.DisableGroups(tx)
		var pkts [][]byte
		for i := range 5 {
			pkts = append(pkts, datagram(e, leftPort, rightPort, fill(100, byte(i))))
		}
		for range 3 {
			if n, err := tx.Send(split(pkts)); n != len(pkts) || err != nil || transport.Messages(tx) != len(pkts) {
				t.Errorf("sent %d in %d messages: %v", n, transport.Messages(tx), err)
			}
			same(t, "alone", arrivals(t, r, len(pkts)), pkts, l.KernelHeaders())
		}
		rigtest.Must(t, l.Close())
		rigtest.Must(t, r.Close())
	})
}

// TestUDPManyWithoutChecksum: datagrams without a checksum arrive, over both IP versions, also where
// the kernel merges datagrams.
func TestUDPManyWithoutChecksum(t *testing.T) {
	left, right := wiretest.Two(t)
	wiretest.Both(t, func(t *testing.T, e wiretest.Ends) {
		r := udp(t, right, e.Right, rightPort, transport.Shard{}, transport.Options{})
		raw := wiretest.Dial(t, left, e.Left, transport.Options{})
		var pkts [][]byte
		for i := range 20 {
			pkts = append(pkts, changed(datagram(e, leftPort, rightPort, fill(500, byte(i))), func(pkt []byte) {
				clear(pkt[header.HeadersLen(e.Left)-2:][:2])
			}))
		}
		if n, err := raw.Send(split(pkts)); n != len(pkts) || err != nil {
			t.Fatalf("sent %d: %v", n, err)
		}
		same(t, "zero", arrivals(t, r, len(pkts)), pkts, header.HeadersLen(e.Left))
		rigtest.Must(t, raw.Close())
		rigtest.Must(t, r.Close())
	})
}
