package header

import (
	"encoding/binary"
	"math/bits"
	"unsafe"
)

// Sum is the one's complement sum of b's 16-bit words added to initial, folded
// to 16 bits (RFC 1071); an odd last byte counts as the high half of a word.
// What goes into a header's checksum field is its complement; over a header
// that holds its checksum the sum is 0xffff.
func Sum(b []byte, initial uint32) uint16 {
	// This loop reads eight bytes at a time, in the machine's byte order. The sum may be
	// formed in words of any size if carries are added at the low end, and in any byte
	// order if the bytes of the result are swapped (RFC 1071 section 2 B). A chain of
	// additions keeps its carry in the processor.
	var sum, carry uint64
	if hasWide && len(b) >= wide {
		n := len(b) &^ 63
		sum = sumWide(unsafe.SliceData(b), n)
		b = b[n:]
	}
	for len(b) >= 64 {
		w := (*[64]byte)(b)
		sum, carry = bits.Add64(sum, binary.NativeEndian.Uint64(w[0:]), carry)
		sum, carry = bits.Add64(sum, binary.NativeEndian.Uint64(w[8:]), carry)
		sum, carry = bits.Add64(sum, binary.NativeEndian.Uint64(w[16:]), carry)
		sum, carry = bits.Add64(sum, binary.NativeEndian.Uint64(w[24:]), carry)
		sum, carry = bits.Add64(sum, binary.NativeEndian.Uint64(w[32:]), carry)
		sum, carry = bits.Add64(sum, binary.NativeEndian.Uint64(w[40:]), carry)
		sum, carry = bits.Add64(sum, binary.NativeEndian.Uint64(w[48:]), carry)
		sum, carry = bits.Add64(sum, binary.NativeEndian.Uint64(w[56:]), carry)
		b = b[64:]
	}
	for len(b) >= 8 {
		sum, carry = bits.Add64(sum, binary.NativeEndian.Uint64(b), carry)
		b = b[8:]
	}
	if len(b) >= 4 {
		sum, carry = bits.Add64(sum, uint64(binary.NativeEndian.Uint32(b)), carry)
		b = b[4:]
	}
	if len(b) >= 2 {
		sum, carry = bits.Add64(sum, uint64(binary.NativeEndian.Uint16(b)), carry)
		b = b[2:]
	}
	if len(b) == 1 {
		sum, carry = bits.Add64(sum, uint64(binary.NativeEndian.Uint16([]byte{b[0], 0})), carry)
	}
	sum, carry = bits.Add64(sum, 0, carry)
	sum += carry
	var swapped [2]byte
	binary.NativeEndian.PutUint16(swapped[:], fold64(sum))
	return Fold(uint32(binary.BigEndian.Uint16(swapped[:])) + uint32(Fold(initial)))
}

// Fold reduces a sum of 16-bit words to 16 bits.
func Fold(sum uint32) uint16 {
	sum = sum>>16 + sum&0xffff
	return uint16(sum>>16 + sum)
}

// fold64 is Fold for a sum of 64-bit words.
func fold64(sum uint64) uint16 {
	sum = sum>>32 + sum&0xffffffff
	return Fold(uint32(sum>>32 + sum))
}

// SumPieces is Sum for a packet that begins with head and continues with tail.
func SumPieces(head, tail []byte, initial uint32) uint16 {
	sum, rest := Sum(head, initial), Sum(tail, 0)
	if len(head)%2 != 0 { // the 16-bit words of tail begin in the middle of ours
		rest = rest<<8 | rest>>8
	}
	return Fold(uint32(sum) + uint32(rest))
}

// Update returns a checksum after one 16-bit word of what it covers changed from before
// to after: HC' = ~(~HC + ~m + m') (RFC 1624 section 3).
func Update(sum, before, after uint16) uint16 {
	return ^Fold(uint32(^sum) + uint32(^before) + uint32(after))
}

// PseudoSum returns the sum of the pseudo-header that TCP, UDP and ICMPv6 checksums
// cover (RFC 9293 section 3.1, RFC 8200 section 8.1): source and destination address,
// both of 4 or both of 16 bytes, upper-layer length and protocol.
func PseudoSum(src, dst []byte, length int, protocol byte) uint32 {
	return uint32(Sum(src, 0)) + uint32(Sum(dst, 0)) + uint32(length>>16) + uint32(length&0xffff) + uint32(protocol)
}
