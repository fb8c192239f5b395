package kernel_test

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/cilium/ebpf"

	"sixfour/internal/rig/rigtest"
)

// TestObjects: the objects in this directory are what the compiler makes of the sources now.
// Other versions of the compiler may make other instructions, so this is the version of the
// system that CI runs on (Debian 12: clang 14).
func TestObjects(t *testing.T) {
	t.Parallel()
	for _, order := range []string{"bpfel", "bpfeb"} {
		out := filepath.Join(t.TempDir(), order+".o")
		cmd := exec.Command("clang", "-target", order, "-mcpu=v3", "-O2", "-g", "-Wall", "-Wextra", "-Werror", "-c", "bpf/kernel.c", "-o", out)
		if b, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s(apt-get install clang)", cmd, err, b)
		}
		want, got := read(t, out), read(t, "programs_"+order+".o")
		if want != got {
			t.Errorf("programs_%s.o is not what clang makes of bpf/kernel.c: run go generate ./transport/kernel\n%s", order, firstDifference(want, got))
		}
	}
}

// read returns the maps, variables and instructions of an object as text.
func read(t *testing.T, file string) (text string) {
	t.Helper()
	f, err := os.Open(file)
	rigtest.Must(t, err)
	defer f.Close()
	spec, err := ebpf.LoadCollectionSpecFromReader(f)
	rigtest.Must(t, err)
	for _, name := range slices.Sorted(maps.Keys(spec.Maps)) {
		m := spec.Maps[name]
		text += fmt.Sprintln("map", name, m.Type, m.KeySize, m.ValueSize, m.MaxEntries, m.Flags)
	}
	for _, name := range slices.Sorted(maps.Keys(spec.Programs)) {
		p := spec.Programs[name]
		text += fmt.Sprintln("program", name, p.Type, p.AttachType, p.License)
		for _, ins := range p.Instructions {
			text += fmt.Sprintln(ins.OpCode, ins.Dst, ins.Src, ins.Offset, ins.Constant, ins.Reference(), ins.Symbol())
		}
	}
	return text
}

// firstDifference returns where two texts begin to differ.
func firstDifference(a, b string) string {
	n := 0
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	from := max(0, n-100)
	return fmt.Sprintf("%q\n%q", a[from:min(len(a), n+100)], b[from:min(len(b), n+100)])
}
