package wireguard

import (
	"encoding/binary"
	"net/netip"

	"golang.zx2c4.com/wireguard/device"

	"sixfour/encap/header"
)

// A note is what the outer headers of a packet say, at the end of the buffer in which the
// packet passes through the device. The device has no place for it, but works on a packet in
// one buffer from the socket to the interface, and back, and does not use the end of it:
//
//	0        16                16+n           32+n+padding               MaxMessageSize
//	| header | inner packet, n | padding, tag | free ...        | note |
//
// So each decrypted packet comes with the address from which it was sent, which is thereby
// authenticated, and with its ECN field; and a packet to send keeps its TOS and TTL. The
// tests of this package fail if a version of the device copies packets to other buffers.
type note []byte

const noteLen = 40

// most is the largest datagram that leaves room for a note.
const most = device.MaxMessageSize - noteLen

// noteOf returns the note of a packet that begins a buffer of the device; ok is false if the
// packet is in another buffer, as handshake messages are, and has no note.
func noteOf(packet []byte) (n note, ok bool) {
	if cap(packet) != device.MaxMessageSize {
		return nil, false
	}
	return note(packet[:cap(packet)][most:]), true
}

// set writes all of a note.
func (n note) set(o *header.Outer) {
	from, at := o.From.Addr().As16(), o.At.Addr().As16()
	copy(n, from[:])
	copy(n[16:], at[:])
	binary.BigEndian.PutUint16(n[32:], o.From.Port())
	n.setOuter(o.TOS, o.TTL)
}

// setOuter writes only TOS and TTL, which is all that is read of a packet to send.
func (n note) setOuter(tos, ttl byte) { n[34], n[35] = tos, ttl }

func (n note) tos() byte { return n[34] }
func (n note) ttl() byte { return n[35] }

// outer returns what set has written. Addresses have no zone, and the port of At is 0.
func (n note) outer() header.Outer {
	from := netip.AddrFrom16([16]byte(n)).Unmap()
	at := netip.AddrFrom16([16]byte(n[16:])).Unmap()
	return header.Outer{
		From: netip.AddrPortFrom(from, binary.BigEndian.Uint16(n[32:])), At: netip.AddrPortFrom(at, 0),
		TOS: n.tos(), TTL: n.ttl(),
	}
}
