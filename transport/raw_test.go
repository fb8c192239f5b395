package transport_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"sixfour/encap/header"
	"sixfour/internal/rig"
	"sixfour/transport"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// protocol is a protocol number for experiments (RFC 3692).
const protocol = 253

// pair returns a sender at the left end and a receiver at the right.
func pair(t *testing.T, host *rig.Namespace, e ends) (*transport.RawSender, *transport.RawReceiver) {
	t.Helper()
	return dial(t, host, e.left, transport.Options{}), listen(t, host, e.right, protocol, transport.Shard{}, transport.Options{})
}

// packet returns a packet of size bytes that contains n.
func (e ends) packet(size, n int) []byte {
	payload := make([]byte, size-len(e.outer(protocol, nil)))
	binary.BigEndian.PutUint32(payload, uint32(n))
	return e.outer(protocol, payload)
}

// pieces splits every other packet in two, after the IP header.
func pieces(pkts [][]byte) []transport.Packet {
	var out []transport.Packet
	for i, p := range pkts {
		cut := len(p)
		if i%2 == 1 {
			cut = max(len(p)/2, min(len(p), header.IPv6Len))
		}
		out = append(out, transport.Packet{Head: p[:cut], Body: p[cut:]})
	}
	return out
}

func buffers(n, size int) [][]byte {
	b := make([][]byte, n)
	for i := range b {
		b[i] = make([]byte, size)
	}
	return b
}

// receive waits for n packets.
func receive(t *testing.T, rx transport.Receiver, n int) [][]byte {
	t.Helper()
	bufs, sizes := buffers(transport.BatchSize, transport.MaxPacket), make([]int, transport.BatchSize)
	var got [][]byte
	for len(got) < n {
		k, err := rx.Receive(bufs, sizes)
		check(t, err)
		for i := range k {
			got = append(got, bytes.Clone(bufs[i][:sizes[i]]))
		}
	}
	return got
}

// expect waits for packets that were sent, which must be the next to arrive.
func expect(t *testing.T, rx transport.Receiver, sent ...[]byte) {
	t.Helper()
	for i, got := range receive(t, rx, len(sent)) {
		if i >= len(sent) {
			t.Errorf("one more packet: %x", got)
		} else if want := arrived(sent[i]); !bytes.Equal(got, want) {
			t.Errorf("packet %d\n got %x\nwant %x", i, got, want)
		}
	}
}

func TestBatches(t *testing.T) {
	host := alone(t)
	both(t, func(t *testing.T, e ends) {
		for _, n := range []int{1, 2, transport.BatchSize, transport.BatchSize + 1, 3 * transport.BatchSize} {
			t.Run(fmt.Sprint(n), func(t *testing.T) {
				tx, rx := pair(t, host, e)
				var pkts [][]byte
				for i := range n {
					pkts = append(pkts, e.packet(44+i%1400, i))
				}
				if sent, err := tx.Send(pieces(pkts)); err != nil || sent != n {
					t.Fatalf("sent %d: %v", sent, err)
				}
				expect(t, rx, pkts...)
			})
		}
	})
}

// TestBadPacketInBatch: a packet that is refused affects no other, and the error is
// about it.
func TestBadPacketInBatch(t *testing.T) {
	host := alone(t)
	both(t, func(t *testing.T, e ends) {
		other := ends6
		if e == ends6 {
			other = ends4
		}
		good := e.packet(100, 0)
		for name, bad := range map[string]transport.Packet{
			"nothing":                {},
			"two bytes":              {Head: good[:2]},
			"a header in two pieces": {Head: good[:19], Body: good[19:]},
			"of the other version":   {Head: other.packet(100, 0)},
			"of no version":          {Head: make([]byte, 100)},
		} {
			t.Run(name, func(t *testing.T) {
				tx, rx := pair(t, host, e)
				sent := [][]byte{e.packet(100, 0), e.packet(100, 1), e.packet(100, 2)}
				pkts := pieces(sent)
				pkts = append(pkts[:2:2], bad, pkts[2])
				n, err := tx.Send(pkts)
				if n != 2 || !errors.Is(err, unix.EINVAL) {
					t.Fatalf("sent %d: %v", n, err)
				}
				if n, err := tx.Send(pkts[2:]); n != 0 || !errors.Is(err, unix.EINVAL) {
					t.Fatalf("sent %d: %v", n, err)
				}
				if n, err := tx.Send(pkts[3:]); n != 1 || err != nil {
					t.Fatalf("the rest: %d, %v", n, err)
				}
				if bad.Body == nil {
					if err := tx.SendOne(bad.Head); !errors.Is(err, unix.EINVAL) {
						t.Errorf("alone: %v", err)
					}
				}
				expect(t, rx, sent...)
			})
		}
	})
}

// TestTruncatedPacketHasSizeZero: a packet larger than its buffer is not passed on as a
// shorter one.
func TestTruncatedPacketHasSizeZero(t *testing.T) {
	host := alone(t)
	both(t, func(t *testing.T, e ends) {
		for _, room := range []int{500, 999, 100, 99, 40, 39, 1, 0} {
			tx, rx := pair(t, host, e)
			pkts := [][]byte{e.packet(1000, 0), e.packet(100, 1)}
			if _, err := tx.Send(pieces(pkts)); err != nil {
				t.Fatal(err)
			}
			bufs, sizes := buffers(transport.BatchSize, room), make([]int, transport.BatchSize)
			var got []int
			for len(got) < len(pkts) {
				n, err := rx.Receive(bufs, sizes)
				check(t, err)
				got = append(got, sizes[:n]...)
			}
			for i, p := range pkts {
				if want := map[bool]int{true: len(p)}[len(p) <= room]; got[i] != want {
					t.Errorf("%d bytes into %d: size %d, want %d", len(p), room, got[i], want)
				}
			}
		}
	})
}

