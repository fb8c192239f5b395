package privilege

import (
	"encoding/binary"
	"testing"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// TestFilter runs the filter in a BPF virtual machine with big-endian numbers, so the
// lower half of an argument is at offset 4.
func TestFilter(t *testing.T) {
	const architecture = 0xc000003e
	calls := []call{
		{number: 1},
		{number: own + 2},
		{number: 4},
		{2, []condition{{{1, unix.CLONE_THREAD, unix.CLONE_THREAD}}}},
		{3, []condition{{exactly(0, unix.AF_INET)}, {exactly(0, unix.AF_NETLINK), exactly(2, unix.NETLINK_ROUTE)}, {exactly(5, 7)}}},
	}
	first, second := machine(t, newCalls([]uint32{4})), machine(t, listed(architecture, 4, calls))
	for _, c := range []struct {
		what         string
		architecture uint32
		number       uint32
		arguments    [6]uint64
		want         uint32
	}{
		{"listed", architecture, 1, [6]uint64{9, 9, 9, 9, 9, 9}, allow},
		{"not listed", architecture, 0, [6]uint64{}, refuse},
		{"the last that is known", architecture, newest, [6]uint64{}, refuse},
		{"younger", architecture, newest + 1, [6]uint64{}, unknown},
		{"the last that could be younger", architecture, own - 1, [6]uint64{}, unknown},
		{"an architecture's own", architecture, own + 2, [6]uint64{}, allow},
		{"an architecture's own, not listed", architecture, own + 3, [6]uint64{}, refuse},
		{"x32", architecture, 1 | 0x40000000, [6]uint64{}, refuse},
		{"another architecture", 0x40000003, 1, [6]uint64{}, kill},
		{"absent", architecture, 4, [6]uint64{}, unknown},
		{"a flag among others", architecture, 2, [6]uint64{0, unix.CLONE_THREAD | unix.CLONE_VM}, allow},
		{"without the flag", architecture, 2, [6]uint64{unix.CLONE_THREAD, unix.CLONE_VM}, refuse},
		{"the first way", architecture, 3, [6]uint64{unix.AF_INET, 0, unix.NETLINK_AUDIT}, allow},
		{"the second way", architecture, 3, [6]uint64{unix.AF_NETLINK, 0, unix.NETLINK_ROUTE}, allow},
		{"half of the second way", architecture, 3, [6]uint64{unix.AF_NETLINK, 0, unix.NETLINK_AUDIT}, refuse},
		{"the third way", architecture, 3, [6]uint64{unix.AF_PACKET, 0, 0, 0, 0, 7}, allow},
		{"no way", architecture, 3, [6]uint64{unix.AF_PACKET}, refuse},
		{"an int with garbage above it", architecture, 3, [6]uint64{0xdead<<32 | unix.AF_INET}, allow},
	} {
		data := binary.BigEndian.AppendUint32(nil, c.number)
		data = binary.BigEndian.AppendUint32(data, c.architecture)
		data = append(data, make([]byte, 8)...) // instruction pointer
		for _, a := range c.arguments {
			data = binary.BigEndian.AppendUint64(data, a)
		}
		// The kernel uses the stricter result of two filters.
		a, b := run(t, first, data), run(t, second, data)
		got := b
		if b == allow {
			got = a
		}
		if got != c.want || a != allow && a != unknown {
			t.Errorf("%s: %#x and %#x, want %#x", c.what, a, b, c.want)
		}
	}
}

func run(t *testing.T, vm *bpf.VM, data []byte) uint32 {
	t.Helper()
	verdict, err := vm.Run(data)
	if err != nil {
		t.Fatal(err)
	}
	return uint32(verdict)
}

func machine(t *testing.T, filter []bpf.Instruction) *bpf.VM {
	t.Helper()
	raw, err := bpf.Assemble(filter)
	if err != nil {
		t.Fatal(err)
	}
	program, ok := bpf.Disassemble(raw)
	if !ok {
		t.Fatal("the program is not understood")
	}
	vm, err := bpf.NewVM(program)
	if err != nil {
		t.Fatal(err)
	}
	return vm
}
