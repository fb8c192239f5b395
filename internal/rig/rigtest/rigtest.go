// Package rigtest is what tests with a rig have in common. It is apart from rig, which
// programs use, too.
package rigtest

import (
	"testing"

	"sixfour/internal/rig"
)

// Must ends a test for an error.
func Must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Namespace makes a network namespace, which goes with the test.
func Namespace(t testing.TB, name string) *rig.Namespace {
	t.Helper()
	n, err := rig.New(name)
	Must(t, err)
	t.Cleanup(n.Close)
	return n
}
