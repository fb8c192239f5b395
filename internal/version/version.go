// Package version says which build this is.
package version

import "runtime/debug"

// release is set by the Makefile from the git tag or commit.
var release = ""

// String is the release, or what the Go toolchain knows of the build.
func String() string {
	if release != "" {
		return release
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "unknown"
}
