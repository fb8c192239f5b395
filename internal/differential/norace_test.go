//go:build !race

package differential

// buildFlags are for the daemon.
var buildFlags []string
