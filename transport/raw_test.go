package transport_test

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"sixfour/internal/rig"
	"sixfour/internal/rig/rigtest"
	"sixfour/transport"
	"sixfour/transport/wiretest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const protocol = wiretest.Protocol

// pair returns a sender at the left end and a receiver at the right.
func pair(t *testing.T, host *rig.Namespace, e wiretest.Ends) (*transport.RawSender, *transport.RawPort) {
	t.Helper()
	return wiretest.Dial(t, host, e.Left, transport.Options{}), wiretest.Listen(t, host, e.Right, protocol, transport.Shard{}, transport.Options{})
}

func TestBatches(t *testing.T) {
	host := wiretest.Alone(t)
	wiretest.Both(t, func(t *testing.T, e wiretest.Ends) {
		for _, n := range []int{1, 2, transport.BatchSize, transport.BatchSize + 1, 3 * transport.BatchSize} {
			t.Run(fmt.Sprint(n), func(t *testing.T) {
				tx, rx := pair(t, host, e)
				var pkts [][]byte
				for i := range n {
					pkts = append(pkts, e.Packet(44+i%1400, i))
				}
				if sent, err := tx.Send(wiretest.Pieces(pkts)); err != nil || sent != n {
					t.Fatalf("sent %d: %v", sent, err)
				}
				wiretest.Expect(t, rx, pkts...)
			})
		}
	})
}

// TestBadPacketInBatch: a packet that is refused affects no other, and the error is
// about it.
func TestBadPacketInBatch(t *testing.T) {
	host := wiretest.Alone(t)
	wiretest.Both(t, func(t *testing.T, e wiretest.Ends) {
		other := wiretest.Ends6
		if e == wiretest.Ends6 {
			other = wiretest.Ends4
		}
		good := e.Packet(100, 0)
		for name, bad := range map[string]transport.Packet{
			"nothing":                {},
			"two bytes":              {Head: good[:2]},
			"a header in two pieces": {Head: good[:19], Body: good[19:]},
			"of the other version":   {Head: other.Packet(100, 0)},
			"of no version":          {Head: make([]byte, 100)},
		} {
			t.Run(name, func(t *testing.T) {
				tx, rx := pair(t, host, e)
				sent := [][]byte{e.Packet(100, 0), e.Packet(100, 1), e.Packet(100, 2)}
				pkts := wiretest.Pieces(sent)
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
				wiretest.Expect(t, rx, sent...)
			})
		}
	})
}

