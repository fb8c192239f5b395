package decode

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/netip"

	"github.com/gopacket/gopacket/layers"

	"sixfour/encap/header"
	"sixfour/encap/sixbed4"
	"sixfour/encap/teredo"
)

// UDP ports by which the headers of tunnels are recognized.
const (
	port6a44        = 1027
	portSEAL        = 45000
	portLISPData    = 4341
	portLISPControl = 4342
)

// tunnels has the methods that decode what follows a UDP header from or to a port. They return
// false, and add nothing, if it is something else.
var tunnels map[uint16]func(d *decoder, b []byte) bool

func init() {
	tunnels = map[uint16]func(d *decoder, b []byte) bool{
		teredo.Port: (*decoder).teredo, sixbed4.Port: (*decoder).sixBed4, port6a44: (*decoder).sixA44,
		portLISPData: (*decoder).lispData, portLISPControl: (*decoder).lispControl,
		portSEAL: (*decoder).sealInUDP,
	}
}

// tunnel decodes the payload of a UDP packet between two ports if it belongs to a tunnel: by
// one of its ports, or because it is a whole IPv6 packet.
func (d *decoder) tunnel(src, dst uint16, b []byte) bool {
	if len(d.layers) >= maxLayers {
		return false
	}
	for _, port := range [2]uint16{dst, src} {
		if f := tunnels[port]; f != nil && f(d, b) {
			return true
		}
	}
	return d.whole6(b) || sealed(b) && holdsWhole(b) && d.sealInUDP(b)
}

// whole6 decodes data that is a whole IPv6 packet, as nodes of Teredo, 6a44 and 6bed4 send it
// between any ports.
func (d *decoder) whole6(b []byte) bool {
	if len(b) < header.IPv6Len || b[0]>>4 != 6 || len(b) != header.IPv6Len+header.IPv6(b).PayloadLen() {
		return false
	}
	d.ip(b)
	return true
}

// teredo decodes the headers before a packet, and the trailers behind it (RFC 4380 section
// 5.1.1, RFC 6081 section 4).
func (d *decoder) teredo(b []byte) bool {
	m, err := teredo.Parse(b)
	if err != nil {
		return false
	}
	if a := m.Auth; a != nil {
		l := d.add("Teredo", len(b)-len(m.Packet)-len(m.Trailers))
		if m.Origin != (header.Mapping{}) {
			l.Bytes -= originLen
		}
		l.note("authentication")
		l.add("nonce", fmt.Sprintf("%016x", a.Nonce), fmt.Sprintf("nonce %016x", a.Nonce))
		if len(a.ID) > 0 {
			l.add("client", hex.EncodeToString(a.ID), "client "+hex.EncodeToString(a.ID))
		}
		if a.Confirmation != 0 {
			l.field("confirmation", a.Confirmation)
		}
	}
	if m.Origin != (header.Mapping{}) {
		at := m.Origin.AddrPort()
		d.add("Teredo", originLen).add("origin", at, "origin "+at.String())
	}
	d.ip(m.Packet)
	if n := len(m.Trailers); n > 0 {
		l := d.add("Teredo", n)
		l.note("trailers")
		if nonce, ok := m.Nonce(); ok {
			l.add("nonce", fmt.Sprintf("%08x", nonce), fmt.Sprintf("nonce %08x", nonce))
		}
		for _, a := range m.Alternates() {
			l.note("alternate address %v", a.AddrPort())
		}
	}
	return true
}

const originLen = 8

// sixBed4 decodes a datagram from or to a 6bed4 router.
func (d *decoder) sixBed4(b []byte) bool {
	if len(b) == 0 {
		d.add("6bed4", 0).note("keepalive or probe")
		return true
	}
	return false
}

// sixA44 decodes a bubble (RFC 6751 section 6.4): a prefix, and a number.
func (d *decoder) sixA44(b []byte) bool {
	const least, most = 20, header.IPv6Len - 1
	if len(b) < least || len(b) > most {
		return false
	}
	l := d.add("6a44", len(b))
	p := netip.PrefixFrom(netip.AddrFrom16([16]byte(append(b[:12:12], 0, 0, 0, 0))), 96)
	l.note("bubble")
	l.add("prefix", p, "prefix "+p.String())
	l.add("id", hex.EncodeToString(b[12:20]), "ID "+hex.EncodeToString(b[12:20]))
	return true
}

// lispData decodes the header before a packet of LISP (RFC 9300 section 5.1).
func (d *decoder) lispData(b []byte) bool {
	const size = 8
	if len(b) < size+1 {
		return false
	}
	if v := b[size] >> 4; v != 4 && v != 6 {
		return false
	}
	const (
		nonce     = 0x80
		status    = 0x40
		echo      = 0x20
		versions  = 0x10
		instanced = 0x08
	)
	flags, first, second := b[0], binary.BigEndian.Uint32(b)&0xffffff, binary.BigEndian.Uint32(b[4:])
	l := d.add("LISP", size)
	switch {
	case flags&nonce != 0:
		l.add("nonce", fmt.Sprintf("%06x", first), fmt.Sprintf("nonce %06x", first))
	case flags&versions != 0:
		l.add("map_versions", []uint32{first >> 12, first & 0xfff}, fmt.Sprintf("map versions %d and %d", first>>12, first&0xfff))
	}
	if flags&echo != 0 {
		l.note("asks for its nonce")
	}
	if flags&instanced != 0 {
		l.field("instance", second>>8)
		second &= 0xff
	}
	if flags&status != 0 {
		l.add("locator_status", second, fmt.Sprintf("locator status %#x", second))
	}
	d.ip(b[size:])
	return true
}

