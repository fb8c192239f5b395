package netns

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"sixfour/internal/rig"
)

// TestHold: a namespace that is held can be entered after its path has become invalid; a
// missing one is not held.
func TestHold(t *testing.T) {
	ns, err := rig.New("held")
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	if err := rig.Veth(ns, "mark", ns, "other", 1500); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "ns")
	if err := os.Symlink(ns.Path(), path); err != nil {
		t.Fatal(err)
	}
	inside := func() error {
		return In(path, func() error {
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			ifr, err := unix.NewIfreq("mark")
			if err != nil {
				return err
			}
			return unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, ifr)
		})
	}
	for range 2 { // the second time it exists
		if err := Hold(path); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := inside(); err != nil {
			t.Error(err)
		}
	}
	var missing *Error
	if err := Hold(path + ".gone"); !errors.As(err, &missing) || missing.Namespace != path+".gone" {
		t.Errorf("%v", err)
	}
}
