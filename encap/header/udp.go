package header

import "encoding/binary"

// UDPLen is the length of a UDP header in bytes (RFC 768).
const UDPLen = 8

// SetUDPChecksum writes a checksum into a UDP header. Where it is 0, which would mean that
// there is none, it writes its other representation.
func SetUDPChecksum(udp []byte, sum uint16) {
	if sum == 0 {
		sum = 0xffff
	}
	binary.BigEndian.PutUint16(udp[6:], sum)
}

// Ports returns the source and the destination port at the beginning of a UDP header, or of
// any other that begins with both; 0 if they are cut off.
func Ports(b []byte) (src, dst uint16) {
	if len(b) < 4 {
		return 0, 0
	}
	return binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])
}
