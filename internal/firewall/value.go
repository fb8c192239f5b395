package firewall

import (
	"bytes"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// ternary is a yes, a no, or unknown.
type ternary uint8

const (
	no ternary = iota
	maybe
	yes
)

func (t ternary) not() ternary { return yes - t }

func ternaryOf(b bool) ternary {
	if b {
		return yes
	}
	return no
}

// value is a sequence of bytes, each of which is known or unknown.
type value struct {
	b     []byte
	known []bool
}

func knownValue(b []byte) value {
	v := value{bytes.Clone(b), make([]bool, len(b))}
	for i := range v.known {
		v.known[i] = true
	}
	return v
}

func unknownValue(n int) value { return value{make([]byte, n), make([]bool, n)} }

func (v value) allKnown() bool {
	for _, k := range v.known {
		if !k {
			return false
		}
	}
	return true
}

// is compares v with known bytes. b must not be longer than v.
func (v value) is(b []byte) ternary {
	answer := yes
	for i := range b {
		switch {
		case !v.known[i]:
			answer = maybe
		case v.b[i] != b[i]:
			return no
		}
	}
	return answer
}

// compare evaluates v op b.
func (v value) compare(op expr.CmpOp, b []byte) ternary {
	switch op {
	case expr.CmpOpEq:
		return v.is(b)
	case expr.CmpOpNeq:
		return v.is(b).not()
	}
	if !v.allKnown() {
		return maybe
	}
	c := bytes.Compare(v.b, b)
	switch op {
	case expr.CmpOpLt:
		return ternaryOf(c < 0)
	case expr.CmpOpLte:
		return ternaryOf(c <= 0)
	case expr.CmpOpGt:
		return ternaryOf(c > 0)
	case expr.CmpOpGte:
		return ternaryOf(c >= 0)
	}
	return maybe
}

// within reports whether v is between two values, both included.
func (v value) within(from, to []byte) ternary {
	switch {
	case bytes.Equal(from, to) && len(from) <= len(v.b):
		return v.is(from)
	case !v.allKnown() || len(from) != len(v.b) || len(to) != len(v.b):
		return maybe
	}
	return ternaryOf(bytes.Compare(v.b, from) >= 0 && bytes.Compare(v.b, to) <= 0)
}

// part returns the bytes from an offset up to another.
func (v value) part(from, to int) value { return value{v.b[from:to], v.known[from:to]} }

// registers are the registers through which a rule's expressions pass values: 16 of 4
// bytes or, over the same bytes, 4 of 16 (linux/netfilter/nf_tables.h).
type registers struct{ value }

const registersLen = 64

func newRegisters() *registers { return &registers{unknownValue(registersLen)} }

// at returns the offset of a register. ok reports whether there are n bytes from there
// on.
func (r *registers) at(register uint32, n int) (off int, ok bool) {
	switch {
	case register >= unix.NFT_REG_1 && register <= unix.NFT_REG_4:
		off = int(register-unix.NFT_REG_1) * 16
	case register >= unix.NFT_REG32_00 && register <= unix.NFT_REG32_15:
		off = int(register-unix.NFT_REG32_00) * 4
	default:
		return 0, false
	}
	return off, n >= 0 && off+n <= registersLen
}

// load returns n bytes from a register on. Bytes beyond the registers are unknown.
func (r *registers) load(register uint32, n int) value {
	off, ok := r.at(register, n)
	if !ok {
		return unknownValue(max(0, min(n, registersLen)))
	}
	return r.part(off, off+n)
}

// store writes a value from a register on. Like the kernel, it pads the value to 4 bytes
// with zeros.
func (r *registers) store(register uint32, v value) {
	n := (len(v.b) + 3) &^ 3
	off, ok := r.at(register, n)
	if !ok {
		r.value = unknownValue(registersLen)
		return
	}
	for i := range n {
		r.b[off+i], r.known[off+i] = 0, true
		if i < len(v.b) {
			r.b[off+i], r.known[off+i] = v.b[i], v.known[i]
		}
	}
}
