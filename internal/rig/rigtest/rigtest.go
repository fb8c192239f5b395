// Package rigtest provides helpers for tests that use package rig. Programs use rig
// without it.
package rigtest

import (
	"testing"

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
