// Package packaging tests what is installed: the packages, the container image, and the
// unit by which systemd runs the daemon.
package packaging

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
)

// root is the module's.
const root = "../.."

// copyTree copies what git knows of, and git's own files, so that the copy is
// built as the tree is.
func copyTree(t *testing.T, to string) {
	t.Helper()
	script := `mkdir -p "$1" && git ls-files -z --cached --others --exclude-standard | xargs -0 -I{} sh -c 'test ! -e "$1" || echo "$1"' - {} | tar cf - -T - .git | tar xf - -C "$1"`
	cmd := exec.Command("sh", "-c", script, "-", to)
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("copy the tree: %v\n%s", err, out)
	}
}

// build makes the packages of this platform from a tree, and returns them by
// their formats.
func build(t *testing.T, tree, version string) map[string]string {
	t.Helper()
	dist := t.TempDir()
	cmd := exec.Command("make", "-s", "package", "PLATFORMS="+runtime.GOARCH, "VERSION="+version, "DIST="+dist)
	cmd.Dir = tree
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", cmd, err, out)
	}
	packages := make(map[string]string)
	for _, format := range []string{"deb", "rpm"} {
		found, err := filepath.Glob(filepath.Join(dist, "*."+format))
		if err != nil || len(found) != 1 {
			t.Fatalf("packages %v, %v", found, err)
		}
		packages[format] = found[0]
	}
	return packages
}

// Two builds of the same sources, in other places, are the same bytes. Then the
// packages are installed in a copy of this machine, upgraded, and removed.
func TestPackages(t *testing.T) {
	dir := t.TempDir()
	one, other := filepath.Join(dir, "one"), filepath.Join(dir, "another", "place")
	copyTree(t, one)
	copyTree(t, other)
	first, again := build(t, one, "1.0.0"), build(t, other, "1.0.0")
	for format, path := range first {
		a, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(again[format])
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(a, b) {
			t.Errorf("two builds of %s differ", filepath.Base(path))
		}
	}
	sample := filepath.Join(other, "cmd/sixfourd/dist/sixfour.toml")
	f, err := os.OpenFile(sample, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString("# of the next version\n"); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	next := build(t, other, "1.1.0")
	for format := range first {
		t.Run(format, func(t *testing.T) {
			cmd := exec.Command("unshare", "--mount", "--net", "--pid", "--fork", "bash", "try", format, first[format], next[format], t.TempDir())
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Errorf("%v: %v\n%s", cmd, err, out)
			}
		})
	}
}
