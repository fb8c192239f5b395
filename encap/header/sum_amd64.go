package header

import "golang.org/x/sys/cpu"

// wide is the length from which sumWide is faster than the loop of Sum.
const wide = 256

// hasWide reports whether the processor has the instructions of sumWide (AVX2), and the
// system stores their registers.
var hasWide = cpu.X86.HasAVX2

// sumWide returns the sum of the 32-bit words, in the machine's byte order, in n bytes. N is
// a multiple of 64 and not 0.
//
//go:noescape
func sumWide(p *byte, n int) uint64
