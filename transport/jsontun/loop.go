package jsontun

import (
	"os"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"sixfour/encap/jsontun"
)

// loop waits for a part of the connections of a server, and reads from them.
type loop struct {
	server *Server
	file   *os.File // an epoll descriptor, itself in the poller of Go's runtime
	raw    syscall.RawConn
	events [256]unix.EpollEvent
	buf    [64<<10 + jsontun.MaxPacket]byte

	mu    sync.Mutex
	slots []slot
	free  []int32 // indexes of empty slots
}

// slot is a place for a connection. An event names its index and its use, since an event may
// belong to a connection that was closed meanwhile.
type slot struct {
	*client
	use int32
}

func newLoop(s *Server) (*loop, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, os.NewSyscallError("fcntl", err)
	}
	l := &loop{server: s, file: os.NewFile(uintptr(fd), "epoll")}
	if l.raw, err = l.file.SyscallConn(); err != nil {
		l.file.Close()
		return nil, err
	}
	return l, nil
}

// add takes a connection.
func (l *loop) add(c *client) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.free) == 0 {
		l.free = append(l.free, int32(len(l.slots)))
		l.slots = append(l.slots, slot{})
	}
	i := l.free[len(l.free)-1]
	at := &l.slots[i]
	c.event = unix.EpollEvent{Fd: i, Pad: at.use}
	if err := c.control(unix.EPOLL_CTL_ADD, unix.EPOLLIN); err != nil {
		return err
	}
	at.client = c
	l.free = l.free[:len(l.free)-1]
	return nil
}

// control changes for what the loop waits.
func (c *client) control(op int, events uint32) (err error) {
	event := c.event
	event.Events = events
	closed := c.loop.raw.Control(func(epoll uintptr) {
		err = os.NewSyscallError("epoll_ctl", unix.EpollCtl(int(epoll), op, c.fd, &event))
	})
	if err == nil {
		err = closed
	}
	return err
}

// remove forgets a connection.
func (l *loop) remove(c *client) {
	l.mu.Lock()
	defer l.mu.Unlock()
	at := &l.slots[c.event.Fd]
	at.client = nil
	at.use++
	l.free = append(l.free, c.event.Fd)
}

// find returns the connection of an event; nil: it was closed.
func (l *loop) find(e *unix.EpollEvent) *client {
	l.mu.Lock()
	defer l.mu.Unlock()
	if at := &l.slots[e.Fd]; at.use == e.Pad {
		return at.client
	}
	return nil
}

// each calls f for all connections.
func (l *loop) each(f func(*client)) {
	for i := 0; ; i++ {
		l.mu.Lock()
		if i >= len(l.slots) {
			l.mu.Unlock()
			return
		}
		c := l.slots[i].client
		l.mu.Unlock()
		if c != nil {
			f(c)
		}
	}
}

// run handles events until the descriptor is closed.
func (l *loop) run() {
	for {
		n := 0
		err := l.raw.Read(func(epoll uintptr) bool {
			n = l.wait(epoll)
			return n != 0
		})
		if err != nil {
			return
		}
		for i := range n {
			if c := l.find(&l.events[i]); c != nil {
				c.handle(l.events[i].Events)
			}
		}
	}
}

// wait returns the number of events that are there.
func (l *loop) wait(epoll uintptr) int {
	for {
		n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, epoll, uintptr(unsafe.Pointer(&l.events[0])), uintptr(len(l.events)), 0, 0, 0)
		switch errno {
		case 0:
			return int(n)
		case unix.EINTR:
		default: // the descriptor is closed
			return 0
		}
	}
}

// closeAll closes all connections, after run has ended.
func (l *loop) closeAll() {
	l.each(func(c *client) { c.destroy() })
	l.slots, l.free = nil, nil
}
