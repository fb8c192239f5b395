package privilege

import "golang.org/x/sys/unix"

const (
	architecture = unix.AUDIT_ARCH_X86_64
	cloneFlags   = 0 // the index of clone(2)'s argument with the flags
)

// freeHere are calls that not every architecture has.
var freeHere = []uint32{
	unix.SYS_NEWFSTATAT, unix.SYS_ARCH_PRCTL,
	unix.SYS_POLL, unix.SYS_OPEN, unix.SYS_READLINK, unix.SYS_ACCESS, unix.SYS_EPOLL_WAIT, // of a C library
}

func callsHere() []call { return []call{{unix.SYS_MMAP, notExecuted}} }
