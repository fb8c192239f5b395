package xdp

import (
	"fmt"
	"os"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ring is one ring of an AF_XDP socket, in memory shared with the kernel. It holds
// entries of type E between the consumer's and the producer's counter. One of the two is
// us, the other the kernel.
type ring[E unix.XDPDesc | uint64] struct {
	mem      []byte
	producer *uint32
	consumer *uint32
	entries  []E
	mask     uint32
	count    uint32 // our own counter, before it is published
}

// mapRing maps a ring of size entries, a power of two.
func mapRing[E unix.XDPDesc | uint64](fd int, page int64, o unix.XDPRingOffset, size int) (*ring[E], error) {
	var e E
	mem, err := unix.Mmap(fd, page, int(o.Desc)+size*int(unsafe.Sizeof(e)), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE)
	if err != nil {
		return nil, os.NewSyscallError("mmap", err)
	}
	return &ring[E]{
		mem:      mem,
		producer: (*uint32)(unsafe.Pointer(&mem[o.Producer])),
		consumer: (*uint32)(unsafe.Pointer(&mem[o.Consumer])),
		entries:  unsafe.Slice((*E)(unsafe.Pointer(&mem[o.Desc])), size),
		mask:     uint32(size - 1),
	}, nil
}

func (r *ring[E]) unmap() {
	if r != nil {
		_ = unix.Munmap(r.mem)
	}
}

// put adds an entry to a ring of which we are the producer. The caller makes sure that
// there is room, and calls publish afterwards.
func (r *ring[E]) put(e E) {
	r.entries[r.count&r.mask] = e
	r.count++
}

// publish makes the new entries visible to the kernel.
func (r *ring[E]) publish() { atomic.StoreUint32(r.producer, r.count) }

// pending returns how many of the published entries the kernel has not taken yet.
func (r *ring[E]) pending() int { return int(r.count - atomic.LoadUint32(r.consumer)) }

// ready returns how many entries can be taken from a ring of which we are the consumer.
func (r *ring[E]) ready() int { return int(atomic.LoadUint32(r.producer) - r.count) }

// takeSome takes up to n entries from a ring of which we are the consumer.
func (r *ring[E]) takeSome(to []E, n int) []E {
	for n = min(n, r.ready()); n > 0; n-- {
		to = append(to, r.entries[r.count&r.mask])
		r.count++
	}
	atomic.StoreUint32(r.consumer, r.count)
	return to
}

// take takes all entries from a ring of which we are the consumer.
func (r *ring[E]) take(to []E) []E { return r.takeSome(to, r.ready()) }

// offsets returns the offsets of the counters and entries in the rings.
func offsets(fd int) (o unix.XDPMmapOffsets, err error) {
	size := uint32(unsafe.Sizeof(o))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_XDP, unix.XDP_MMAP_OFFSETS,
		uintptr(unsafe.Pointer(&o)), uintptr(unsafe.Pointer(&size)), 0)
	switch {
	case errno != 0:
		return o, os.NewSyscallError("getsockopt XDP_MMAP_OFFSETS", errno)
	case size != uint32(unsafe.Sizeof(o)): // before Linux 5.4
		return o, fmt.Errorf("getsockopt XDP_MMAP_OFFSETS: %d bytes: the kernel is too old", size)
	}
	return o, nil
}

// newFrames allocates the memory for packets and gives it to the socket.
func newFrames(fd, count, size int) ([]byte, error) {
	mem, err := unix.Mmap(-1, 0, count*size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_POPULATE)
	if err != nil {
		return nil, os.NewSyscallError("mmap", err)
	}
	reg := unix.XDPUmemReg{Addr: uint64(uintptr(unsafe.Pointer(unsafe.SliceData(mem)))), Len: uint64(len(mem)), Size: uint32(size)}
	if _, _, errno := unix.Syscall6(unix.SYS_SETSOCKOPT, uintptr(fd), unix.SOL_XDP, unix.XDP_UMEM_REG,
		uintptr(unsafe.Pointer(&reg)), unsafe.Sizeof(reg), 0); errno != 0 {
		_ = unix.Munmap(mem)
		return nil, os.NewSyscallError("setsockopt XDP_UMEM_REG", errno)
	}
	return mem, nil
}
