// Package arena is memory outside of Go's heap for the buffers of a receiver. Each buffer
// has room for the largest possible packet, while most packets are small. Of mapped memory,
// only the pages that packets were written to are resident. The heap clears memory before
// it is used again, and so makes all of it resident.
package arena

import "golang.org/x/sys/unix"

// Arena is a piece of such memory.
type Arena struct {
	mem  []byte
	used int
	own  bool // mem is mapped, not on the heap
}

// New returns an arena with room for size bytes.
func New(size int) *Arena {
	a := new(Arena)
	mem, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil { // perhaps a limit of the address space: try the heap
		a.mem = make([]byte, size)
		return a
	}
	// A huge page would also make the memory between packets resident. Without huge
	// pages in the kernel this fails, which does no harm.
	_ = unix.Madvise(mem, unix.MADV_NOHUGEPAGE)
	a.mem, a.own = mem, true
	return a
}

// Buffer returns the next size bytes. It panics if the arena has no room for them.
func (a *Arena) Buffer(size int) []byte {
	b := a.mem[a.used : a.used+size : a.used+size]
	a.used += size
	return b
}

// Buffers returns n buffers of size bytes each.
func (a *Arena) Buffers(n, size int) [][]byte {
	bufs := make([][]byte, n)
	for i := range bufs {
		bufs[i] = a.Buffer(size)
	}
	return bufs
}

// Free releases the memory. The buffers must not be used any more.
func (a *Arena) Free() {
	if a.own {
		_ = unix.Munmap(a.mem)
	}
	a.mem, a.own = nil, false
}
