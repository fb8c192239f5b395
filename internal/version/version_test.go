package version

import (
	"runtime/debug"
	"testing"
)

func TestTake(t *testing.T) {
	for _, c := range []struct {
		settings []debug.BuildSetting
		want     string
	}{
		{nil, "1.2.0 (commit unknown, unknown, go1)"},
		{[]debug.BuildSetting{{Key: "vcs.revision", Value: "0123abcd"}, {Key: "vcs.time", Value: "2026-11-21T18:00:00Z"}, {Key: "vcs.modified", Value: "false"}},
			"1.2.0 (commit 0123abcd, 2026-11-21T18:00:00Z, go1)"},
		{[]debug.BuildSetting{{Key: "vcs.modified", Value: "true"}, {Key: "vcs.revision", Value: "0123abcd"}},
			"1.2.0 (commit 0123abcd-dirty, unknown, go1)"},
	} {
		b := Build{Release: "1.2.0", Commit: "unknown", Date: "unknown", Go: "go1"}
		b.take(c.settings)
		if got := b.String(); got != c.want {
			t.Errorf("%v: %q, want %q", c.settings, got, c.want)
		}
	}
}
