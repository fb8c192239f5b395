// Package rigtest provides helpers for tests that use package rig. Programs use rig
// without it.
package rigtest

import (
	"os"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"sixfour/internal/rig"
)

// Must ends a test if there is an error.
func Must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Namespace makes a network namespace, which is closed at the end of the test.
func Namespace(t testing.TB, name string) *rig.Namespace {
	t.Helper()
	n, err := rig.New(name)
	Must(t, err)
	t.Cleanup(n.Close)
	return n
}

// Enter makes a network namespace, which is closed at the end of the test, and moves the
// calling goroutine, the test's, into it.
func Enter(t testing.TB, name string) *rig.Namespace {
	t.Helper()
	if os.Getuid() != 0 {
		t.Fatal("network namespaces need root: run the tests as root")
	}
	n := Namespace(t, name)
	fd, err := unix.Open(n.Path(), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	Must(t, err)
	defer unix.Close(fd)
	runtime.LockOSThread() // never unlocked: the thread ends with the test
	Must(t, unix.Setns(fd, unix.CLONE_NEWNET))
	return n
}
