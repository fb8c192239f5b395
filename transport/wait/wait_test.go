package wait

import (
	"errors"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func pipe(t *testing.T) (*FD, int) {
	t.Helper()
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	f, err := New(p[0])
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		f.Close()
		unix.Close(p[1])
	})
	return f, p[1]
}

// read waits for one byte.
func read(f *FD) error {
	fd, err := f.Acquire()
	if err != nil {
		return err
	}
	defer f.Release()
	var b [1]byte
	for {
		if _, err := unix.Read(fd, b[:]); !errors.Is(err, unix.EAGAIN) {
			return err
		}
		if err := f.Wait(unix.POLLIN); err != nil {
			return err
		}
	}
}

func TestWait(t *testing.T) {
	f, w := pipe(t)
	for range 100 {
		done := make(chan error)
		go func() { done <- read(f) }()
		if _, err := unix.Write(w, []byte{1}); err != nil {
			t.Fatal(err)
		}
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
}

func TestCloseEndsWaits(t *testing.T) {
	f, _ := pipe(t)
	const n = 10
	var waiting sync.WaitGroup
	waiting.Add(n)
	done := make(chan error)
	for range n {
		go func() {
			waiting.Done()
			done <- read(f)
		}()
	}
	waiting.Wait()
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	for range n {
		if err := <-done; !errors.Is(err, os.ErrClosed) {
			t.Errorf("%v, want %v", err, os.ErrClosed)
		}
	}
	if _, err := f.Acquire(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("%v, want %v", err, os.ErrClosed)
	}
	if err := f.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
}

// TestTheWorldStops: goroutines that wait without telling the runtime still stop for its
// garbage collector, and for Close, and other goroutines run meanwhile.
func TestTheWorldStops(t *testing.T) {
	before := runtime.GOMAXPROCS(0)
	const n = 4
	Spare(n)
	defer func() {
		spare.Store(0)
		runtime.GOMAXPROCS(before)
	}()
	var wg sync.WaitGroup
	var turns atomic.Int64
	var fds []*FD
	for range n {
		// Each wakes itself: the next byte always comes while the goroutine keeps its
		// processor.
		f, w := pipe(t)
		fds = append(fds, f)
		wg.Go(func() {
			Thread()
			for {
				_, _ = unix.Write(w, []byte{1})
				if read(f) != nil {
					return
				}
				turns.Add(1)
				Nap()
			}
		})
		idle, _ := pipe(t) // waits all the time
		fds = append(fds, idle)
		wg.Go(func() { _ = read(idle) })
	}
	for range 100 {
		runtime.GC()
	}
	for turns.Load() < 1000 {
		time.Sleep(time.Millisecond)
	}
	for _, f := range fds {
		f.Close()
	}
	wg.Wait()
}
