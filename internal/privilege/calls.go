//go:build amd64 || arm64 || arm || riscv64 || s390x

package privilege

import (
	"slices"

	"golang.org/x/sys/unix"
)

// free may be made with any arguments. What comes first is found first by kernels
// that do not remember what a filter says (before 5.11).
var free = []uint32{
	// Packets, and waiting for them.
	unix.SYS_READ, unix.SYS_WRITEV, unix.SYS_RECVMMSG, unix.SYS_SENDMMSG, unix.SYS_PPOLL, unix.SYS_NANOSLEEP,
	unix.SYS_FUTEX, unix.SYS_EPOLL_PWAIT, unix.SYS_SENDTO, unix.SYS_WRITE, unix.SYS_MEMBARRIER,

	// Go's runtime: memory, threads, signals, time.
	unix.SYS_MUNMAP, unix.SYS_MADVISE, unix.SYS_MINCORE, unix.SYS_BRK, unix.SYS_MREMAP,
	unix.SYS_EXIT, unix.SYS_EXIT_GROUP, unix.SYS_GETTID, unix.SYS_GETPID, unix.SYS_SCHED_YIELD, unix.SYS_SCHED_GETAFFINITY,
	unix.SYS_RT_SIGACTION, unix.SYS_RT_SIGPROCMASK, unix.SYS_RT_SIGRETURN, unix.SYS_SIGALTSTACK, unix.SYS_RESTART_SYSCALL,
	unix.SYS_CLOCK_GETTIME, unix.SYS_CLOCK_GETRES, unix.SYS_CLOCK_NANOSLEEP, unix.SYS_GETTIMEOFDAY,
	unix.SYS_GETRANDOM, unix.SYS_UNAME, unix.SYS_GETRUSAGE, unix.SYS_SYSINFO,
	unix.SYS_GETUID, unix.SYS_GETEUID, unix.SYS_GETGID, unix.SYS_GETEGID, unix.SYS_GETPPID,
	unix.SYS_EPOLL_CREATE1, unix.SYS_EPOLL_CTL, unix.SYS_EVENTFD2, unix.SYS_PIPE2,
	// A C library's threads, where the program was built with one.
	unix.SYS_SET_ROBUST_LIST, unix.SYS_RSEQ, unix.SYS_SET_TID_ADDRESS, unix.SYS_PSELECT6,

	// Files: those that there are, and the removal of the control socket, are for
	// Landlock to allow. None is made, and no mode or owner is changed.
	unix.SYS_OPENAT, unix.SYS_CLOSE, unix.SYS_READV, unix.SYS_PREAD64, unix.SYS_LSEEK, unix.SYS_FSTAT, unix.SYS_STATX,
	unix.SYS_FSTATFS, unix.SYS_STATFS, unix.SYS_FCNTL, unix.SYS_FLOCK, unix.SYS_DUP, unix.SYS_DUP3,
	unix.SYS_READLINKAT, unix.SYS_GETDENTS64, unix.SYS_FACCESSAT, unix.SYS_FACCESSAT2, unix.SYS_GETCWD, unix.SYS_UNLINKAT,

	// Sockets, but for how they are made.
	unix.SYS_BIND, unix.SYS_CONNECT, unix.SYS_LISTEN, unix.SYS_ACCEPT4, unix.SYS_SHUTDOWN,
	unix.SYS_GETSOCKNAME, unix.SYS_GETPEERNAME, unix.SYS_GETSOCKOPT, unix.SYS_SETSOCKOPT,
	unix.SYS_SENDMSG, unix.SYS_RECVFROM, unix.SYS_RECVMSG,
}

// devices are what may be asked of the TUN device, of interfaces and, to know
// whether it is there, of a terminal: nothing is put into its input.
var devices = []uint32{
	unix.TUNSETIFF, unix.TUNGETIFF, unix.TUNGETFEATURES, unix.TUNSETOFFLOAD, unix.TUNSETPERSIST,
	unix.TUNSETQUEUE, unix.TUNSETVNETHDRSZ, unix.TUNGETVNETHDRSZ, unix.TUNGETDEVNETNS, unix.SIOCGSKNS,
	unix.SIOCGIFINDEX, unix.SIOCGIFNAME, unix.SIOCGIFMTU, unix.SIOCSIFMTU, unix.SIOCGIFFLAGS, unix.SIOCETHTOOL,
	unix.TCGETS, unix.TIOCGWINSZ,
}

