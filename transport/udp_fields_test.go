package transport_test

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"sixfour/encap/header"
	"sixfour/internal/rig"
	"sixfour/internal/rig/rigtest"
	"sixfour/transport"
	"sixfour/transport/wiretest"
)

// TestUDPZeroChecksum: a packet with the checksum 0 over IPv4 leaves with it, and packets
// for the raw socket that follow each other leave in one batch.
func TestUDPZeroChecksum(t *testing.T) {
	left, right := wiretest.Two(t)
	e := wiretest.Ends4
	l, r := udp(t, left, e.Left, leftPort, transport.Shard{}, transport.Options{}), udp(t, right, e.Right, rightPort, transport.Shard{}, transport.Options{})
	tx := sender(t, left, l, transport.Options{})
	c := wiretest.Capture(t, right, "eth0")
	sums := []bool{true, false, false, false, true, false}
	var pkts [][]byte
	for i, sum := range sums {
		pkt := datagram(e, leftPort, rightPort, make([]byte, 200+i))
		if !sum {
			clear(pkt[26:28])
		}
		pkts = append(pkts, pkt)
	}
	if n, err := tx.Send(wiretest.Pieces(pkts[:4])); n != 4 || err != nil {
		t.Fatalf("sent %d: %v", n, err)
	}
	if n := transport.RawBatch(tx); n != 3 {
		t.Errorf("the last batch of the raw socket had %d packets, want 3", n)
	}
	for _, pkt := range pkts[4:] {
		rigtest.Must(t, tx.SendOne(pkt))
	}
	for i, got := range arrivals(t, r, len(pkts)) {
		if got.Size != 200+i {
			t.Errorf("packet %d has %d bytes", i, got.Size)
		}
		f, err := c.Find(wiretest.Soon(t), func(f rig.Frame) bool { return len(f.Packet()) == len(pkts[i]) })
		rigtest.Must(t, err)
		if sum := binary.BigEndian.Uint16(f.Packet()[26:]) != 0; sum != sums[i] {
			t.Errorf("packet %d: a checksum: %v, want %v", i, sum, sums[i])
		}
	}
}

// TestUDPReceivesZeroChecksum: a packet with the checksum 0 is received.
func TestUDPReceivesZeroChecksum(t *testing.T) {
	left, right := wiretest.Two(t)
	wiretest.Both(t, func(t *testing.T, e wiretest.Ends) {
		r := udp(t, right, e.Right, rightPort, transport.Shard{}, transport.Options{})
		raw := wiretest.Dial(t, left, e.Left, transport.Options{})
		for _, payload := range []string{"without", "with", "more"} { // the last one, so that two arrive in any case
			pkt := datagram(e, leftPort, rightPort, []byte(payload))
			if payload == "without" {
				clear(pkt[r.KernelHeaders()-2:][:2])
			}
			rigtest.Must(t, raw.SendOne(pkt))
		}
		for i, got := range arrivals(t, r, 2)[:2] {
			if want := []string{"without", "with"}[i]; string(got.data) != want {
				t.Fatalf("packet %d is %q, want %q", i, got.data, want)
			}
		}
	})
}

// TestUDPExclusiveFlowLabel: packets leave without flow label while another socket of the
// namespace has the exclusive use of one, also when a sender tries again with theirs.
func TestUDPExclusiveFlowLabel(t *testing.T) {
	left, right := wiretest.Two(t)
	e := wiretest.Ends6
	l, r := udp(t, left, e.Left, leftPort, transport.Shard{}, transport.Options{}), udp(t, right, e.Right, rightPort, transport.Shard{}, transport.Options{})
	tx, one := sender(t, left, l, transport.Options{}), sender(t, left, l, transport.Options{})
	c := wiretest.Capture(t, right, "eth0")
	size := 100
	send := func(tx transport.Sender, label bool) {
		t.Helper()
		size++
		pkt := datagram(e, leftPort, rightPort, make([]byte, size))
		if tx == one {
			rigtest.Must(t, tx.SendOne(pkt))
		} else if n, err := tx.Send([]transport.Packet{{Head: pkt}}); n != 1 || err != nil {
			t.Fatalf("sent %d: %v", n, err)
		}
		arrivals(t, r, 1)
		f, err := c.Find(wiretest.Soon(t), func(f rig.Frame) bool { return len(f.Packet()) == len(pkt) })
		rigtest.Must(t, err)
		if got := binary.BigEndian.Uint32(f.Packet()) & header.FlowLabelMask; got != 0 != label {
			t.Fatalf("a packet left with the flow label %#x", got)
		}
	}
	both := func(label bool) {
		t.Helper()
		send(tx, label)
		send(one, label)
	}
	both(true)
	lease := exclusiveLabel(t, left, e.Right)
	both(false)
	both(false)
	for range transport.PlainBatches {
		rigtest.Must(t, one.SendOne(datagram(e, leftPort, rightPort, nil)))
	}
	both(false)
	rigtest.Must(t, unix.Close(lease))
}

// exclusiveLabel leases a flow label towards an address for the socket that it returns.
func exclusiveLabel(t *testing.T, n *rig.Namespace, to netip.Addr) (fd int) {
	t.Helper()
	const manage = 32    // IPV6_FLOWLABEL_MGR of linux/in6.h
	var request [32]byte // struct in6_flowlabel_req: address; label, action, share, flags, expires, linger
	copy(request[:], to.AsSlice())
	binary.BigEndian.PutUint32(request[16:], 0x12345)
	request[21] = 1                                // IPV6_FL_S_EXCL
	binary.NativeEndian.PutUint16(request[22:], 1) // IPV6_FL_F_CREATE
	rigtest.Must(t, n.Do(func() (err error) {
		if fd, err = unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		return unix.SetsockoptString(fd, unix.IPPROTO_IPV6, manage, string(request[:]))
	}))
	return fd
}
