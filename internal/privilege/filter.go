package privilege

import (
	"fmt"
	"math"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// call is a system call that may be made if its arguments are in one of the ways;
// without ways, in any.
type call struct {
	number uint32
	ways   []way
}

// way is what all must hold of a call's arguments.
type way []argument

// argument holds if its lower 32 bits, as far as mask has them, are the value. What
// is looked at here are numbers that the kernel takes for ints or flags.
type argument struct {
	index       uint32 // from 0
	mask, value uint32
}

// exactly is an argument that is a value.
func exactly(index, value uint32) argument {
	return argument{index, ^uint32(0), value}
}

// oneOf are the ways of an argument that may be each of some values.
func oneOf(index uint32, values ...uint32) []way {
	var ways []way
	for _, v := range values {
		ways = append(ways, way{exactly(index, v)})
	}
	return ways
}

// Offsets in struct seccomp_data, seccomp(2).
const (
	atNumber       = 0
	atArchitecture = 4
	atArguments    = 16 // 8 bytes each
)

// What becomes of a call that is not allowed: its caller is told that it may not
// (EPERM). One that is younger than the lists here is not known (ENOSYS), so that
// libraries do as on an older kernel. The calls of another architecture have other
// numbers, and nobody makes them by accident.
const (
	refuse  = unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)
	unknown = unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)
	kill    = unix.SECCOMP_RET_KILL_PROCESS
	allow   = unix.SECCOMP_RET_ALLOW
)

// Numbers between these are younger than the lists, whose last is newest; all
// architectures have the same from 424 on. Some have a few of their own far above.
const (
	newest = unix.SYS_MSEAL
	own    = 0x0f0000
)

// young is the filter for calls that are not known, and for those that are absent:
// libraries try them first, and do without. There are two filters because the kernel
// logs all refusals of one or none, and these are no news.
func young(absent []uint32) []bpf.Instruction {
	p := []bpf.Instruction{bpf.LoadAbsolute{Off: atNumber, Size: 4}}
	for _, number := range absent {
		p = append(p, bpf.JumpIf{Cond: bpf.JumpEqual, Val: number, SkipFalse: 1}, bpf.RetConstant{Val: unknown})
	}
	return append(p, ifYoung(unknown, allow)...)
}

// ifYoung ends a filter, in whose register the number is.
func ifYoung(then, otherwise uint32) []bpf.Instruction {
	return []bpf.Instruction{
		bpf.JumpIf{Cond: bpf.JumpGreaterThan, Val: newest, SkipFalse: 2},
		bpf.JumpIf{Cond: bpf.JumpGreaterOrEqual, Val: own, SkipTrue: 1},
		bpf.RetConstant{Val: then},
		bpf.RetConstant{Val: otherwise},
	}
}

// listed is the filter for all other calls, which lets those of young through: of
// an architecture (an AUDIT_ARCH_ constant) whose arguments' lower halves lie at an
// offset of low.
func listed(architecture uint32, low uint32, calls []call) []bpf.Instruction {
	p := []bpf.Instruction{
		bpf.LoadAbsolute{Off: atArchitecture, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: architecture, SkipTrue: 1},
		bpf.RetConstant{Val: kill},
		bpf.LoadAbsolute{Off: atNumber, Size: 4},
	}
	for _, c := range calls {
		b := c.block(low)
		if len(b) > math.MaxUint8 { // no jump is longer
			panic(fmt.Sprintf("system call %d may be made in too many ways", c.number))
		}
		p = append(p, bpf.JumpIf{Cond: bpf.JumpEqual, Val: c.number, SkipFalse: uint8(len(b))})
		p = append(p, b...)
	}
	return append(p, ifYoung(allow, refuse)...)
}

// block decides about a call whose number is known to be this one's.
func (c call) block(low uint32) []bpf.Instruction {
	if len(c.ways) == 0 {
		return []bpf.Instruction{bpf.RetConstant{Val: allow}}
	}
	var b []bpf.Instruction
	for _, w := range c.ways {
		const each = 3                 // instructions an argument
		rest := uint8(each*len(w)) + 1 // to the next way
		for _, a := range w {
			rest -= each
			b = append(b,
				bpf.LoadAbsolute{Off: atArguments + 8*a.index + low, Size: 4},
				bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: a.mask},
				bpf.JumpIf{Cond: bpf.JumpEqual, Val: a.value, SkipFalse: rest})
		}
		b = append(b, bpf.RetConstant{Val: allow})
	}
	return append(b, bpf.RetConstant{Val: refuse})
}
