//go:build race

package e2e

// buildFlags are for the daemon: under the race detector it runs under it too.
var buildFlags = []string{"-race"}
