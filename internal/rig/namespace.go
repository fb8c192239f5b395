// Package rig builds small networks out of namespaces for tests, benchmarks and
// the demo, and moves traffic through them.
//
// A network namespace is nameless here, and held by a descriptor: that works as
// root and as uid 0 of a user namespace alike, leaves nothing behind when the
// program dies, and lets any number of rigs run side by side. No other program
// is needed. What builds a network are methods of Namespace; what moves traffic
// are the functions Ping, TCPTransfer, UDPExchange and Load, which take a
// context and end when it does, or after a minute if it has no deadline; and a
// Capture sees what a device carried.
//
// A nil *Namespace is the one that the program is in: so a program inside
// another machine can speak to a rig on this one.
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

// Namespace is a network namespace of our own.
type Namespace struct {
	name   string
	fd     int
	handle *netlink.Handle

	close   sync.Once
	closed  chan struct{}
	threads sync.WaitGroup // of started processes
}

// quiet are settings of a new namespace, so that what a test sees does not
// depend on how the machine is set up or on how fast packets come: sources that
// routing would not expect pass, and ICMP errors are never held back.
var quiet = map[string]string{
	"net/ipv4/conf/all/rp_filter":     "0",
	"net/ipv4/conf/default/rp_filter": "0",
	"net/ipv4/icmp_ratelimit":         "0",
	"net/ipv6/icmp/ratelimit":         "0",
}

// New makes a network namespace whose loopback device is up. The name is for
// error messages only. Close it.
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
	for path, value := range quiet {
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

// Close gives the namespace up; the kernel removes it, with its devices, once
// nothing uses it any more. Processes started in it that still run get SIGTERM.
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

// Name is the name given to New.
func (n *Namespace) Name() string {
	if n == nil {
		return "this one"
	}
	return n.name
}

// Path names the namespace to another process, for as long as this one keeps
// it: what a daemon's netns key or nsenter --net= takes. The other process
// needs the right to look at this one's descriptors (the same user does).
func (n *Namespace) Path() string {
	// Not os.Getpid: /proc may belong to another PID namespace than we do.
	pid, err := os.Readlink("/proc/self")
	if err != nil {
		pid = strconv.Itoa(os.Getpid())
	}
	return filepath.Join("/proc", pid, "fd", strconv.Itoa(n.fd))
}

// Handle is a netlink handle of the namespace, for what the methods here do not
// offer. It belongs to the namespace, and may be used by many goroutines.
func (n *Namespace) Handle() *netlink.Handle { return n.handle }

// Do runs f inside the namespace. A namespace belongs to a thread: f has one of
// its own, which is thrown away afterwards. Goroutines that f starts are outside
// again; sockets that f opens stay inside, whoever uses them later.
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

// Start starts a process inside the namespace, as cmd.Start does; the caller
// waits for it. If this program dies, or closes the namespace, before the
// process has ended, the process gets SIGTERM (or cmd.SysProcAttr.Pdeathsig).
func (n *Namespace) Start(cmd *exec.Cmd) error { return n.StartWith(cmd, nil) }

// StartWith is Start for a process that sees other files in the places of some, such
// as /etc/resolv.conf: files has the one to be seen by the one that it hides, which
// must exist. That takes root.
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
			err = hide(files)
		}
		if err == nil {
			err = cmd.Start()
		}
		started <- err
		if err == nil {
			<-n.closed // the signal is sent when the thread that forked dies: keep it
		}
	})
	if err := <-started; err != nil {
		return n.explain("start "+cmd.Path, err)
	}
	return nil
}

// hide lets the calling thread, which must be locked, see other files in the places
// of some.
func hide(files map[string]string) error {
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

// errGoexit is what a function that never came back returns.
var errGoexit = errors.New("the function ended its goroutine instead of returning: return an error, and call t.Fatal outside")

// onThread runs f on a thread of its own that nothing uses afterwards: the
// runtime ends a thread whose goroutine ends while it is locked to it.
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

// explain names the operation, the namespace and, where it is known, the way out.
func (n *Namespace) explain(op string, err error) error {
	hint := ""
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		hint = ": run as root, or in a user namespace of your own (unshare -Ur)"
	}
	return fmt.Errorf("namespace %s: %s: %w%s", n.Name(), op, err, hint)
}