// TestTruncatedPacketHasSizeZero: a packet larger than its buffer is not passed on as a
// shorter one.
func TestTruncatedPacketHasSizeZero(t *testing.T) {
	host := wiretest.Alone(t)
	wiretest.Both(t, func(t *testing.T, e wiretest.Ends) {
		for _, room := range []int{500, 999, 100, 99, 40, 39, 1, 0} {
			tx, rx := pair(t, host, e)
			pkts := [][]byte{e.Packet(1000, 0), e.Packet(100, 1)}
			if _, err := tx.Send(wiretest.Pieces(pkts)); err != nil {
				t.Fatal(err)
			}
			bufs, meta := wiretest.Buffers(transport.BatchSize, room), make([]transport.Meta, transport.BatchSize)
			var got []int
			for len(got) < len(pkts) {
				n, err := rx.Receive(bufs, meta)
				rigtest.Must(t, err)
				for _, m := range meta[:n] {
					got = append(got, m.Size)
				}
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
	host := wiretest.Alone(t)
	wiretest.Both(t, func(t *testing.T, e wiretest.Ends) {
		tx, rx := pair(t, host, e)
		for _, size := range []int{len(e.Outer(protocol, nil)), len(e.Outer(protocol, nil)) + 1, 60000, transport.MaxPacket} {
			pkt := e.Outer(protocol, make([]byte, size-len(e.Outer(protocol, nil))))
			rigtest.Must(t, tx.SendOne(pkt)) // within the MTU of loopback
			wiretest.Expect(t, rx, pkt)
		}
	})
}

func TestCloseEndsReceive(t *testing.T) {
	host := wiretest.Alone(t)
	wiretest.Both(t, func(t *testing.T, e wiretest.Ends) {
		_, rx := pair(t, host, e)
		done := make(chan error)
		go func() {
			_, err := rx.Receive(wiretest.Buffers(1, 100), make([]transport.Meta, 1))
			done <- err
		}()
		rx.Close()
		if err := <-done; !errors.Is(err, net.ErrClosed) {
			t.Errorf("%v, want %v", err, net.ErrClosed)
		}
	})
}

func TestSendAfterClose(t *testing.T) {
	host := wiretest.Alone(t)
	wiretest.Both(t, func(t *testing.T, e wiretest.Ends) {
		tx, _ := pair(t, host, e)
		tx.Close()
		if _, err := tx.Send(wiretest.Pieces([][]byte{e.Packet(100, 0)})); !errors.Is(err, net.ErrClosed) {
			t.Errorf("%v, want %v", err, net.ErrClosed)
		}
		if err := tx.SendOne(e.Packet(100, 0)); !errors.Is(err, net.ErrClosed) {
			t.Errorf("%v, want %v", err, net.ErrClosed)
		}
	})
}

// TestDestinations: packets go to their destinations, and a receiver gets only packets
// to its own address.
func TestDestinations(t *testing.T) {
	host := wiretest.Alone(t)
	wiretest.Both(t, func(t *testing.T, e wiretest.Ends) {
		tx := wiretest.Dial(t, host, e.Left, transport.Options{})
		back := wiretest.Ends{Left: e.Left, Right: e.Left}
		right := wiretest.Listen(t, host, e.Right, protocol, transport.Shard{}, transport.Options{})
		left := wiretest.Listen(t, host, e.Left, protocol, transport.Shard{}, transport.Options{})
		var pkts [][]byte
		for i := range 2 * transport.BatchSize {
			pkts = append(pkts, e.Packet(100, i), back.Packet(100, i))
		}
		if sent, err := tx.Send(wiretest.Pieces(pkts)); err != nil {
			t.Fatalf("sent %d: %v", sent, err)
		}
		rigtest.Must(t, tx.SendOne(back.Packet(200, 0)))
		rigtest.Must(t, tx.SendOne(e.Packet(200, 0)))
		var toRight, toLeft [][]byte
		for i := 0; i < len(pkts); i += 2 {
			toRight, toLeft = append(toRight, pkts[i]), append(toLeft, pkts[i+1])
		}
		wiretest.Expect(t, right, append(toRight, e.Packet(200, 0))...)
		wiretest.Expect(t, left, append(toLeft, back.Packet(200, 0))...)
	})
}

// TestReceiverStartsEmpty: this holds from the first packet on: packets that arrive
// while a receiver is opened, to any address, are not received.
func TestReceiverStartsEmpty(t *testing.T) {
	host := wiretest.Alone(t)
	wiretest.Both(t, func(t *testing.T, e wiretest.Ends) {
		stop, done := make(chan struct{}), make(chan struct{})
		flood, tx := wiretest.Dial(t, host, e.Left, transport.Options{}), wiretest.Dial(t, host, e.Left, transport.Options{})
		go func() {
			defer close(done)
			pkts := wiretest.Pieces([][]byte{e.Packet(100, 0), e.Packet(100, 1), e.Packet(100, 2), e.Packet(100, 3)})
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
		toLeft := wiretest.Ends{Left: e.Left, Right: e.Left}.Packet(100, 0)
		for range 20 {
			rx := wiretest.Listen(t, host, e.Left, protocol, transport.Shard{}, transport.Options{})
			rigtest.Must(t, tx.SendOne(toLeft))
			wiretest.Expect(t, rx, toLeft)
			rigtest.Must(t, rx.Close())
		}
	})
}

// TestAddressComesLater: the local address may be added after its sockets were opened.
func TestAddressComesLater(t *testing.T) {
	wiretest.Both(t, func(t *testing.T, e wiretest.Ends) {
		n := rigtest.Namespace(t, "alone")
		rigtest.Must(t, n.AddAddr("lo", netip.PrefixFrom(e.Left, e.Left.BitLen())))
		tx := wiretest.Dial(t, n, e.Left, transport.Options{})
		rx := wiretest.Listen(t, n, e.Right, protocol, transport.Shard{}, transport.Options{})
		rigtest.Must(t, n.AddAddr("lo", netip.PrefixFrom(e.Right, e.Right.BitLen())))
		wiretest.Settle(t, n, e.Right)
		rigtest.Must(t, tx.SendOne(e.Packet(100, 0)))
		wiretest.Expect(t, rx, e.Packet(100, 0))
	})
}

func TestNoAllocs(t *testing.T) {
	host := wiretest.Alone(t)
	wiretest.Both(t, func(t *testing.T, e wiretest.Ends) {
		tx, rx := pair(t, host, e)
		pkts, one := wiretest.Pieces([][]byte{e.Packet(100, 0), e.Packet(200, 1)}), e.Packet(100, 2)
		bufs, meta := wiretest.Buffers(transport.BatchSize, 2048), make([]transport.Meta, transport.BatchSize)
		if n := testing.AllocsPerRun(100, func() {
			if _, err := tx.Send(pkts); err != nil {
				t.Fatal(err)
			}
			if err := tx.SendOne(one); err != nil {
				t.Fatal(err)
			}
			for got := 0; got < len(pkts)+1; {
				n, err := rx.Receive(bufs, meta)
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
