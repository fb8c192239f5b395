//go:build race

package differential

// buildFlags are for the daemon: under the race detector it runs under it too.
var buildFlags = []string{"-race"}
