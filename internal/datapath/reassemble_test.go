package datapath

import (
	"bytes"
	"encoding/binary"
	"slices"
	"testing"
	"time"

	"sixfour/encap/fragment"
	"sixfour/encap/header"
	"sixfour/encap/icmp"
	"sixfour/internal/icmpreply"
	"sixfour/transport"
)

// recorder is a sender that stores what it is given.
type recorder struct {
	transport.Sender
	sent [][]byte
}

func (r *recorder) SendOne(pkt []byte) error {
	r.sent = append(r.sent, bytes.Clone(pkt))
	return nil
}

// The far end is told that fragments of a packet did not arrive in time (RFC 8200 section
// 4.5), within the limit of all errors.
func TestReassemblyTimeIsTold(t *testing.T) {
	_, tun, p, to := lab(t)
	out := new(recorder)
	to.Senders = []transport.Sender{out}
	useWire(p, to)
	first := func(src string, id byte) header.IPv6 {
		f := append([]byte{header.ProtoIPv4, 0, 0, 1, 0, 0, 0, id}, make([]byte, 64)...)
		pkt := arriving(src, "fc00::1", header.FragmentHdr, f...)
		binary.BigEndian.PutUint16(pkt[4:], uint16(len(f)))
		return pkt
	}
	tun.fragments.add(tun, first("fc00::2", 1))
	tun.fragments.add(tun, first("fc00::9", 2)) // from an address that is no peer's end
	tun.ExpireFragments(time.Now(), slices.Values([]*Path{p}))
	if len(out.sent) > 0 {
		t.Fatalf("told too early: %x", out.sent)
	}
	tun.ExpireFragments(time.Now().Add(2*fragment.Timeout), slices.Values([]*Path{p}))
	if len(out.sent) != 1 {
		t.Fatalf("%d errors", len(out.sent))
	}
	ip := header.IPv6(header.IPv4(out.sent[0]).Payload())
	m := ip.Payload()
	if ip.Src().String() != "fc00::1" || ip.Dst().String() != "fc00::2" || m[0] != icmp.TimeExceeded6 || m[1] != 1 || !bytes.Equal(m[icmp.HeaderLen:], first("fc00::2", 1)) ||
		header.Sum(m, header.PseudoSum(ip.Source(), ip.Dest(), len(m), header.ICMPv6)) != 0xffff {
		t.Errorf("%x", ip)
	}
	for id := range byte(100) {
		tun.fragments.add(tun, first("fc00::2", id))
	}
	tun.ExpireFragments(time.Now().Add(2*fragment.Timeout), slices.Values([]*Path{p}))
	if n := len(out.sent); n > 1+icmpreply.PerSender {
		t.Errorf("%d errors", n)
	}
}
