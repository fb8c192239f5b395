//go:build !race

package e2e

// buildFlags are for the daemon.
var buildFlags []string
