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
	"sixfour/transport"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The tests send packets of protocol 253 (RFC 3692) over loopback. They need
// CAP_NET_RAW.
const protocol = 253

var (
	here  = netip.MustParseAddr("127.0.64.1")
	there = netip.MustParseAddr("127.0.64.2")
)

func pair(t *testing.T) (*transport.RawSender, *transport.RawReceiver) {
	t.Helper()
	rx, err := transport.ListenRaw(there, protocol, transport.Shard{}, transport.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { rx.Close() })
	tx, err := transport.DialRaw(here, transport.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tx.Close() })
	return tx, rx
}

// packet is an IPv4 packet of size bytes that holds n.
func packet(size, n int) []byte {
	p := make([]byte, size)
	p[0], p[6], p[8], p[9] = 0x45, 0x40, 64, protocol
	binary.BigEndian.PutUint16(p[2:], uint16(size))
	copy(p[12:], here.AsSlice())
	copy(p[16:], there.AsSlice())
	binary.BigEndian.PutUint32(p[20:], uint32(n))
	header.IPv4(p).SetChecksum()
	return p
}

// pieces cuts every other packet in two, behind the IP header.
func pieces(pkts [][]byte) []transport.Packet {
	var out []transport.Packet
	for i, p := range pkts {
		cut := len(p)
		if i%2 == 1 {
			cut = max(len(p)/2, min(len(p), 40))
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
		if err != nil {
			t.Fatal(err)
		}
		for i := range k {
			got = append(got, bytes.Clone(bufs[i][:sizes[i]]))
		}
	}
	return got
}

func TestBatches(t *testing.T) {
	for _, n := range []int{1, 2, transport.BatchSize, transport.BatchSize + 1, 3 * transport.BatchSize} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			tx, rx := pair(t)
			var pkts [][]byte
			for i := range n {
				pkts = append(pkts, packet(24+i%1400, i))
			}
			if sent, err := tx.Send(pieces(pkts)); err != nil || sent != n {
				t.Fatalf("sent %d: %v", sent, err)
			}
			for i, got := range receive(t, rx, n) {
				if !bytes.Equal(got, pkts[i]) {
					t.Fatalf("packet %d\n got %x\nwant %x", i, got, pkts[i])
				}
			}
		})
	}
}

// A packet that the kernel refuses costs itself, and the error is about it.
func TestBadPacketInBatch(t *testing.T) {
	tx, rx := pair(t)
	pkts := [][]byte{packet(100, 0), packet(100, 1), {0x45, 0}, packet(100, 3)}
	n, err := tx.Send(pieces(pkts))
	if n != 2 || !errors.Is(err, unix.EINVAL) {
		t.Fatalf("sent %d: %v", n, err)
	}
	if n, err := tx.Send(pieces(pkts[3:])); n != 1 || err != nil {
		t.Fatalf("the rest: %d, %v", n, err)
	}
	for i, got := range receive(t, rx, 3) {
		if want := pkts[[]int{0, 1, 3}[i]]; !bytes.Equal(got, want) {
			t.Errorf("packet %d\n got %x\nwant %x", i, got, want)
		}
	}
}

// A packet larger than its buffer is not passed on as a shorter one.
func TestTruncatedPacketHasSizeZero(t *testing.T) {
	tx, rx := pair(t)
	if _, err := tx.Send(pieces([][]byte{packet(1000, 0), packet(100, 1)})); err != nil {
		t.Fatal(err)
	}
	bufs, sizes := buffers(transport.BatchSize, 500), make([]int, transport.BatchSize)
	var got []int
	for len(got) < 2 {
		n, err := rx.Receive(bufs, sizes)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, sizes[:n]...)
	}
	if got[0] != 0 || got[1] != 100 {
		t.Errorf("sizes %v", got)
	}
}

func TestSendOne(t *testing.T) {
	tx, rx := pair(t)
	want := packet(60000, 7) // loopback's MTU lets it pass
	if err := tx.SendOne(want); err != nil {
		t.Fatal(err)
	}
	if got := receive(t, rx, 1)[0]; !bytes.Equal(got, want) {
		t.Errorf("%d bytes, want %d", len(got), len(want))
	}
}

func TestCloseEndsReceive(t *testing.T) {
	rx, err := transport.ListenRaw(there, protocol, transport.Shard{}, transport.Options{})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() {
		_, err := rx.Receive(buffers(1, 100), make([]int, 1))
		done <- err
	}()
	rx.Close()
	if err := <-done; !errors.Is(err, net.ErrClosed) {
		t.Errorf("%v, want %v", err, net.ErrClosed)
	}
}

func TestSendAfterClose(t *testing.T) {
	tx, _ := pair(t)
	tx.Close()
	if _, err := tx.Send(pieces([][]byte{packet(100, 0)})); !errors.Is(err, net.ErrClosed) {
		t.Errorf("%v, want %v", err, net.ErrClosed)
	}
}

// The receiver hears only its own address.
func TestReceiverHearsItsAddress(t *testing.T) {
	tx, rx := pair(t)
	stray := packet(100, 9)
	copy(stray[16:], []byte{127, 0, 64, 3})
	header.IPv4(stray).SetChecksum()
	if err := tx.SendOne(stray); err != nil {
		t.Fatal(err)
	}
	want := packet(100, 10)
	if err := tx.SendOne(want); err != nil {
		t.Fatal(err)
	}
	if got := receive(t, rx, 1)[0]; !bytes.Equal(got, want) {
		t.Errorf("got %x", got)
	}
}

func TestNoAllocs(t *testing.T) {
	tx, rx := pair(t)
	pkts := pieces([][]byte{packet(100, 0), packet(200, 1)})
	bufs, sizes := buffers(transport.BatchSize, 2048), make([]int, transport.BatchSize)
	if n := testing.AllocsPerRun(100, func() {
		if _, err := tx.Send(pkts); err != nil {
			t.Fatal(err)
		}
		for got := 0; got < len(pkts); {
			n, err := rx.Receive(bufs, sizes)
			if err != nil {
				t.Fatal(err)
			}
			got += n
		}
	}); n != 0 {
		t.Errorf("%v allocations a batch", n)
	}
}
