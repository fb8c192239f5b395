//go:build amd64 || arm64 || arm || riscv64 || s390x

package privilege

import (
	"errors"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// restrictCalls restricts the system calls of all threads to those that are needed. The
// kernel logs refused calls if auditing is on (type=1326).
func restrictCalls(n needs) error {
	if err := install(newCalls(absent), 0); err != nil {
		return err
	}
	return install(listed(architecture, lowerHalf(), callsFor(n, uint32(os.Getpid()))), unix.SECCOMP_FILTER_FLAG_LOG)
}

// install installs a filter for all threads.
func install(filter []bpf.Instruction, flags uintptr) error {
	raw, err := bpf.Assemble(filter)
	if err != nil {
		return err
	}
	program := make([]unix.SockFilter, len(raw))
	for i, r := range raw {
		program[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	prog := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	// No untrusted code runs in this process, so mitigations that would slow down every
	// thread are not needed.
	flags |= unix.SECCOMP_FILTER_FLAG_TSYNC | unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW
	thread, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, flags, uintptr(unsafe.Pointer(&prog)))
	runtime.KeepAlive(program)
	switch {
	case errno == unix.ENOSYS, errno == unix.EINVAL:
		return errors.New("the kernel does not support it, or is older than 4.17: see CONFIG_SECCOMP_FILTER")
	case errno != 0:
		return os.NewSyscallError("seccomp", errno)
	case thread != 0:
		return errors.New("a thread has other filters")
	}
	return nil
}

// lowerHalf returns the offset of the lower half of a 64-bit number.
func lowerHalf() uint32 {
	one := uint64(1)
	if *(*byte)(unsafe.Pointer(&one)) == 1 {
		return 0
	}
	return 4
}
