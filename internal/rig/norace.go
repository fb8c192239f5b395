//go:build !race

package rig

// Race reports whether tests, and the programs that Build makes, run under the
// race detector, which takes time and memory of its own.
const Race = false