// callsFor are all calls that a process, which has a number, may make.
func callsFor(n needs, pid uint32) []call {
	var calls []call
	for _, number := range slices.Concat(free, freeHere, absent) { // another filter sees to those that are absent
		calls = append(calls, call{number: number})
	}
	calls = append(calls,
		// A thread, but no process.
		call{unix.SYS_CLONE, []way{{{cloneFlags, unix.CLONE_THREAD, unix.CLONE_THREAD}}}},
		// To itself.
		call{unix.SYS_TGKILL, oneOf(0, pid)},
		call{unix.SYS_KILL, oneOf(0, pid)},
		call{unix.SYS_PRLIMIT64, oneOf(0, 0, pid)},
		call{unix.SYS_PRCTL, oneOf(0, unix.PR_SET_TIMERSLACK, unix.PR_GET_TIMERSLACK, unix.PR_SET_NAME, unix.PR_GET_NAME, unix.PR_SET_VMA)},
		call{unix.SYS_IOCTL, oneOf(1, devices...)},
		// Nothing that was written is executed.
		call{unix.SYS_MPROTECT, []way{{{2, unix.PROT_EXEC, 0}}}},
	)
	calls = append(calls, callsHere()...)
	calls = append(calls, call{unix.SYS_SOCKET, sockets(n)})
	if n.setns {
		calls = append(calls, call{unix.SYS_SETNS, oneOf(1, unix.CLONE_NEWNET)})
	}
	if n.xdp {
		calls = append(calls, call{number: unix.SYS_BPF})
	}
	return calls
}

// raw are the IP protocols of raw sockets: those that tunnels have, also such as a
// reload may bring, that of errors about their packets, and the one that sends and
// receives nothing. With others CAP_NET_RAW would show what comes to other programs.
var raw = []uint32{unix.IPPROTO_IPIP, unix.IPPROTO_IPV6, unix.IPPROTO_GRE, unix.IPPROTO_RAW}

// mptcp is IPPROTO_MPTCP of linux/in.h, with which Go makes listeners.
const mptcp = 262

// sockets are those that may be made: of the protocols of tunnels, for names and
// metrics, and for the control socket; not packet sockets, through which CAP_NET_RAW
// would show all traffic: the only one is made before, and its filter cannot be changed.
func sockets(n needs) []way {
	ways := oneOf(0, unix.AF_UNIX)
	for family, icmp := range map[uint32]uint32{unix.AF_INET: unix.IPPROTO_ICMP, unix.AF_INET6: unix.IPPROTO_ICMPV6} {
		of := func(kind, protocol uint32) {
			const kinds = 0xf // SOCK_TYPE_MASK of linux/net.h: the rest are flags
			ways = append(ways, way{exactly(0, family), {1, kinds, kind}, exactly(2, protocol)})
		}
		of(unix.SOCK_DGRAM, 0)
		of(unix.SOCK_STREAM, 0)
		of(unix.SOCK_STREAM, mptcp)
		for _, protocol := range append([]uint32{icmp}, raw...) {
			of(unix.SOCK_RAW, protocol)
		}
	}
	ways = append(ways, way{exactly(0, unix.AF_NETLINK), exactly(2, unix.NETLINK_ROUTE)})
	if n.filter {
		ways = append(ways, way{exactly(0, unix.AF_NETLINK), exactly(2, unix.NETLINK_NETFILTER)})
	}
	if n.xdp { // which must not go past IPsec: the kernel is asked for policies
		ways = append(ways, way{exactly(0, unix.AF_XDP)}, way{exactly(0, unix.AF_NETLINK), exactly(2, unix.NETLINK_XFRM)})
	}
	return ways
}

// absent are calls that are as if they were younger: the flags of clone3 lie where a
// filter cannot look.
var absent = []uint32{unix.SYS_CLONE3}

// notExecuted is a mapping, of a call with the arguments of mmap(2), from which
// nothing is executed.
var notExecuted = []way{{{2, unix.PROT_EXEC, 0}}}
