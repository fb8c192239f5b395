package kernel_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync/atomic"
	"testing"

	"sixfour/encap"
	"sixfour/encap/drop"
	"sixfour/encap/header"
	"sixfour/encap/source"
	"sixfour/internal/rig/rigtest"
	"sixfour/transport/kernel"
)

// theTunnel is the index of the interface in tests without one.
const theTunnel = 77

// checks returns the checks of inner packets, at a host with hostAddresses.
func checks(layers []encap.Layer) *source.Checks {
	var ends []netip.Addr
	for _, l := range layers {
		ends = append(ends, l.Local)
	}
	var list []source.HostAddress
	for _, p := range hostAddresses {
		list = append(list, source.HostAddress{Addr: p.Addr(), Subnet: p.Masked(), Link: 1})
	}
	at := new(atomic.Pointer[source.Interface])
	at.Store(source.NewInterface(source.NewHostNets(list), theTunnel))
	return source.New([]netip.Addr{own[0].Addr(), own[1].Addr()}, ends, false).At(at, behindPeer)
}

// stackOf makes a stack.
func stackOf(t testing.TB, layers []encap.Layer, path encap.PathMTU, o encap.Options) *encap.Stack {
	t.Helper()
	s, err := encap.New(layers, path, o, checks(layers), encap.NewRecord())
	rigtest.Must(t, err)
	return s
}

// wrap encapsulates a packet.
func wrap(s *encap.Stack, pkt []byte) ([]byte, drop.Reason) {
	return s.Encapsulate(append(make([]byte, encap.Headroom, encap.Headroom+len(pkt)), pkt...), encap.Headroom)
}

// damage changes a packet of a peer by chance. It reports false if it did nothing.
func damage(r *rand.Rand, pkt []byte) ([]byte, bool) {
	resum := func() {
		if header.Version(pkt) == 4 && len(pkt) >= header.IPv4Len && header.IPv4(pkt).HeaderLen() <= len(pkt) {
			header.IPv4(pkt).SetChecksum()
		}
	}
	switch r.IntN(8) {
	case 0:
		for range 1 + r.IntN(2) {
			pkt[r.IntN(min(len(pkt), 110))] ^= 1 << r.IntN(8)
		}
		if r.IntN(2) == 0 {
			resum()
		}
	case 1:
		pkt[r.IntN(min(len(pkt), 110))] = byte(r.Uint32())
		resum()
	case 2:
		least := header.IPv4Len // less is refused by BPF_PROG_TEST_RUN
		if header.Version(pkt) == 6 {
			least = header.IPv6Len
		}
		pkt = pkt[:least+r.IntN(len(pkt)-least)]
	case 3: // padding
		pkt = append(pkt, make([]byte, 1+r.IntN(20))...)
	default:
		return pkt, false
	}
	return pkt, true
}

// setECN writes an ECN field into the outermost header.
func setECN(pkt []byte, ecn byte) {
	if header.Version(pkt) == 4 {
		header.IPv4(pkt).SetECN(ecn)
	} else {
		header.IPv6(pkt).SetECN(ecn)
	}
}

// TestReceive: the program carries only packets that package encap accepts, and with the same
// bytes; and it does carry those that have no reason to be an exception.
func TestReceive(t *testing.T) {
	t.Parallel()
	p := load(t, theTunnel)
	peers := allowed(t)
	const packets = 4000
	for i, layers := range variants() {
		r := rand.New(rand.NewPCG(17, uint64(i)))
		rigtest.Must(t, p.Receive(thePeer, theTunnel, layers))
		rigtest.Must(t, p.Count(thePeer))
		in := stackOf(t, layers, 1500, encap.DefaultOptions)
		var back *encap.Stack
		var want kernel.Counts
		out := make([]byte, 4096)
		for n := range packets {
			if n%50 == 0 {
				back = stackOf(t, flip(layers), 1500, options(r))
			}
			inner, plain := packet(r, 1400)
			if header.Version(inner) == 4 && r.IntN(8) == 0 { // its checksum is wrong
				inner[10] ^= 1
				plain = false
			}
			pkt, why := wrap(back, inner)
			if why != drop.None {
				continue
			}
			pkt = slices.Clone(pkt)
			if r.IntN(2) == 0 {
				setECN(pkt, byte(r.IntN(4)))
			}
			pkt, damaged := damage(r, pkt)
			carried, left, err := p.RunReceive(frame(pkt, layers[len(layers)-1].Kind.Over()), out)
			rigtest.Must(t, err)
			what := fmt.Sprintf("%v %d: % x", layers[len(layers)-1].Kind, n, pkt)
			if !carried {
				if !bytes.Equal(left[ethernetLen:], pkt) {
					t.Fatalf("%s\nleft to the process as\n% x", what, left)
				}
			}
			got, why := in.Decapsulate(slices.Clone(pkt))
			accepted := why == drop.None && peers.Allows(thePeer, got)
			switch {
			case carried && !accepted:
				t.Fatalf("%s\ncarried, but the reason to drop it is %v", what, why)
			case carried && !bytes.Equal(left[ethernetLen:], got):
				t.Fatalf("%s\ncarried as\n% x, not\n% x", what, left[ethernetLen:], got)
			case !carried && accepted && plain && !damaged && !exceptional(layers, inner):
				t.Fatalf("%s\nnot carried", what)
			}
			if carried {
				want.Received.Packets++
				want.Received.Bytes += uint64(len(got))
			}
		}
		if want.Received.Packets < packets/20 {
			t.Errorf("%v: only %d of %d packets were carried", layers[0].Kind, want.Received.Packets, packets)
		}
		got, err := p.Counts(thePeer)
		rigtest.Must(t, err)
		if got.Received != want.Received {
			t.Errorf("%v: counts %+v, want %+v", layers[0].Kind, got, want)
		}
		rigtest.Must(t, p.StopReceiving(layers))
		rigtest.Must(t, p.StopCounting(thePeer))
	}
}

