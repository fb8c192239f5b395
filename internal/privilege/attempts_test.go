package privilege_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
	"unsafe"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"kernel.org/pub/linux/libs/security/libcap/cap"

	"sixfour/internal/configfile"
	"sixfour/tun"
)

// role is what a configuration needs.
type role string

const (
	plain role = "plain"
	netns role = "netns"
	xdp   role = "xdp"
	bpf   role = "kernel"
	open  role = "open" // without a sandbox
	rules role = "packet filter"
)

// place is the environment of the attempts.
type place struct {
	dir, config, socket string
	parent              string       // a process
	outside             net.Listener // another service on this host
}

// attempt is an operation that must fail, or that must work in some roles.
type attempt struct {
	what    string
	try     func(place) error
	fails   syscall.Errno // 0: it works
	worksIn []role
	anyhow  bool // it also fails without a sandbox, because a capability is missing
}

// raw makes a system call for which Go has no function.
func raw(number uintptr, args ...uintptr) func(place) error {
	return func(place) error {
		var a [6]uintptr
		copy(a[:], args)
		if _, _, errno := unix.Syscall6(number, a[0], a[1], a[2], a[3], a[4], a[5]); errno != 0 {
			return errno
		}
		return nil
	}
}

func socket(domain, kind, protocol int) func(place) error {
	return func(place) error {
		fd, err := unix.Socket(domain, kind|unix.SOCK_CLOEXEC, protocol)
		if err == nil {
			unix.Close(fd)
		}
		return err
	}
}

func mapped(protection int) func(place) error {
	return func(place) error {
		b, err := unix.Mmap(-1, 0, 4096, protection, unix.MAP_PRIVATE|unix.MAP_ANON)
		if err == nil {
			err = unix.Munmap(b)
		}
		return err
	}
}

