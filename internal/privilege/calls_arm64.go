package privilege

import "golang.org/x/sys/unix"

const (
	architecture = unix.AUDIT_ARCH_AARCH64
	cloneFlags   = 0 // the index of clone(2)'s argument with the flags
)

// freeHere are calls that not every architecture has.
var freeHere = []uint32{unix.SYS_NEWFSTATAT}

func callsHere() []call { return []call{{unix.SYS_MMAP, notExecuted}} }
