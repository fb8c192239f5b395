package privilege

import "golang.org/x/sys/unix"

const (
	architecture = unix.AUDIT_ARCH_S390X
	cloneFlags   = 1 // the index of clone(2)'s argument with the flags
)

// freeHere are calls that not every architecture has. Go makes sockets with
// socketcall(2), and mmap(2) has one argument: the real arguments are in memory, which a
// filter cannot read, so both are allowed here.
var freeHere = []uint32{unix.SYS_NEWFSTATAT, unix.SYS_STAT, unix.SYS_LSTAT, unix.SYS_OPEN, unix.SYS_SOCKETCALL, unix.SYS_MMAP}

func callsHere() []call { return nil }