// attempts are listed in the order in which they are made.
var attempts = []attempt{
	// Other programs and other processes.
	{what: "execve", fails: unix.EPERM, try: func(place) error { return unix.Exec("/nonexistent", []string{"x"}, nil) }},
	{what: "a process", fails: unix.EPERM, worksIn: []role{open}, try: func(place) error {
		p, err := os.StartProcess("/bin/true", []string{"true"}, &os.ProcAttr{})
		if err == nil {
			_, err = p.Wait()
		}
		return err
	}},
	{what: "ptrace", fails: unix.EPERM, anyhow: true, try: func(p place) error { return unix.PtraceAttach(p.process()) }},
	{what: "another process's memory", fails: unix.EPERM, try: func(p place) error {
		_, err := unix.ProcessVMReadv(p.process(), nil, nil, 0)
		return err
	}, worksIn: []role{open}},
	{what: "a signal to another", fails: unix.EPERM, worksIn: []role{open}, try: func(p place) error { return unix.Kill(p.process(), 0) }},
	{what: "another process's files", fails: unix.EACCES, anyhow: true, try: func(p place) error {
		_, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", p.process()))
		return err
	}},

	// More rights.
	{what: "capabilities", fails: unix.EPERM, anyhow: true, try: func(place) error {
		set := cap.NewSet()
		if err := set.SetFlag(cap.Permitted, true, cap.SYS_MODULE); err != nil {
			return err
		}
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		data := [2]unix.CapUserData{{Permitted: 1 << cap.SYS_MODULE}}
		return unix.Capset(&header, &data[0])
	}},
	{what: "another user", fails: unix.EPERM, anyhow: true, try: raw(unix.SYS_SETRESUID, 65534, 65534, 65534)},
	{what: "a user namespace", fails: unix.EPERM, try: raw(unix.SYS_UNSHARE, unix.CLONE_NEWUSER|unix.CLONE_FS)},
	{what: "keys", fails: unix.EPERM, worksIn: []role{open}, try: raw(unix.SYS_KEYCTL, unix.KEYCTL_GET_KEYRING_ID, 1<<32-4, 1)},

	// The machine.
	{what: "mount", fails: unix.EPERM, anyhow: true, try: func(p place) error { return unix.Mount("none", p.dir, "tmpfs", 0, "") }},
	{what: "a kernel module", fails: unix.EPERM, try: raw(unix.SYS_INIT_MODULE)},
	{what: "reboot", fails: unix.EPERM, try: raw(unix.SYS_REBOOT)},
	{what: "the clock", fails: unix.EPERM, try: raw(unix.SYS_CLOCK_SETTIME, unix.CLOCK_REALTIME)},
	{what: "a file by its handle", fails: unix.EPERM, try: raw(unix.SYS_OPEN_BY_HANDLE_AT)},

	// Interfaces of the kernel that are not needed.
	{what: "io_uring", fails: unix.EPERM, try: raw(unix.SYS_IO_URING_SETUP)},
	{what: "userfaultfd", fails: unix.EPERM, try: raw(unix.SYS_USERFAULTFD, ^uintptr(0))},
	{what: "a file in memory", fails: unix.EPERM, worksIn: []role{open}, try: func(place) error {
		fd, err := unix.MemfdCreate("x", unix.MFD_CLOEXEC)
		if err == nil {
			unix.Close(fd)
		}
		return err
	}},
	{what: "memory to execute", fails: unix.EPERM, worksIn: []role{open}, try: mapped(unix.PROT_READ | unix.PROT_EXEC)},
	{what: "memory to read and write", try: mapped(unix.PROT_READ | unix.PROT_WRITE)},
	{what: "input for a terminal", fails: unix.EPERM, try: func(place) error {
		if err := unix.IoctlSetPointerInt(0, unix.TIOCSTI, 'x'); err != unix.ENOTTY {
			return err
		}
		return unix.EPERM // there are none
	}},

	// Files.
	{what: "another file", fails: unix.EACCES, worksIn: []role{open}, try: func(p place) error {
		_, err := os.ReadFile(filepath.Join(p.dir, "..", "secret"))
		return err
	}},
	{what: "a new file", fails: unix.EACCES, worksIn: []role{open}, try: func(p place) error {
		return os.WriteFile(filepath.Join(p.dir, "new"), nil, 0o600)
	}},
	{what: "writing the configuration", fails: unix.EACCES, worksIn: []role{open}, try: func(p place) error {
		f, err := os.OpenFile(p.config, os.O_WRONLY, 0)
		if err == nil {
			f.Close()
		}
		return err
	}},
	{what: "a setting of the kernel", fails: unix.EACCES, worksIn: []role{open}, try: func(place) error {
		f, err := os.OpenFile("/proc/sys/net/ipv4/ip_forward", os.O_WRONLY, 0)
		if err == nil {
			f.Close()
		}
		return err
	}},
	{what: "a file's mode", fails: unix.EPERM, worksIn: []role{open}, try: func(p place) error { return os.Chmod(p.config, 0o600) }},
	{what: "reading the configuration, which was replaced", try: func(p place) error {
		cfg, err := configfile.Load(p.config)
		if err == nil && cfg.Tunnels[0].Name != replaced {
			err = fmt.Errorf("it is the one of before")
		}
		return err
	}},
	{what: "name servers", try: func(place) error {
		_, err := os.ReadFile("/etc/resolv.conf")
		return err
	}},
	{what: "a setting of an interface", try: func(place) error {
		_, err := os.ReadFile("/proc/sys/net/ipv4/conf/lo/forwarding")
		return err
	}},
	{what: "devices", try: func(place) error {
		_, err := os.ReadDir("/sys/class/net")
		return err
	}},

	// The network.
	{what: "all packets of the machine", fails: unix.EPERM, worksIn: []role{open}, try: socket(unix.AF_PACKET, unix.SOCK_RAW, 0)},
	{what: "the audit log", fails: unix.EPERM, worksIn: []role{open}, try: socket(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_AUDIT)},
	{what: "a socket for the kernel's ciphers", fails: unix.EPERM, try: socket(unix.AF_ALG, unix.SOCK_SEQPACKET, 0)},
	{what: "a TCP connection", fails: unix.EACCES, worksIn: []role{open}, try: func(p place) error {
		c, err := net.DialTimeout("tcp4", p.outside.Addr().String(), 10*time.Second)
		if err == nil {
			c.Close()
		}
		return err
	}},
	{what: "a connection to a name server", fails: unix.ECONNREFUSED, try: func(place) error {
		c, err := net.DialTimeout("tcp4", "127.0.0.1:53", 10*time.Second)
		if err == nil {
			c.Close()
		}
		return err
	}},
	{what: "a name", try: func(place) error {
		_, err := net.DefaultResolver.LookupNetIP(context.Background(), "ip4", "localhost")
		return err
	}},
	{what: "a TCP listener", try: func(place) error {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err == nil {
			l.Close()
		}
		return err
	}},
	{what: "a raw socket", try: socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_IPV6)},
	{what: "a raw socket that sends", try: socket(unix.AF_INET6, unix.SOCK_RAW|unix.SOCK_NONBLOCK, unix.IPPROTO_RAW)},
	{what: "a raw socket for errors", try: socket(unix.AF_INET6, unix.SOCK_RAW, unix.IPPROTO_ICMPV6)},
	{what: "the TCP packets of the machine", fails: unix.EPERM, worksIn: []role{open}, try: socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_TCP)},
	{what: "the UDP packets of the machine", fails: unix.EPERM, worksIn: []role{open}, try: socket(unix.AF_INET6, unix.SOCK_RAW|unix.SOCK_NONBLOCK, unix.IPPROTO_UDP)},
	{what: "a packet socket of old", fails: unix.EPERM, worksIn: []role{open}, try: socket(unix.AF_INET, unix.SOCK_PACKET, 0x0300)},
	{what: "a socket of a protocol that nobody uses", fails: unix.EPERM, try: socket(unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_SCTP)},
	{what: "an AF_XDP socket", fails: unix.EPERM, worksIn: []role{xdp, open}, try: socket(unix.AF_XDP, unix.SOCK_RAW, 0)},
	{what: "a filter program", fails: unix.EPERM, anyhow: true, worksIn: []role{xdp}, try: mapOfKernel},
	{what: "an entry of a map", fails: unix.EPERM, worksIn: []role{xdp, bpf, open}, try: entryOfMap},
	{what: "a TUN device", try: func(place) error {
		d, err := tun.Open(tun.Settings{Name: "try0", MTU: 1400, Queues: 1})
		if err == nil {
			err = d.Close()
		}
		return err
	}},
	{what: "routes", try: func(place) error {
		_, err := netlink.RouteList(nil, netlink.FAMILY_ALL)
		return err
	}},
	{what: "the packet filter", fails: unix.EPERM, worksIn: []role{rules, open}, try: func(place) error {
		c := &nftables.Conn{}
		table := c.AddTable(&nftables.Table{Name: "try", Family: nftables.TableFamilyINet})
		if err := c.Flush(); err != nil {
			return err
		}
		c.DelTable(table)
		return c.Flush()
	}},
	{what: "a network namespace", fails: unix.EPERM, anyhow: true, worksIn: []role{netns}, try: func(place) error {
		fd, err := unix.Open("/proc/self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return unix.Setns(fd, unix.CLONE_NEWNET)
	}},
	{what: "another kind of namespace", fails: unix.EPERM, anyhow: true, try: func(place) error {
		fd, err := unix.Open("/proc/self/ns/uts", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return unix.Setns(fd, unix.CLONE_NEWUTS)
	}},

	// The end.
	{what: "a signal to itself", try: func(place) error { return unix.Kill(os.Getpid(), 0) }},
	{what: "removing the control socket", try: func(p place) error { return os.Remove(p.socket) }},
}

// process returns the process ID of the parent.
func (p place) process() int {
	n, err := strconv.Atoi(p.parent)
	if err != nil {
		panic(err)
	}
	return n
}

// entryOfMap is a look-up in a map that does not exist. It works if the call is allowed.
func entryOfMap(place) error {
	attr := struct {
		fd         uint32
		_          uint32
		key, value uint64
		flags      uint64
	}{fd: 1 << 30}
	_, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_MAP_LOOKUP_ELEM, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
	if errno == unix.EBADF {
		return nil
	}
	return errno
}

// mapOfKernel makes a map for a filter program: bpf(2) with BPF_MAP_CREATE.
func mapOfKernel(place) error {
	attr := struct{ kind, keySize, valueSize, entries, flags uint32 }{unix.BPF_MAP_TYPE_XSKMAP, 4, 4, 1, 0}
	fd, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_MAP_CREATE, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
	if errno != 0 {
		return errno
	}
	return unix.Close(int(fd))
}
