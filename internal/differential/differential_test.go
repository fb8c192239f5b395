// Package differential compares the daemon with the Linux kernel. It replays recordings of
// the packets that a kernel's tunnel router received, with sixfourd as that router in a
// namespace, and compares all packets that the router sends, frame by frame, with those
// that the kernel sent. Intended differences are in differences_test.go, with reasons; any
// other difference is a failure. To add the recording of another tunnel, add a row to rows.
// The test needs root.
package differential

import (
	"flag"
	"fmt"
	"os"
	"testing"

	"sixfour/internal/rig"
)

// program is the daemon that the tests run.
var program string

func TestMain(m *testing.M) {
	if os.Getuid() != 0 {
		fmt.Fprintln(os.Stderr, "the differential test makes namespaces and TUN devices: run it as root")
		os.Exit(1)
	}
	// The rows mostly wait.
	if err := flag.Set("test.parallel", "4"); err != nil {
		panic(err)
	}
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "sixfour-differential")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		if program, err = rig.Build(dir, "sixfour/cmd/sixfourd"); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return m.Run()
	}())
}

func TestAgainstKernel(t *testing.T) {
	for _, row := range rows {
		t.Run(row.capture, func(t *testing.T) {
			t.Parallel()
			steps := readSteps(t, row.capture)
			expected := expect(t, row.capture, steps)
			r := newRouter(t, row.tunnel, sites[row.capture])
			for i, s := range steps {
				r.replay(t, s, expected[i])
			}
			r.waitLate(t)
		})
	}
}

func TestRowsAreKnown(t *testing.T) {
	known := map[string]bool{}
	for _, row := range rows {
		known[row.capture] = true
	}
	for _, d := range differences {
		for _, name := range d.captures {
			if !known[name] {
				t.Errorf("%q is no capture of a row (%s)", name, d.why)
			}
		}
	}
	for name := range sites {
		if !known[name] {
			t.Errorf("%q, which has a site of its own, is no capture of a row", name)
		}
	}
}
