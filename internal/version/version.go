// Package version says which build this is.
package version

import (
	"fmt"
	"runtime/debug"
)

// What the Makefile sets, from git. Of other builds the toolchain knows the commit.
var release, commit, date string

// Build is what is known of a build. What is not known is "unknown".
type Build struct {
	Release string `json:"release"` // such as 1.2.0, or 0.0.0+git20261121.0123abcd between releases
	Commit  string `json:"commit"`  // of git; "-dirty" at its end: and changes to it
	Date    string `json:"date"`    // of the commit, RFC 3339
	Go      string `json:"go"`      // version of the toolchain
}

// Get is this build. Nothing in it depends on when or where it was made, so that
// two builds of a commit are the same bytes.
func Get() Build {
	b := Build{Release: release, Commit: commit, Date: date}
	if info, ok := debug.ReadBuildInfo(); ok {
		b.Go = info.GoVersion
		if commit == "" {
			b.take(info.Settings)
		}
		if b.Release == "" {
			b.Release = info.Main.Version
		}
	}
	for _, s := range []*string{&b.Release, &b.Commit, &b.Date, &b.Go} {
		if *s == "" {
			*s = "unknown"
		}
	}
	return b
}

// take takes what the toolchain noted of the version control system.
func (b *Build) take(settings []debug.BuildSetting) {
	dirty := false
	for _, s := range settings {
		switch s.Key {
		case "vcs.revision":
			b.Commit = s.Value
		case "vcs.time":
			b.Date = s.Value
		case "vcs.modified":
			dirty = s.Value == "true"
		}
	}
	if dirty {
		b.Commit += "-dirty"
	}
}

// String is the release with its commit and date.
func (b Build) String() string {
	return fmt.Sprintf("%s (commit %s, %s, %s)", b.Release, b.Commit, b.Date, b.Go)
}

// String is what this build is, on one line.
func String() string { return Get().String() }
