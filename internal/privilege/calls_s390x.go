package privilege

import "golang.org/x/sys/unix"

const (
	architecture = unix.AUDIT_ARCH_S390X
	cloneFlags   = 1 // the argument of clone(2) that has the flags
)

// freeHere are calls that not every architecture has. Go makes sockets by
// socketcall(2), and mmap(2) has one argument: what they do lies in memory, where a
// filter cannot look, so that both are free here.
var freeHere = []uint32{unix.SYS_NEWFSTATAT, unix.SYS_STAT, unix.SYS_LSTAT, unix.SYS_OPEN, unix.SYS_SOCKETCALL, unix.SYS_MMAP}

func callsHere() []call { return nil }
