// Package wait lets a goroutine use a descriptor with its own system calls, and wait for
// it in a system call outside the runtime's poller. With the poller a packet wakes two
// threads, here one.
package wait

import (
	"fmt"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// FD is a descriptor that several goroutines may use. One of them may close it while
// others wait for it.
type FD struct {
	use    sync.RWMutex // held for reading while the descriptor is in use
	fd     int
	wake   int         // an eventfd, readable when the descriptor is to be closed
	closed bool        // guarded by use
	busy   atomic.Bool // the last wait was short
	once   sync.Once
}

// New takes ownership of a descriptor, which must not be in the runtime's poller, and
// makes it non-blocking. On an error the caller keeps the descriptor.
func New(fd int) (*FD, error) {
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, os.NewSyscallError("fcntl", err)
	}
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, os.NewSyscallError("eventfd", err)
	}
	return &FD{fd: fd, wake: wake}, nil
}

// Acquire returns the descriptor, which stays open until Release. After Close the error
// is os.ErrClosed.
func (f *FD) Acquire() (int, error) {
	f.use.RLock()
	if f.closed {
		f.use.RUnlock()
		return -1, os.ErrClosed
	}
	return f.fd, nil
}

// Release must follow each successful Acquire.
func (f *FD) Release() { f.use.RUnlock() }

// Wait returns when the descriptor is ready for events (unix.POLLIN, POLLOUT), or has an
// error, which the next system call on it returns. If the descriptor is being closed,
// the error is os.ErrClosed. Call it between Acquire and Release.
func (f *FD) Wait(events int16) error {
	fds := [2]unix.PollFd{{Fd: int32(f.fd), Events: events}, {Fd: int32(f.wake), Events: unix.POLLIN}}
	n, errno := 0, unix.Errno(0)
	if f.busy.Load() {
		if spare.Add(-1) >= 0 {
			n, errno = poll(&fds, brief)
		}
		spare.Add(1)
	}
	start := time.Now()
	for n == 0 {
		switch errno {
		case 0, unix.EINTR:
		default:
			return os.NewSyscallError("ppoll", errno)
		}
		var err error
		if n, err = unix.Ppoll(fds[:], nil, nil); err != nil {
			errno, _ = err.(unix.Errno) //nolint:errorlint // a system call's error is not wrapped
		}
	}
	f.busy.Store(time.Since(start) < brief)
	if fds[1].Revents != 0 {
		return os.ErrClosed
	}
	return nil
}

// brief is how long Wait blocks without releasing its processor (the P of the Go
// runtime), if there was traffic within that time. The next packet of a conversation
// usually comes earlier, and then the goroutine is still running. Otherwise the runtime
// takes the processor away, and the goroutine must get one again. The runtime must also
// watch the goroutines that keep their processor, so an idle daemon does not use this.
const brief = time.Millisecond

// spare is how many goroutines may keep their processor at the same time.
var spare atomic.Int32

// Spare allows n goroutines to wait without releasing their processor, and gives the
// runtime n more processors, so that other goroutines can still run. Call it once,
// before there are packets.
func Spare(n int) {
	runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + n)
	spare.Store(int32(n))
}

// poll waits for at most a given time, without telling the runtime. The garbage
// collector still works: to stop a goroutine, the runtime sends it signals until it
// stops, and a signal ends the system call.
func poll(fds *[2]unix.PollFd, atMost time.Duration) (int, unix.Errno) {
	ts := unix.NsecToTimespec(int64(atMost))
	n, _, errno := unix.RawSyscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(fds)), uintptr(len(fds)), uintptr(unsafe.Pointer(&ts)), 0, 0, 0)
	return int(n), errno
}

// Close ends every Wait, waits until no goroutine uses the descriptor, and closes it. It
// may be called more than once.
func (f *FD) Close() (err error) {
	f.once.Do(func() {
		one := [8]byte{7: 1} // a number other than 0 in any byte order
		if _, err = unix.Write(f.wake, one[:]); err != nil {
			err = fmt.Errorf("wake: %w", err)
			return
		}
		f.use.Lock()
		defer f.use.Unlock()
		f.closed = true
		err = os.NewSyscallError("close", unix.Close(f.fd))
		unix.Close(f.wake)
	})
	return err
}

// Thread locks the calling goroutine to its own thread for good. Nap is exact on it; on
// other threads the kernel lets a sleep take 50 µs longer.
func Thread() {
	runtime.LockOSThread()
	_ = unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(time.Microsecond), 0, 0, 0) // on an error naps are only longer
}

// napTime is how long Nap sleeps.
const napTime = 50 * time.Microsecond

// Nap sleeps for napTime, so that packets can queue. On a busy path a short sleep
// between batches saves more than it costs: fuller batches mean fewer wake-ups on both
// sides. Call it when the size of a batch shows that there is traffic, on a goroutine
// that has called Thread.
func Nap() {
	ts := unix.NsecToTimespec(int64(napTime))
	// Too short for the runtime to notice. A signal ends it.
	_, _, _ = unix.RawSyscall(unix.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&ts)), 0, 0)
}