// TestSizes sends the largest and the smallest packets.
func TestSizes(t *testing.T) {
	host := alone(t)
	both(t, func(t *testing.T, e ends) {
		tx, rx := pair(t, host, e)
		for _, size := range []int{len(e.outer(protocol, nil)), len(e.outer(protocol, nil)) + 1, 60000, transport.MaxPacket} {
			pkt := e.outer(protocol, make([]byte, size-len(e.outer(protocol, nil))))
			check(t, tx.SendOne(pkt)) // within the MTU of loopback
			expect(t, rx, pkt)
		}
	})
}

func TestCloseEndsReceive(t *testing.T) {
	host := alone(t)
	both(t, func(t *testing.T, e ends) {
		_, rx := pair(t, host, e)
		done := make(chan error)
		go func() {
			_, err := rx.Receive(buffers(1, 100), make([]int, 1))
			done <- err
		}()
		rx.Close()
		if err := <-done; !errors.Is(err, net.ErrClosed) {
			t.Errorf("%v, want %v", err, net.ErrClosed)
		}
	})
}

func TestSendAfterClose(t *testing.T) {
	host := alone(t)
	both(t, func(t *testing.T, e ends) {
		tx, _ := pair(t, host, e)
		tx.Close()
		if _, err := tx.Send(pieces([][]byte{e.packet(100, 0)})); !errors.Is(err, net.ErrClosed) {
			t.Errorf("%v, want %v", err, net.ErrClosed)
		}
		if err := tx.SendOne(e.packet(100, 0)); !errors.Is(err, net.ErrClosed) {
			t.Errorf("%v, want %v", err, net.ErrClosed)
		}
	})
}

// TestDestinations: packets go to their destinations, and a receiver gets only packets
// to its own address.
func TestDestinations(t *testing.T) {
	host := alone(t)
	both(t, func(t *testing.T, e ends) {
		tx := dial(t, host, e.left, transport.Options{})
		back := ends{e.left, e.left}
		right := listen(t, host, e.right, protocol, transport.Shard{}, transport.Options{})
		left := listen(t, host, e.left, protocol, transport.Shard{}, transport.Options{})
		var pkts [][]byte
		for i := range 2 * transport.BatchSize {
			pkts = append(pkts, e.packet(100, i), back.packet(100, i))
		}
		if sent, err := tx.Send(pieces(pkts)); err != nil {
			t.Fatalf("sent %d: %v", sent, err)
		}
		check(t, tx.SendOne(back.packet(200, 0)))
		check(t, tx.SendOne(e.packet(200, 0)))
		var toRight, toLeft [][]byte
		for i := 0; i < len(pkts); i += 2 {
			toRight, toLeft = append(toRight, pkts[i]), append(toLeft, pkts[i+1])
		}
		expect(t, right, append(toRight, e.packet(200, 0))...)
		expect(t, left, append(toLeft, back.packet(200, 0))...)
	})
}

// TestReceiverStartsEmpty: this holds from the first packet on: packets that arrive
// while a receiver is opened, to any address, are not received.
func TestReceiverStartsEmpty(t *testing.T) {
	host := alone(t)
	both(t, func(t *testing.T, e ends) {
		stop, done := make(chan struct{}), make(chan struct{})
		flood, tx := dial(t, host, e.left, transport.Options{}), dial(t, host, e.left, transport.Options{})
		go func() {
			defer close(done)
			pkts := pieces([][]byte{e.packet(100, 0), e.packet(100, 1), e.packet(100, 2), e.packet(100, 3)})
			for {
				select {
				case <-stop:
					return
				default:
					_, _ = flood.Send(pkts)
				}
			}
		}()
		t.Cleanup(func() {
			close(stop)
			<-done
		})
		toLeft := ends{e.left, e.left}.packet(100, 0)
		for range 20 {
			rx := listen(t, host, e.left, protocol, transport.Shard{}, transport.Options{})
			check(t, tx.SendOne(toLeft))
			expect(t, rx, toLeft)
			check(t, rx.Close())
		}
	})
}

// TestAddressComesLater: the local address may be added after its sockets were opened.
func TestAddressComesLater(t *testing.T) {
	both(t, func(t *testing.T, e ends) {
		n := namespace(t, "alone")
		check(t, n.AddAddr("lo", netip.PrefixFrom(e.left, e.left.BitLen())))
		tx := dial(t, n, e.left, transport.Options{})
		rx := listen(t, n, e.right, protocol, transport.Shard{}, transport.Options{})
		check(t, n.AddAddr("lo", netip.PrefixFrom(e.right, e.right.BitLen())))
		settle(t, n, e.right)
		check(t, tx.SendOne(e.packet(100, 0)))
		expect(t, rx, e.packet(100, 0))
	})
}

func TestNoAllocs(t *testing.T) {
	host := alone(t)
	both(t, func(t *testing.T, e ends) {
		tx, rx := pair(t, host, e)
		pkts, one := pieces([][]byte{e.packet(100, 0), e.packet(200, 1)}), e.packet(100, 2)
		bufs, sizes := buffers(transport.BatchSize, 2048), make([]int, transport.BatchSize)
		if n := testing.AllocsPerRun(100, func() {
			if _, err := tx.Send(pkts); err != nil {
				t.Fatal(err)
			}
			if err := tx.SendOne(one); err != nil {
				t.Fatal(err)
			}
			for got := 0; got < len(pkts)+1; {
				n, err := rx.Receive(bufs, sizes)
				if err != nil {
					t.Fatal(err)
				}
				got += n
			}
		}); n != 0 {
			t.Errorf("%v allocations a batch", n)
		}
	})
}
