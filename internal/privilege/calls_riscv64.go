package privilege

import "golang.org/x/sys/unix"

const (
	architecture = unix.AUDIT_ARCH_RISCV64
	cloneFlags   = 0 // the index of clone(2)'s argument with the flags
)

// freeHere are calls that not every architecture has.
var freeHere = []uint32{unix.SYS_NEWFSTATAT, unix.SYS_RISCV_HWPROBE, unix.SYS_RISCV_FLUSH_ICACHE}

func callsHere() []call { return []call{{unix.SYS_MMAP, notExecuted}} }
