package trusted

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestReadSecret(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	pipe := filepath.Join(dir, "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ path, text, want string }{
		{path: write("good", "correct horse battery\n", 0o600), text: "correct horse battery"},
		{path: write("private", "x\r\n\n", 0o400), text: "x"},
		{path: write("group", "secret", 0o640), want: "its mode is 0640"},
		{path: write("world", "secret", 0o604), want: "chmod 600"},
		{path: write("large", strings.Repeat("x", maxSecret+1), 0o600), want: "larger than 4096 bytes"},
		{path: pipe, want: "no regular file"},
		{path: dir, want: "no regular file"},
		{path: filepath.Join(dir, "missing"), want: "no such file"},
	} {
		got, err := ReadSecret(c.path)
		switch {
		case c.want == "" && (err != nil || got != c.text):
			t.Errorf("%s: %q, %v; want %q", c.path, got, err, c.text)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s: %q, %v; want an error with %q", c.path, got, err, c.want)
		}
	}
}
