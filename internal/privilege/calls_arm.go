package privilege

import "golang.org/x/sys/unix"

const (
	architecture = unix.AUDIT_ARCH_ARM
	cloneFlags   = 0 // the index of clone(2)'s argument with the flags
)

// Calls that only this architecture has (asm/unistd.h), and which package unix does not
// name.
const (
	cacheflush = 0x0f0002
	setTLS     = 0x0f0005
)

// freeHere are calls that not every architecture has: here, those with longer times,
// offsets and user IDs.
var freeHere = []uint32{
	unix.SYS_FUTEX_TIME64, unix.SYS_CLOCK_GETTIME64, unix.SYS_CLOCK_GETRES_TIME64, unix.SYS_CLOCK_NANOSLEEP_TIME64,
	unix.SYS_PPOLL_TIME64, unix.SYS_PSELECT6_TIME64, unix.SYS_RECVMMSG_TIME64,
	unix.SYS_FCNTL64, unix.SYS_FSTAT64, unix.SYS_FSTATAT64, unix.SYS_STAT64, unix.SYS_LSTAT64, unix.SYS_STATFS64, unix.SYS_FSTATFS64, unix.SYS__LLSEEK,
	unix.SYS_FTRUNCATE64, // of the broker's store
	unix.SYS_GETUID32, unix.SYS_GETEUID32, unix.SYS_GETGID32, unix.SYS_GETEGID32, unix.SYS_UGETRLIMIT,
	unix.SYS_OPEN, unix.SYS_ACCESS, unix.SYS_READLINK, unix.SYS_POLL, unix.SYS_EPOLL_WAIT, unix.SYS_SIGRETURN,
	unix.SYS_SEND, unix.SYS_RECV, cacheflush, setTLS,
}

func callsHere() []call { return []call{{unix.SYS_MMAP2, notExecuted}} }
