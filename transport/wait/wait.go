// Package wait lets a goroutine use a descriptor with system calls of its own,
// and wait for it in one, outside the runtime's poller: there a packet wakes two
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

// FD is a descriptor that several goroutines may use, and that one of them may
// close while others wait for it.
type FD struct {
	use    sync.RWMutex // held for reading while the descriptor is in use
	fd     int
	wake   int         // an eventfd, readable once the descriptor is to be closed
	closed bool        // under use
	busy   atomic.Bool // the last wait was brief
	once   sync.Once
}

// New takes over a descriptor, which must not be in the runtime's poller, and
// makes it non-blocking. If it fails, the descriptor remains the caller's.
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

// Acquire returns the descriptor, which stays open until Release, or
// os.ErrClosed.
func (f *FD) Acquire() (int, error) {
	f.use.RLock()
	if f.closed {
		f.use.RUnlock()
		return -1, os.ErrClosed
	}
	return f.fd, nil
}

// Release ends what Acquire began.
func (f *FD) Release() { f.use.RUnlock() }

// Wait returns when the descriptor is ready for events (unix.POLLIN, POLLOUT),
// or has an error, which the next system call on it will tell. If it is being
// closed, the error is os.ErrClosed. It must be called between Acquire and
// Release.
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

// brief is how long Wait keeps its processor, in the runtime's sense of the word,
// if there was traffic within that time: the next packet of a conversation comes
// before, and finds a goroutine that is still running. Otherwise the runtime
// takes the processor away, and has to be asked for one again; but it also
// watches those that run, which an idle daemon does not have it do.
const brief = time.Millisecond

// spare is how many goroutines may do so at a time.
var spare atomic.Int32

// Spare lets n goroutines wait without giving up their processor, and gives the
// runtime as many more of them, so that nothing else is kept from running. Call
// it once, before there are packets.
func Spare(n int) {
	runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + n)
	spare.Store(int32(n))
}

// poll waits for at most a while, and the runtime does not know of it. Its
// garbage collector does not wait for us: it sends a signal to a goroutine that
// is to stop, as often as it takes, and a signal ends the call.
func poll(fds *[2]unix.PollFd, atMost time.Duration) (int, unix.Errno) {
	ts := unix.NsecToTimespec(int64(atMost))
	n, _, errno := unix.RawSyscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(fds)), uintptr(len(fds)), uintptr(unsafe.Pointer(&ts)), 0, 0, 0)
	return int(n), errno
}

// Close ends every Wait, waits until nobody uses the descriptor any more, and
// closes it. It may be called more than once.
func (f *FD) Close() (err error) {
	f.once.Do(func() {
		one := [8]byte{7: 1} // in any byte order a number that is not 0
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

// Thread gives the calling goroutine a thread for itself, for life, on which
// Nap is exact: by default the kernel lets a sleep take 50 µs longer.
func Thread() {
	runtime.LockOSThread()
	_ = unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(time.Microsecond), 0, 0, 0) // a longer nap does no harm
}

// napTime is how long Nap sleeps.
const napTime = 50 * time.Microsecond

// Nap lets packets gather. On a busy path a short sleep between batches costs
// less than it saves: each batch that is half full halves the wake-ups of both
// sides. Call it where the batch shows that there is traffic, on a goroutine
// with a Thread.
func Nap() {
	ts := unix.NsecToTimespec(int64(napTime))
	// Too short to tell the runtime; a signal ends it.
	_, _, _ = unix.RawSyscall(unix.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&ts)), 0, 0)
}
