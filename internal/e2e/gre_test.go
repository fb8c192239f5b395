package e2e

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"sixfour/encap/header"
	"sixfour/internal/rig"
)

// greWith puts a GRE header before a packet, with the options that are not nil.
func greWith(protocol uint16, key, sequence *uint32, pkt []byte) []byte {
	b := []byte{0, 0, byte(protocol >> 8), byte(protocol)}
	if key != nil {
		b[0] |= 0x20
		b = binary.BigEndian.AppendUint32(b, *key)
	}
	if sequence != nil {
		b[0] |= 0x10
		b = binary.BigEndian.AppendUint32(b, *sequence)
	}
	return append(b, pkt...)
}

// A router's keepalive contains an answer addressed to the router itself, which the daemon
// returns: over either IP version, with and without the tunnel's key.
func TestKeepalive(t *testing.T) {
	key := uint32(42)
	for _, c := range []struct {
		kind
		key *uint32
	}{
		{kindGRE, nil}, {kindGRE6, nil},
		{kindGRE.with(" with a key", "key = 42\n"), &key}, {kindGRE6.with(" with a key", "key = 42\n"), &key},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			h := newHosts6(t)
			a := start(t, h.a, c.atA())
			wire, err := h.b.Capture("vb")
			must(t, err)
			defer wire.Close()
			inside := greWith(0, c.key, nil, nil)
			// answer is the packet that the router expects back, and keepalive the packet
			// that it sends for that.
			answer := func(src, dst netip.Addr, ttl byte) []byte {
				if src.Is6() {
					p := ip6(src, dst, header.GRE, inside)
					p[7] = ttl
					return p
				}
				p := ip4(src, dst, header.GRE, inside)
				p[5], p[8] = 7, ttl // the kernel would replace an identification of 0
				header.IPv4(p).SetChecksum()
				return p
			}
			keepalive := func(inner []byte) {
				ours, theirs, protocol := outerA, outerB, uint16(0x0800)
				wrap := ip4
				if c.over >= 44 {
					ours, theirs, wrap = outer6A, outer6B, ip6
				}
				if header.Version(inner) == 6 {
					protocol = 0x86dd
				}
				h.inject(t, wire, wrap(theirs, ours, header.GRE, greWith(protocol, c.key, nil, inner)))
			}
			ours, theirs, other := outerA, outerB, netip.MustParseAddr("203.0.113.77")
			if c.over >= 44 {
				ours, theirs, other = outer6A, outer6B, netip.MustParseAddr("2001:db8:ff::77")
			}
			for _, bad := range [][]byte{answer(ours, theirs, 1), experimental(ours, theirs)} {
				keepalive(bad)
			}
			eventually(t, "what is no keepalive is dropped", func() error {
				if _, s := a.status(t); s.In.Drops["own_source"] != 2 {
					return fmt.Errorf("%+v", s.In)
				}
				return nil
			})
			// Behind a NAT, the router or we have other addresses than the other end knows.
			sent := [][]byte{answer(ours, theirs, 255), answer(ours, theirs, 255), answer(ours, other, 255), answer(other, theirs, 255), answer(inA, inB, 255)}
			for i, one := range sent {
				within := i == len(sent)-1 // between the inner addresses, and so through the tunnel
				want := answer(ours, theirs, 254)
				if within {
					want = answer(inA, inB, 1)
				}
				keepalive(one)
				back, err := wire.Find(t.Context(), func(f rig.Frame) bool {
					return !f.Outgoing && bytes.HasSuffix(f.Packet(), want)
				})
				must(t, err)
				if extra := len(back.Packet()) - len(want); within != (extra > 0) {
					t.Errorf("came back: %x", back.Packet())
				}
			}
			eventually(t, "all of them are counted", func() error {
				if _, s := a.status(t); s.Answered != uint64(len(sent)) {
					return fmt.Errorf("%+v", s)
				}
				return nil
			})
		})
	}
}

// inject sends a packet from b to a as it is.
func (h hosts) inject(t *testing.T, wire *rig.Capture, pkt []byte) {
	t.Helper()
	to, err := h.a.MAC("va")
	must(t, err)
	from, err := h.b.MAC("vb")
	must(t, err)
	etherType := uint16(0x0800)
	if header.Version(pkt) == 6 {
		etherType = 0x86dd
		must(t, h.a.AddNeighbour("va", outer6B, from)) // b may not have been probed yet
	}
	must(t, wire.Inject(rig.Ethernet(to, from, etherType, pkt)))
}

// Packets with sequence numbers that arrive twice or too late are dropped; the daemon does
// not wait for missing ones.
func TestSequence(t *testing.T) {
	t.Parallel()
	h := newHosts(t, 1500)
	a := start(t, h.a, kindGRE.gre("", "sequence = true\n", 4, "").atA())
	out, err := h.a.Capture("six0")
	must(t, err)
	defer out.Close()
	number := func(n uint32) []byte {
		inner := experimental(inB, inA)
		copy(inner[header.IPv4Len:], fmt.Sprintf("number %10d", n))
		return ip4(outerB, outerA, header.GRE, greWith(0x0800, nil, &n, inner))
	}
	came := func(p []byte) (n uint32) {
		_, err := fmt.Sscanf(string(p[header.IPv4Len:]), "number %d", &n)
		must(t, err)
		return n
	}
	drops := uint64(0)
	for _, c := range []struct {
		n  uint32
		ok bool
	}{{0, true}, {1, true}, {1, false}, {2, true}, {7, true}, {5, false}, {7, false}, {8, true},
		{1 << 30, false}, {9, true}, // one that could be forged
		{1 << 31, false}, {1<<31 + 1, false}, {1<<31 + 2, false}, {1<<31 + 3, true}, {1<<31 + 4, true}, {1<<31 + 3, false}} {
		send(t, h.b, number(c.n))
		if !c.ok {
			drops++
			eventually(t, fmt.Sprintf("%d is dropped", c.n), func() error {
				if _, s := a.status(t); s.In.Drops["sequence"] != drops {
					return fmt.Errorf("%+v", s.In)
				}
				return nil
			})
			continue
		}
		f, err := out.Find(t.Context(), func(f rig.Frame) bool { return f.Packet()[9] == 253 })
		must(t, err)
		if got := came(f.Packet()); got != c.n {
			t.Errorf("%d came out, want %d", got, c.n)
		}
	}
	send(t, h.b, ip4(outerB, outerA, header.GRE, greWith(0x0800, nil, nil, experimental(inB, inA)))) // without a number
	drops++
	eventually(t, "one without a number is dropped", func() error {
		if _, s := a.status(t); s.In.Drops["sequence"] != drops {
			return fmt.Errorf("%+v", s.In)
		}
		return nil
	})
}

// A peer that restarts counts from 0 again. Its packets are accepted after several
// consecutive ones.
func TestSequenceAfterRestart(t *testing.T) {
	t.Parallel()
	h := newHosts(t, 1500)
	k := kindGRE.gre("", "sequence = true\n", 4, "")
	_, b := k.pair(t, h.a, h.b)
	transfer(t, h.b, h.a, inA, 1<<20)
	pings(t, h.a, inB, rig.PingOptions{Count: 50})
	b.end(t, syscall.SIGKILL)
	began := time.Now()
	start(t, h.b, k.atB())
	reachable(t, h.b, inA)
	t.Logf("reachable after %v", time.Since(began).Round(time.Second))
	pings(t, h.a, inB, rig.PingOptions{Count: 50})
}
