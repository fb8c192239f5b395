package engine

import "golang.org/x/sys/unix"

// arena is memory for the buffers of one receiver, outside of Go's heap. A buffer has
// room for the largest packet there is, and most packets are small: of what the
// kernel maps, only the pages that packets were written to are resident. Memory of
// the heap that is used again is cleared first, all of it, and so becomes resident.
type arena struct {
	mem  []byte
	used int
	own  bool // it was mapped
}

func newArena(size int) *arena {
	a := new(arena)
	mem, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil { // a limit of address space, perhaps: the heap may have room
		a.mem = make([]byte, size)
		return a
	}
	// A huge page would make what lies between the packets resident, too. Where there
	// are none, this fails, and need not succeed.
	_ = unix.Madvise(mem, unix.MADV_NOHUGEPAGE)
	a.mem, a.own = mem, true
	return a
}

// buffer is the next size bytes.
func (a *arena) buffer(size int) []byte {
	b := a.mem[a.used : a.used+size : a.used+size]
	a.used += size
	return b
}

// buffers are n buffers of size bytes each.
func (a *arena) buffers(n, size int) [][]byte {
	bufs := make([][]byte, n)
	for i := range bufs {
		bufs[i] = a.buffer(size)
	}
	return bufs
}

// free gives the memory back. Its buffers must not be used any more.
func (a *arena) free() {
	if a.own {
		_ = unix.Munmap(a.mem)
	}
	a.mem, a.own = nil, false
}
