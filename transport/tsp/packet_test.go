package tsp_test

import (
	"encoding/binary"
	"net/netip"

	"sixfour/encap/header"
)

// packet returns an IPv6 packet.
func packet(src, dst netip.Addr, next byte, payload []byte) []byte {
	b := make([]byte, 40, 40+len(payload))
	b[0], b[6], b[7] = 0x60, next, 64
	binary.BigEndian.PutUint16(b[4:], uint16(len(payload)))
	s, d := src.As16(), dst.As16()
	copy(b[8:], s[:])
	copy(b[24:], d[:])
	return append(b, payload...)
}

// echo returns an ICMPv6 echo request (128) or reply (129).
func echo(kind byte, src, dst netip.Addr) []byte {
	msg := []byte{kind, 0, 0, 0, 0x43, 0x4b, 0, 1, 0xcd, 0xcd, 0xcd, 0xcd}
	b := packet(src, dst, 58, msg)
	binary.BigEndian.PutUint16(b[42:], ^header.Sum(b[40:], header.PseudoSum(b[8:24], b[24:40], len(msg), 58)))
	return b
}
