package privilege

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// TestDirectoriesOf checks what may be read around a file, also if its link leads to a file
// that does not exist yet, such as a resolver's file before the resolver has started.
func TestDirectoriesOf(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"etc", "run/there"} {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "run/there/file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, to, want string }{
		{"link", "../run/there/file", "run/there"},
		{"soon", "../run/there/soon", "run/there"},
		{"later", filepath.Join(dir, "run/later/deep/file"), "run"},
		{"none", "", "etc"},
	} {
		file := filepath.Join(dir, "etc", c.name)
		if c.to != "" {
			if err := os.Symlink(c.to, file); err != nil {
				t.Fatal(err)
			}
		}
		if got, want := directoriesOf(file), []string{filepath.Join(dir, "etc"), filepath.Join(dir, c.want)}; !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", c.name, got, want)
		}
	}
	if got := directoriesOf("/nowhere"); !slices.Equal(got, []string{"/nowhere", "/nowhere"}) {
		t.Error(got)
	}
}
