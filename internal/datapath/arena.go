package datapath

import "golang.org/x/sys/unix"

// arena is memory outside of Go's heap for the buffers of one receiver. Each buffer has
// room for the largest possible packet, while most packets are small. Of mapped memory,
// only the pages that packets were written to are resident. The heap clears memory before
// it is used again, and so makes all of it resident.
type arena struct {
	mem  []byte
	used int
	own  bool // mem is mapped, not on the heap
}

func newArena(size int) *arena {
	a := new(arena)
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

// buffer returns the next size bytes.
func (a *arena) buffer(size int) []byte {
	b := a.mem[a.used : a.used+size : a.used+size]
	a.used += size
	return b
}

// buffers returns n buffers of size bytes each.
func (a *arena) buffers(n, size int) [][]byte {
	bufs := make([][]byte, n)
	for i := range bufs {
		bufs[i] = a.buffer(size)
	}
	return bufs
}

// free releases the memory. The buffers must not be used any more.
func (a *arena) free() {
	if a.own {
		_ = unix.Munmap(a.mem)
	}
	a.mem, a.own = nil, false
}
