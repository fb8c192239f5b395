package encap

import (
	"encoding/binary"
	"math/bits"

	"sixfour/encap/drop"
	"sixfour/encap/header"
)

// Offsets in a TCP header, its shortest length, and a flag (RFC 9293 section 3.1).
const (
	tcpDataOffset = 12
	tcpFlags      = 13
	tcpChecksum   = 16
	tcpMinLen     = 20

	tcpSYN = 0x02
)

// TCP options (RFC 9293 section 3.2).
const (
	optEnd    = 0
	optNop    = 1
	optMSS    = 2
	optMSSLen = 4
)

// ClampMSS makes both ends of a TCP connection send segments that fit into the tunnel.
// In a SYN, it lowers each maximum segment size that exceeds what the tunnel MTU allows:
// mtu-40 for IPv4 and mtu-60 for IPv6 (mechanisms 1.5). It never raises or adds the
// option; without the option, segments have 536 or 1220 bytes anyway (RFC 9293 section
// 3.7.1). It writes at least 1; no tunnel MTU of 68 or more comes near that.
//
// The packet is a whole inner packet, as header.CutIPv4 or header.ParseIPv6 returns it.
// It is changed in place: only the option's value and the TCP checksum, never the
// length. ClampMSS returns whether it changed the packet. In a first fragment the TCP
// header must be complete; later fragments have none.
func ClampMSS(pkt []byte, mtu TunnelMTU) bool {
	return len(pkt) >= header.IPv4Len+tcpMinLen && mayBeSYN(pkt) && clampMSS(pkt, mtu)
}

// mayBeSYN is a fast check that selects few packets that are no SYN: those with IP
// options or extension headers, and fragments. It is small enough to be inlined.
func mayBeSYN(pkt []byte) bool {
	switch pkt[0] >> 4 {
	case 4:
		return pkt[9] == header.TCP && (pkt[0] != 0x45 || pkt[header.IPv4Len+tcpFlags]&tcpSYN != 0)
	case 6:
		switch pkt[6] {
		case header.TCP:
			return len(pkt) >= header.IPv6Len+tcpMinLen && pkt[header.IPv6Len+tcpFlags]&tcpSYN != 0
		case header.HopByHop, header.DestOptions, header.Routing, header.FragmentHdr:
			return true
		}
	}
	return false
}

// segment is a TCP segment in a packet.
type segment struct {
	bytes  []byte
	pseudo uint32 // sum of the pseudo-header
	whole  bool   // the packet is not a fragment, so the checksum can be verified
}

func clampMSS(pkt []byte, mtu TunnelMTU) bool {
	s, overhead, ok := findTCP(pkt)
	if !ok || s.bytes[tcpFlags]&tcpSYN == 0 {
		return false
	}
	n := int(s.bytes[tcpDataOffset]>>4) * 4
	if n < tcpMinLen || n > len(s.bytes) {
		return false
	}
	limit := max(1, int(mtu)-overhead)
	update, changed := false, false
	for off := tcpMinLen; off < n; {
		kind := s.bytes[off]
		if kind == optEnd {
			break
		}
		if kind == optNop {
			off++
			continue
		}
		if off+2 > n {
			break
		}
		size := int(s.bytes[off+1])
		if size < 2 || off+size > n {
			break
		}
		if kind == optMSS && size == optMSSLen && int(binary.BigEndian.Uint16(s.bytes[off+2:])) > limit {
			if !changed {
				if update, ok = s.checksum(); !ok {
					return false
				}
				changed = true
			}
			s.setMSS(off+2, uint16(limit), update)
		}
		off += size
	}
	return changed
}

// findTCP finds the TCP header of a packet. Overhead is the length of the headers of a
// packet of that version without options, in bytes.
func findTCP(pkt []byte) (s segment, overhead int, ok bool) {
	var src, dst []byte
	if header.Version(pkt) == 4 {
		ip, r := header.CutIPv4(pkt)
		if r != drop.None || ip.Protocol() != header.TCP || !ip.FirstBytes() {
			return s, 0, false
		}
		s.bytes, s.whole, overhead = ip.Payload(), !ip.IsFragment(), header.IPv4Len
		src, dst = ip.Source(), ip.Dest()
	} else {
		ip, r := header.ParseIPv6(pkt)
		if r != drop.None {
			return s, 0, false
		}
		up, ok := header.FindUpper(ip)
		if !ok || up.Protocol != header.TCP || up.Later || up.Secured {
			return s, 0, false
		}
		s.bytes, s.whole, overhead = ip[up.Offset:], !up.Fragment, header.IPv6Len
		src, dst = ip.Source(), ip.Dest()
	}
	s.pseudo = header.PseudoSum(src, dst, len(s.bytes), header.TCP)
	return s, overhead + tcpMinLen, len(s.bytes) >= tcpMinLen
}

// checksum reports whether the segment's checksum must be updated after a change. It
// must not if the field holds only the sum of the pseudo-header, because the hardware
// computes the rest (see Gatherer in package tun). If the field is neither that nor
// correct, the segment is corrupt (ok is false), and an update would hide that. The
// checksum of a fragment cannot be verified; an update keeps it as right or wrong as it
// was.
func (s *segment) checksum() (update, ok bool) {
	if !s.whole || header.Sum(s.bytes, s.pseudo) == 0xffff {
		return true, true
	}
	return false, binary.BigEndian.Uint16(s.bytes[tcpChecksum:]) == header.Fold(s.pseudo)
}

// setMSS writes the value at an offset and updates the checksum (RFC 1624).
func (s *segment) setMSS(off int, mss uint16, update bool) {
	before := binary.BigEndian.Uint16(s.bytes[off:])
	binary.BigEndian.PutUint16(s.bytes[off:], mss)
	if !update {
		return
	}
	if off%2 != 0 { // the value spans two words: its high byte is the low byte of the first
		before, mss = bits.ReverseBytes16(before), bits.ReverseBytes16(mss)
	}
	sum := s.bytes[tcpChecksum:]
	binary.BigEndian.PutUint16(sum, header.Update(binary.BigEndian.Uint16(sum), before, mss))
}