// TestTorn: an entry that changes while the program reads it carries no packet.
func TestTorn(t *testing.T) {
	t.Parallel()
	p := load(t, theTunnel)
	for _, layers := range variants() {
		back := stackOf(t, flip(layers), 1500, encap.DefaultOptions)
		pkt, why := wrap(back, plainPacket())
		if why != drop.None { // 6in4 and 6in6
			continue
		}
		rigtest.Must(t, p.Receive(thePeer, theTunnel, layers))
		for _, want := range []bool{true, false} {
			carried, _, err := p.RunReceive(frame(pkt, layers[len(layers)-1].Kind.Over()), make([]byte, 4096))
			rigtest.Must(t, err)
			if carried != want {
				t.Errorf("%v: carried: %v, want %v", layers[0].Kind, carried, want)
			}
			rigtest.Must(t, p.Spoil(layers))
		}
		rigtest.Must(t, p.StopReceiving(layers))
	}
}

// exceptional reports whether the addresses of an inner packet need more than the program
// knows.
func exceptional(layers []encap.Layer, inner []byte) bool {
	src, dst := header.Source(inner), header.Dest(inner)
	sixToFour := netip.MustParsePrefix("2002::/16")
	return dst.IsMulticast() || dst.IsLinkLocalUnicast() && dst.Is6() || dst.Is4() && dst.As4()[0] >= 224 ||
		src.IsLinkLocalUnicast() && src.Is6() || sixToFour.Contains(src) ||
		src.Is6() && binary.BigEndian.Uint64(src.AsSlice()) == 0 ||
		len(layers) == 2 && dst == layers[0].Local || // the process answers there
		dst == layers[len(layers)-1].Local && protocolOf(inner) == header.UDP // it may be a packet of a tunnel
}

// protocolOf returns the protocol in a packet without extension headers.
func protocolOf(pkt []byte) byte {
	if header.Version(pkt) == 4 {
		return header.IPv4(pkt).Protocol()
	}
	return header.IPv6(pkt).NextHeader()
}

// TestNestedUDP: a datagram to our end of the tunnel, where tunnels in UDP may arrive, is left to
// the process.
func TestNestedUDP(t *testing.T) {
	t.Parallel()
	p := load(t, theTunnel)
	mode, _ := encap.ModeByName("4in4")
	layers := mode.Between(ours)
	rigtest.Must(t, p.Receive(thePeer, theTunnel, layers))
	back := stackOf(t, flip(layers), 1500, encap.DefaultOptions)
	for _, to := range []netip.Addr{ours.Local, netip.MustParseAddr("10.1.0.7")} {
		inner := plainPacket()
		copy(inner[16:], to.AsSlice())
		header.IPv4(inner).SetChecksum()
		pkt, why := wrap(back, inner)
		if why != drop.None {
			t.Fatal(why)
		}
		carried, _, err := p.RunReceive(frame(pkt, 4), make([]byte, 4096))
		rigtest.Must(t, err)
		if carried != (to != ours.Local) {
			t.Errorf("to %v: carried: %v", to, carried)
		}
	}
}

const ethernetLen = 14

// frame returns a packet as the loopback device receives it, with the EtherType of an IP
// version.
func frame(pkt []byte, version int) []byte {
	f := make([]byte, ethernetLen, ethernetLen+len(pkt))
	f[12], f[13] = 8, 0
	if version == 6 {
		f[12], f[13] = 0x86, 0xdd
	}
	return append(f, pkt...)
}
