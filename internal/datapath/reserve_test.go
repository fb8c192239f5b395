package datapath

import (
	"bytes"
	"encoding/binary"
	"math"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sixfour/encap"
	"sixfour/encap/drop"
	"sixfour/encap/framing"
	"sixfour/encap/header"
	"sixfour/encap/seal"
	"sixfour/encap/source"
	"sixfour/transport"
	"sixfour/tun"
)

// keeping is a sender that keeps copies of the packets.
type keeping struct {
	transport.Sender
	sent [][]byte
}

func (s *keeping) Send(pkts []transport.Packet) (int, error) {
	for i := range pkts {
		s.sent = append(s.sent, append(bytes.Clone(pkts[i].Head), pkts[i].Body...))
	}
	return len(pkts), nil
}

// numbered returns a UDP packet of size bytes with DF whose content depends on a number.
func numbered(src, dst string, size, number int) []byte {
	pkt := datagram(src, dst, size, size)
	if header.Version(pkt) == 4 {
		binary.BigEndian.PutUint16(pkt[6:], header.DF)
		header.IPv4(pkt).SetChecksum()
	}
	for i := size - 1000; i < size; i++ {
		pkt[i] = byte(i*7 + number)
	}
	return pkt
}

// Packets that the path does not carry whole leave in two pieces, between others and in order, and
// the other end joins them: those that the interface gives one by one, and the segments of a large
// one.
func TestReserve(t *testing.T) {
	four := []encap.Layer{layer(encap.FourInFour, "192.0.2.1", "198.51.100.1", framing.GRE{})}
	six := []encap.Layer{layer(encap.SixInFour, "192.0.2.1", "198.51.100.1", framing.GRE{})}
	for _, c := range []struct {
		name     string
		layers   []encap.Layer
		src, dst string
		mtu      encap.PathMTU
		whole    int
	}{
		{"4in4", four, "10.0.0.1", "10.0.0.2", 1280, math.MaxInt}, {"6in4", six, "2001:db8::1", "2001:db8::2", 1280, math.MaxInt},
		{"4in4, no probe answered", four, "10.0.0.1", "10.0.0.2", 1500, 1260}, {"6in4, no probe answered", six, "2001:db8::1", "2001:db8::2", 1500, 1260},
		{"6in4, outer packets in fragments", six, "2001:db8::1", "2001:db8::2", 600, math.MaxInt},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, tn, p, to := labOf(t, c.mtu, encap.DefaultOptions, c.layers...)
			tn.Reserve, to.Whole = 1500, c.whole
			sender := &keeping{}
			to.Senders = []transport.Sender{sender}
			useWire(p, to)
			o := NewOutbound(tn, nil, 0)
			o.workspace = workspaces.Get().(*workspace)
			var want [][]byte
			for i := range 100 {
				size := 1500
				if i%3 == 0 {
					size = 1100
				}
				pkt := numbered(c.src, c.dst, size, i)
				want = append(want, pkt)
				// Like a reader, leave the packet in place until the batch is sent.
				o.add(append(make([]byte, encap.Headroom-tun.VirtioLen), virtio(0, 0, 0, 0, 0, pkt)...))
			}
			head := header.IPv4Len
			if header.Version(want[0]) == 6 {
				head = header.IPv6Len
			}
			gso := numbered(c.src, c.dst, head+header.UDPLen+2*(1500-head-header.UDPLen), 200)
			super := virtio(unix.VIRTIO_NET_HDR_F_NEEDS_CSUM, unix.VIRTIO_NET_HDR_GSO_UDP_L4, uint16(1500-head-header.UDPLen), uint16(head), 6, gso)
			o.add(append(make([]byte, encap.Headroom-tun.VirtioLen), super...))
			o.send()
			got := joined(t, to, p, sender.sent)
			if len(got) != len(want)+2 {
				t.Fatalf("%d packets arrived in %d, of %d", len(got), len(sender.sent), len(want)+2)
			}
			for i := range want {
				if !bytes.Equal(got[i], want[i]) {
					t.Fatalf("packet %d:\n%x\n%x", i, got[i], want[i])
				}
			}
			for i, segment := range got[len(want):] {
				payload := gso[head+header.UDPLen:]
				if size := 1500 - head - header.UDPLen; !bytes.Equal(segment[head+header.UDPLen:], payload[i*size:(i+1)*size]) {
					t.Errorf("segment %d is another", i)
				}
			}
			if by := tn.Reply.Sent.Types(); by.Total() != 0 {
				t.Error("a sender was told an error")
			}
		})
	}
}

// joined decapsulates packets as the other end would, and joins pieces. Outer packets may be
// fragments.
func joined(t *testing.T, to *Wire, p *Path, sent [][]byte) (got [][]byte) {
	t.Helper()
	var layers []encap.Layer
	for _, l := range to.Layers {
		l.Local, l.Remote = l.Remote, l.Local
		layers = append(layers, l)
	}
	stack, err := encap.New(layers, 1500, encap.DefaultOptions, source.New(nil, nil, false), encap.NewRecord())
	if err != nil {
		t.Fatal(err)
	}
	var j seal.Joiner
	var w seal.Window
	var whole []byte // of fragments
	for _, b := range sent {
		if len(b) > int(to.MTU) {
			t.Errorf("an outer packet of %d bytes over a path of %d", len(b), to.MTU)
		}
		ip := header.IPv4(b)
		if ip.IsFragment() {
			if whole == nil {
				whole = append(whole, ip[:header.IPv4Len]...)
			}
			whole = append(whole, ip.Payload()...)
			if ip.Fragment()&header.MF != 0 {
				continue
			}
			b, whole = whole, nil
			binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
			binary.BigEndian.PutUint16(b[6:], 0)
			header.IPv4(b).SetChecksum()
		}
		inner, r := stack.Decapsulate(b)
		if r != drop.None {
			t.Fatalf("%v: %x", r, b)
		}
		if !seal.IsPiece(inner) {
			got = append(got, inner)
		} else if whole, r, _ := j.Add(inner, &w, time.Now()); r != drop.None {
			t.Fatal(r)
		} else if whole != nil {
			got = append(got, whole)
		}
	}
	return got
}

// What two pieces cannot carry, and what is larger than the reserve, is answered as without one.
func TestBeyondReserve(t *testing.T) {
	for _, c := range []struct{ reserve, size int }{{1500, 1501}, {1400, 1500}, {0, 1500}, {9000, 9000}} {
		_, tn, p, to := labOf(t, 1280, encap.DefaultOptions, layer(encap.SixInFour, "192.0.2.1", "198.51.100.1", framing.GRE{}))
		tn.Reserve, to.Whole = c.reserve, math.MaxInt
		sender := &keeping{}
		to.Senders = []transport.Sender{sender}
		useWire(p, to)
		o := NewOutbound(tn, nil, 0)
		o.workspace = workspaces.Get().(*workspace)
		o.add(append(make([]byte, encap.Headroom-tun.VirtioLen), virtio(0, 0, 0, 0, 0, numbered("2001:db8::1", "2001:db8::2", c.size, 1))...))
		o.send()
		if d := p.Out.Traffic().Drops; len(sender.sent) != 0 || d["too_big"] != 1 {
			t.Errorf("%+v: %d sent, drops %v", c, len(sender.sent), d)
		}
	}
}
