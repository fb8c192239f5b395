//go:build !race

package rig

// Race reports whether tests, and the programs that Build makes, run with the race
// detector, which costs time and memory.
const Race = false
