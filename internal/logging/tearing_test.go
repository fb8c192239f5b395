package logging

import (
	"bytes"
	"sync"

	"golang.org/x/sys/unix"
)

// tearing is a writer like a disk with little room.
type tearing struct {
	mu   sync.Mutex
	buf  bytes.Buffer
	room int
}

func (w *tearing) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := min(len(b), w.room)
	w.room -= n
	w.buf.Write(b[:n])
	if n < len(b) {
		return n, unix.ENOSPC
	}
	return n, nil
}

func (w *tearing) give(room int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.room = room
}

func (w *tearing) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.buf.String()
}
