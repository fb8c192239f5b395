// Package rig builds small networks of namespaces for tests, benchmarks and the demo,
// and sends traffic through them.
//
// A network namespace has no name here, and is held by a descriptor. That works as root
// and as uid 0 of a user namespace, leaves nothing behind when the program ends in any
// way, and allows any number of rigs to run at the same time. No other program is
// needed. The methods of Namespace build a network. The functions Ping, TCPTransfer,
// UDPExchange and Load send traffic; they take a context and end when it does, or after
// a minute if it has no deadline. A Capture records what a device carried.
//
// A nil *Namespace is the namespace of the program: with it, a program inside a virtual
// machine can exchange traffic with a rig on this one.
package rig

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"syscall"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Namespace is a network namespace made by this package.
type Namespace struct {
	name   string
	fd     int
	handle *netlink.Handle

	close   sync.Once
	closed  chan struct{}
	threads sync.WaitGroup // of started processes
}

// defaultSysctls are settings of a new namespace that make tests independent of the host's
// configuration and of the packet rate: there is no reverse path filter, and ICMP errors
// are not rate-limited.
var defaultSysctls = map[string]string{
	"net/ipv4/conf/all/rp_filter":     "0",
	"net/ipv4/conf/default/rp_filter": "0",
	"net/ipv4/icmp_ratelimit":         "0",
	"net/ipv6/icmp/ratelimit":         "0",
}

// New makes a network namespace whose loopback device is up. The name is only for error
// messages. Close it after use.
func New(name string) (*Namespace, error) {
	n := &Namespace{name: name, fd: -1, closed: make(chan struct{})}
	err := onThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		var err error
		if n.fd, err = unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
			return err
		}
		n.handle, err = netlink.NewHandle(unix.NETLINK_ROUTE)
		return err
	})
	if err == nil {
		err = n.LinkUp("lo")
	}
	for path, value := range defaultSysctls {
		if err == nil {
			err = n.Sysctl(path, value)
		}
	}
	if err != nil {
		n.Close()
		return nil, n.explain("create", err)
	}
	return n, nil
}

// Close closes the namespace. The kernel removes it, with its devices, when nothing uses
// it any more. Processes started in it that still run get SIGTERM.
func (n *Namespace) Close() {
	n.close.Do(func() {
		close(n.closed)
		n.threads.Wait()
		if n.handle != nil {
			n.handle.Close()
		}
		if n.fd >= 0 {
			unix.Close(n.fd)
		}
	})
}

// Name returns the name given to New.
func (n *Namespace) Name() string {
	if n == nil {
		return "this one"
	}
	return n.name
}

// Path returns a path of the namespace for other processes, which is valid until Close:
// for a daemon's netns key or nsenter --net=. The other process needs the right to read
// this process's descriptors (the same user has it).
func (n *Namespace) Path() string {
	// Not os.Getpid: /proc may belong to another PID namespace.
	pid, err := os.Readlink("/proc/self")
	if err != nil {
		pid = strconv.Itoa(os.Getpid())
	}
	return filepath.Join("/proc", pid, "fd", strconv.Itoa(n.fd))
}

// Handle returns a netlink handle of the namespace, for what the methods here do not
// offer. The namespace owns it. It may be used concurrently.
func (n *Namespace) Handle() *netlink.Handle { return n.handle }

// Do runs f inside the namespace. A namespace belongs to a thread: f runs on a thread of
// its own, which ends afterwards. Goroutines that f starts are outside the namespace;
// sockets that f opens stay inside.
func (n *Namespace) Do(f func() error) error {
	if n == nil {
		return f()
	}
	return onThread(func() error {
		if err := n.enter(); err != nil {
			return err
		}
		return f()
	})
}

// Start starts a process inside the namespace, like cmd.Start; the caller must wait for
// it. If this program ends, or closes the namespace, before the process has ended, the
// process gets SIGTERM (or cmd.SysProcAttr.Pdeathsig).
func (n *Namespace) Start(cmd *exec.Cmd) error { return n.StartWith(cmd, nil) }

// StartWith is Start for a process that sees other files in the place of some, such as
// /etc/resolv.conf: files maps each hidden file, which must exist, to the file that the
// process sees instead. It needs root.
func (n *Namespace) StartWith(cmd *exec.Cmd, files map[string]string) error {
	if n == nil {
		return cmd.Start()
	}
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	if cmd.SysProcAttr.Pdeathsig == 0 {
		cmd.SysProcAttr.Pdeathsig = syscall.SIGTERM
	}
	started := make(chan error, 1)
	n.threads.Go(func() {
		runtime.LockOSThread()
		err := n.enter()
		if err == nil {
			err = bindMount(files)
		}
		if err == nil {
			err = cmd.Start()
		}
		started <- err
		if err == nil {
			<-n.closed // keep the thread that forked: the signal is sent when it ends
		}
	})
	if err := <-started; err != nil {
		return n.explain("start "+cmd.Path, err)
	}
	return nil
}

// bindMount makes the calling thread, which must be locked, see other files in the place of
// some.
func bindMount(files map[string]string) error {
	if len(files) == 0 {
		return nil
	}
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return err
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	for hidden, seen := range files {
		if err := unix.Mount(seen, hidden, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("put %s in the place of %s: %w", seen, hidden, err)
		}
	}
	return nil
}

// enter moves the calling thread, which must be locked, into the namespace.
func (n *Namespace) enter() error {
	if err := unix.Setns(n.fd, unix.CLONE_NEWNET); err != nil {
		return n.explain("enter", err)
	}
	return nil
}

// errGoexit is the error for a function that did not return.
var errGoexit = errors.New("the function ended its goroutine instead of returning: return an error, and call t.Fatal outside")

// onThread runs f on a thread of its own that is not used afterwards: the runtime ends a
// thread whose goroutine ends while it is locked to it.
func onThread(f func() error) error {
	done := make(chan error, 1)
	go func() {
		err := errGoexit
		defer func() { done <- err }()
		runtime.LockOSThread()
		err = f()
	}()
	return <-done
}

// explain adds the operation, the namespace and, if known, advice to an error.
func (n *Namespace) explain(op string, err error) error {
	hint := ""
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		hint = ": run as root, or in a user namespace of your own (unshare -Ur)"
	}
	return fmt.Errorf("namespace %s: %s: %w%s", n.Name(), op, err, hint)
}