// lispControl decodes a control message of LISP (RFC 9301 section 5): its type, and the packet
// in an encapsulated one.
func (d *decoder) lispControl(b []byte) bool {
	if len(b) < 4 {
		return false
	}
	name := lispTypes[b[0]>>4]
	if name == "" {
		return false
	}
	const encapsulated = 8
	if b[0]>>4 == encapsulated {
		d.add("LISP", 4).note("%s", name)
		d.ip(b[4:])
		return true
	}
	l := d.add("LISP", len(b))
	l.add("type", b[0]>>4, name)
	l.field("records", b[3])
	if len(b) >= 12 {
		l.add("nonce", hex.EncodeToString(b[4:12]), "nonce "+hex.EncodeToString(b[4:12]))
	}
	return true
}

var lispTypes = map[byte]string{1: "Map-Request", 2: "Map-Reply", 3: "Map-Register", 4: "Map-Notify", 5: "Map-Notify-Ack", 8: "encapsulated message"}

// sealInUDP decodes SEAL behind a UDP header.
func (d *decoder) sealInUDP(b []byte) bool {
	if !sealed(b) {
		return false
	}
	d.seal(b)
	return true
}

// sealed reports whether data can begin with the header of SEAL, and not only of an IPv6
// fragment.
func sealed(b []byte) bool {
	if len(b) < sealLen || b[1] != 0 || b[3]&6 != 2 {
		return false
	}
	switch b[0] {
	case header.ProtoIPv4, header.ProtoIPv6, header.GRE, header.ICMPv6:
		return true
	}
	return false
}

// holdsWhole reports whether a header of SEAL is followed by a whole IP packet, so that it is one
// between any ports.
func holdsWhole(b []byte) bool {
	inner := b[sealLen:]
	switch {
	case binary.BigEndian.Uint16(b[2:])&^6 != 0: // a segment
	case b[0] == header.ProtoIPv4:
		return len(inner) >= header.IPv4Len && inner[0]>>4 == 4 && header.IPv4(inner).TotalLen() == len(inner)
	case b[0] == header.ProtoIPv6:
		return len(inner) >= header.IPv6Len && inner[0]>>4 == 6 && header.IPv6Len+header.IPv6(inner).PayloadLen() == len(inner)
	}
	return false
}

const sealLen = 8

// seal decodes the header of SEAL (draft-templin-intarea-seal-68 section 5.3), which is that of
// an IPv6 fragment with a bit that is set.
func (d *decoder) seal(b []byte) {
	if len(b) < sealLen {
		d.truncated("SEAL", b)
		return
	}
	l := d.add("SEAL", sealLen)
	next := layers.IPProtocol(b[0])
	d.protocol(l, "next_header", next)
	word := binary.BigEndian.Uint16(b[2:])
	offset, more := word&^7, word&1 != 0
	switch {
	case word&2 == 0:
		l.note("without the bit of SEAL")
	case offset > 0:
		l.add("offset", offset, fmt.Sprintf("segment at %d", offset))
	case more:
		l.note("first segment")
	}
	id := binary.BigEndian.Uint32(b[4:])
	l.add("id", id, fmt.Sprintf("ID %#08x", id))
	if offset > 0 || more {
		d.rest(b[sealLen:])
		return
	}
	d.upper(next, b[sealLen:])
}

// shared adds what two addresses of an IPv6 packet say of the IPv4 packet that follows: those of
// customers with MAP-E and lightweight 4over6 have the IPv4 address and the port set (PSID) in
// them (RFC 7597 section 6, RFC 7596 section 5.1).
func (d *decoder) shared(l *Layer, src, dst netip.Addr, b []byte) {
	if len(b) < header.IPv4Len || header.Version(b) != 4 {
		return
	}
	ip := header.IPv4(b)
	for _, end := range []struct {
		name         string
		outer, inner netip.Addr
	}{{"source", src, ip.Src()}, {"destination", dst, ip.Dst()}} {
		if psid, ok := psidOf(end.outer, end.inner); ok {
			l.add(end.name+"_psid", psid, fmt.Sprintf("%s has %v, PSID %#x", end.name, end.inner, psid))
		}
	}
}

// psidOf returns the PSID in an IPv6 address that was made of an IPv4 address, either as in RFC
// 7597, 0 | IPv4 address | PSID, or as in draft 03 of it, 0 | IPv4 address | PSID | 0 from the
// ninth byte on, where the first zero has 8 bits.
func psidOf(a, of netip.Addr) (psid uint16, ok bool) {
	b, v4 := a.As16(), of.As4()
	iid := b[8:]
	switch {
	case of.IsUnspecified() || iid[0] != 0:
	case iid[1] == 0 && [4]byte(iid[2:6]) == v4:
		return binary.BigEndian.Uint16(iid[6:]), true
	case iid[7] == 0 && [4]byte(iid[1:5]) == v4:
		return binary.BigEndian.Uint16(iid[5:]), true
	}
	return 0, false
}
