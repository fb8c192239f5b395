//go:build amd64 || arm64 || arm || riscv64 || s390x

package privilege

import (
	"slices"

	"golang.org/x/sys/unix"
)

// free are calls that are allowed with any arguments. Kernels before 5.11 do not cache
// the results of a filter, and find the first entries first.
var free = []uint32{
	// Sending and receiving packets, and waiting for them.
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
	// A C library's threads, if the program was built with one.
	unix.SYS_SET_ROBUST_LIST, unix.SYS_RSEQ, unix.SYS_SET_TID_ADDRESS, unix.SYS_PSELECT6,

	// Files: Landlock decides which existing ones may be opened, and whether the control
	// socket may be removed. No file can be created, and no mode or owner changed.
	unix.SYS_OPENAT, unix.SYS_CLOSE, unix.SYS_READV, unix.SYS_PREAD64, unix.SYS_LSEEK, unix.SYS_FSTAT, unix.SYS_STATX,
	unix.SYS_FSTATFS, unix.SYS_STATFS, unix.SYS_FCNTL, unix.SYS_FLOCK, unix.SYS_DUP, unix.SYS_DUP3,
	unix.SYS_READLINKAT, unix.SYS_GETDENTS64, unix.SYS_FACCESSAT, unix.SYS_FACCESSAT2, unix.SYS_GETCWD, unix.SYS_UNLINKAT,

	// Sockets, except for their creation.
	unix.SYS_BIND, unix.SYS_CONNECT, unix.SYS_LISTEN, unix.SYS_ACCEPT4, unix.SYS_SHUTDOWN,
	unix.SYS_GETSOCKNAME, unix.SYS_GETPEERNAME, unix.SYS_GETSOCKOPT, unix.SYS_SETSOCKOPT,
	unix.SYS_SENDMSG, unix.SYS_RECVFROM, unix.SYS_RECVMSG,
}

// devices are the ioctl requests for the TUN device, for interfaces and, to test for
// one, for a terminal. Writing into a terminal's input is not among them.
var devices = []uint32{
	unix.TUNSETIFF, unix.TUNGETIFF, unix.TUNGETFEATURES, unix.TUNSETOFFLOAD, unix.TUNSETPERSIST,
	unix.TUNSETQUEUE, unix.TUNSETVNETHDRSZ, unix.TUNGETVNETHDRSZ, unix.TUNGETDEVNETNS, unix.SIOCGSKNS,
	unix.SIOCGIFINDEX, unix.SIOCGIFNAME, unix.SIOCGIFMTU, unix.SIOCSIFMTU, unix.SIOCGIFFLAGS, unix.SIOCETHTOOL,
	unix.TCGETS, unix.TIOCGWINSZ,
}

// storing are the calls by which a database changes its file, which is open already.
var storing = []uint32{unix.SYS_PWRITE64, unix.SYS_FTRUNCATE, unix.SYS_FSYNC, unix.SYS_FDATASYNC}

// callsFor returns all calls that a process with this process ID may make.
func callsFor(n needs, pid uint32) []call {
	var calls []call
	for _, number := range slices.Concat(free, freeHere, absent) { // the other filter handles the absent ones
		calls = append(calls, call{number: number})
	}
	calls = append(calls,
		// A thread, but not a process.
		call{unix.SYS_CLONE, []condition{{{cloneFlags, unix.CLONE_THREAD, unix.CLONE_THREAD}}}},
		// Signals to the process itself.
		call{unix.SYS_TGKILL, oneOf(0, pid)},
		call{unix.SYS_KILL, oneOf(0, pid)},
		call{unix.SYS_PRLIMIT64, oneOf(0, 0, pid)},
		call{unix.SYS_PRCTL, oneOf(0, unix.PR_SET_TIMERSLACK, unix.PR_GET_TIMERSLACK, unix.PR_SET_NAME, unix.PR_GET_NAME, unix.PR_SET_VMA)},
		call{unix.SYS_IOCTL, oneOf(1, devices...)},
		// Memory that was written cannot become executable.
		call{unix.SYS_MPROTECT, []condition{{{2, unix.PROT_EXEC, 0}}}},
	)
	calls = append(calls, callsHere()...)
	calls = append(calls, call{unix.SYS_SOCKET, sockets(n)})
	if n.setns {
		calls = append(calls, call{unix.SYS_SETNS, oneOf(1, unix.CLONE_NEWNET)})
	}
	switch {
	case n.xdp:
		calls = append(calls, call{number: unix.SYS_BPF})
	case n.kernel: // no program can be loaded any more, and no map made
		calls = append(calls, call{unix.SYS_BPF, oneOf(0, unix.BPF_MAP_LOOKUP_ELEM, unix.BPF_MAP_UPDATE_ELEM, unix.BPF_MAP_DELETE_ELEM, unix.BPF_LINK_CREATE)})
	}
	if n.store {
		for _, number := range storing {
			calls = append(calls, call{number: number})
		}
	}
	return calls
}

// raw are the IP protocols of raw sockets: those of all tunnels, also after a reload,
// those of errors about their packets, and one that only sends. Other protocols would
// let CAP_NET_RAW read packets of other programs.
var raw = []uint32{unix.IPPROTO_IPIP, unix.IPPROTO_IPV6, unix.IPPROTO_GRE, unix.IPPROTO_FRAGMENT, unix.IPPROTO_RAW}

// mptcp is IPPROTO_MPTCP of linux/in.h, which Go uses for listeners.
const mptcp = 262

// sockets returns the conditions for calls of socket(2): for the protocols of tunnels, for DNS and
// metrics, and for the control socket. Packet sockets are not among them: they would let
// CAP_NET_RAW read all traffic. The only one is made earlier, and its filter is locked.
func sockets(n needs) []condition {
	conditions := oneOf(0, unix.AF_UNIX)
	for family, icmp := range map[uint32]uint32{unix.AF_INET: unix.IPPROTO_ICMP, unix.AF_INET6: unix.IPPROTO_ICMPV6} {
		of := func(kind, protocol uint32) {
			const kinds = 0xf // SOCK_TYPE_MASK of linux/net.h: the other bits are flags
			conditions = append(conditions, condition{exactly(0, family), {1, kinds, kind}, exactly(2, protocol)})
		}
		of(unix.SOCK_DGRAM, 0)
		of(unix.SOCK_STREAM, 0)
		of(unix.SOCK_STREAM, mptcp)
		for _, protocol := range append([]uint32{icmp}, raw...) {
			of(unix.SOCK_RAW, protocol)
		}
	}
	conditions = append(conditions, condition{exactly(0, unix.AF_NETLINK), exactly(2, unix.NETLINK_ROUTE)})
	if n.filter {
		conditions = append(conditions, condition{exactly(0, unix.AF_NETLINK), exactly(2, unix.NETLINK_NETFILTER)})
	}
	if n.xdp {
		conditions = append(conditions, condition{exactly(0, unix.AF_XDP)})
	}
	if n.xdp || n.kernel { // packets must not bypass IPsec, so the kernel is asked for policies
		conditions = append(conditions, condition{exactly(0, unix.AF_NETLINK), exactly(2, unix.NETLINK_XFRM)})
	}
	return conditions
}

// absent are calls that fail as if the kernel did not have them: the flags of clone3 are
// in memory, which a filter cannot read.
var absent = []uint32{unix.SYS_CLONE3}

// notExecuted is the condition that a mapping, of a call with the arguments of mmap(2),
// is not executable.
var notExecuted = []condition{{{2, unix.PROT_EXEC, 0}}}
