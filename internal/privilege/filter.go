package privilege

import (
	"fmt"
	"math"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// call is a system call that is allowed if its arguments match one of the conditions.
// Without conditions it is always allowed.
type call struct {
	number     uint32
	conditions []condition
}

// condition is a list of requirements for a call's arguments, all of which they must meet.
type condition []argument

// argument is a condition: the lower 32 bits of the argument, under mask, are the value.
// It is used for arguments that the kernel treats as ints or flags.
type argument struct {
	index       uint32 // from 0
	mask, value uint32
}

// exactly is the condition that an argument has a value.
func exactly(index, value uint32) argument {
	return argument{index, ^uint32(0), value}
}

// oneOf returns the conditions for an argument that may have one of several values.
func oneOf(index uint32, values ...uint32) []condition {
	var conditions []condition
	for _, v := range values {
		conditions = append(conditions, condition{exactly(index, v)})
	}
	return conditions
}

// Offsets in struct seccomp_data, seccomp(2).
const (
	atNumber       = 0
	atArchitecture = 4
	atArguments    = 16 // 8 bytes each
)

// Results of a call that is not allowed: it fails with EPERM. A call that is newer than
// the lists here fails with ENOSYS, so that libraries behave as on an older kernel. A
// call of another architecture, whose numbers are different, kills the process, because
// it is never made by accident.
const (
	refuse  = unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)
	unknown = unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)
	kill    = unix.SECCOMP_RET_KILL_PROCESS
	allow   = unix.SECCOMP_RET_ALLOW
)

// Numbers between these belong to calls that are newer than the lists, of which newest
// is the last. From 424 on, all architectures have the same numbers. Some have a few of
// their own far above.
const (
	newest = unix.SYS_MSEAL
	own    = 0x0f0000
)

// newCalls returns the filter for calls that are newer than the lists, and for absent ones:
// libraries try them first, and have a fallback. There are two filters because the
// kernel logs all refusals of a filter or none, and these need no log.
func newCalls(absent []uint32) []bpf.Instruction {
	p := []bpf.Instruction{bpf.LoadAbsolute{Off: atNumber, Size: 4}}
	for _, number := range absent {
		p = append(p, bpf.JumpIf{Cond: bpf.JumpEqual, Val: number, SkipFalse: 1}, bpf.RetConstant{Val: unknown})
	}
	return append(p, ifNewCall(unknown, allow)...)
}

// ifNewCall returns the end of a filter, with the call's number in its register.
func ifNewCall(then, otherwise uint32) []bpf.Instruction {
	return []bpf.Instruction{
		bpf.JumpIf{Cond: bpf.JumpGreaterThan, Val: newest, SkipFalse: 2},
		bpf.JumpIf{Cond: bpf.JumpGreaterOrEqual, Val: own, SkipTrue: 1},
		bpf.RetConstant{Val: then},
		bpf.RetConstant{Val: otherwise},
	}
}

// listed returns the filter for all other calls; it allows those that newCalls handles. It
// is for an architecture (an AUDIT_ARCH_ constant) on which the lower half of an
// argument is at the offset low.
func listed(architecture uint32, low uint32, calls []call) []bpf.Instruction {
	p := []bpf.Instruction{
		bpf.LoadAbsolute{Off: atArchitecture, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: architecture, SkipTrue: 1},
		bpf.RetConstant{Val: kill},
		bpf.LoadAbsolute{Off: atNumber, Size: 4},
	}
	for _, c := range calls {
		b := c.block(low)
		if len(b) > math.MaxUint8 { // the longest jump
			panic(fmt.Sprintf("system call %d has too many conditions", c.number))
		}
		p = append(p, bpf.JumpIf{Cond: bpf.JumpEqual, Val: c.number, SkipFalse: uint8(len(b))})
		p = append(p, b...)
	}
	return append(p, ifNewCall(allow, refuse)...)
}

// block returns the instructions for a call after its number has matched.
func (c call) block(low uint32) []bpf.Instruction {
	if len(c.conditions) == 0 {
		return []bpf.Instruction{bpf.RetConstant{Val: allow}}
	}
	var b []bpf.Instruction
	for _, w := range c.conditions {
		const each = 3                 // instructions per argument
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
