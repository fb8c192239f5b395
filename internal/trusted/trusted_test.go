package trusted

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// nobody is a user without rights.
const nobody = 65534

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestCreate checks which files may be opened, and which may come from another user.
func TestCreate(t *testing.T) {
	write := func(path string) error { return os.WriteFile(path, []byte("secret"), 0o600) }
	for _, c := range []struct {
		name string
		make func(dir string) error
		path string // below the directory
		into string // the file that is opened; "": path
		err  string // "": no error
	}{
		{"nothing there", func(string) error { return nil }, "f", "", ""},
		{"no directory", func(string) error { return nil }, "d/f", "", "no such file or directory"},
		{"a file of ours", func(dir string) error { return write(dir + "/f") }, "f", "", ""},
		{"a file of nobody", func(dir string) error { return own(write(dir+"/f"), dir+"/f") }, "f", "", "it belongs to user "},
		{"a file with two names", func(dir string) error {
			if err := write(dir + "/victim"); err != nil {
				return err
			}
			return os.Link(dir+"/victim", dir+"/f")
		}, "f", "", "it has a second name (a hard link)"},
		{"a link of ours", func(dir string) error {
			if err := write(dir + "/to"); err != nil {
				return err
			}
			return os.Symlink("to", dir+"/f")
		}, "f", "to", ""},
		{"a link of ours to nothing yet", func(dir string) error { return os.Symlink(dir+"/to", dir+"/f") }, "f", "to", ""},
		{"a link of nobody", func(dir string) error { return own(os.Symlink("victim", dir+"/f"), dir+"/f") }, "f", "", "/f is a symbolic link that user "},
		{"a link of nobody on the way", func(dir string) error { return own(os.Symlink(".", dir+"/d"), dir+"/d") }, "d/f", "", "/d is a symbolic link that user "},
		{"up behind a link", func(dir string) error {
			if err := os.MkdirAll(dir+"/a/b", 0o755); err != nil {
				return err
			}
			return os.Symlink("a/b", dir+"/d")
		}, "d/../f", "a/f", ""},
		{"a circle", func(dir string) error { return os.Symlink("f", dir+"/f") }, "f", "", "too many levels of symbolic links"},
		{"a directory", func(dir string) error { return os.Mkdir(dir+"/f", 0o755) }, "f", "", "is a directory"},
		{"a directory of nobody", func(dir string) error { return own(os.Mkdir(dir+"/d", 0o755), dir+"/d") }, "d/f", "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			must(t, c.make(dir))
			f, err := Create(dir + "/" + c.path)
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Errorf("%v, want %s", err, c.err)
				}
				for _, file := range []string{"f", "victim"} {
					if b, err := os.ReadFile(filepath.Join(dir, file)); err == nil && string(b) != "secret" {
						t.Errorf("%s has %q now", file, b)
					}
				}
				return
			}
			must(t, err)
			_, err = f.WriteString("new")
			must(t, err)
			must(t, f.Close())
			if c.into == "" {
				c.into = c.path
			}
			if b, err := os.ReadFile(dir + "/" + c.into); err != nil || string(b) != "new" {
				t.Errorf("%q, %v", b, err)
			}
			if info, err := os.Lstat(dir + "/" + c.into); err != nil || info.Mode() != 0o600 {
				t.Errorf("%v, %v", info.Mode(), err)
			}
		})
	}
}

func own(err error, path string) error {
	if err != nil {
		return err
	}
	return os.Lchown(path, nobody, -1)
}

// TestCreateOther: pipes, devices and the process's own descriptors are opened
// unchanged.
func TestCreateOther(t *testing.T) {
	fifo := filepath.Join(t.TempDir(), "fifo")
	must(t, unix.Mkfifo(fifo, 0o600))
	r, err := os.OpenFile(fifo, os.O_RDONLY|unix.O_NONBLOCK, 0)
	must(t, err)
	defer r.Close()
	_, w, err := os.Pipe()
	must(t, err)
	defer w.Close()
	for _, path := range []string{fifo, "/dev/null", "/dev/stdout", fmt.Sprintf("/dev/fd/%d", w.Fd())} {
		f, err := Create(path)
		if err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		f.Close()
	}
}

// With sudo, the user's pipes and links to directories are used, but not the user's files, nor
// links to files. Descriptors of the process are used, whatever user owns the file.
func TestCreateBySudo(t *testing.T) {
	dir := t.TempDir()
	must(t, os.Mkdir(dir+"/to", 0o755))
	must(t, own(os.Symlink("to", dir+"/d"), dir+"/d"))
	must(t, own(os.Symlink("to/victim", dir+"/link"), dir+"/link"))
	must(t, own(os.WriteFile(dir+"/file", nil, 0o600), dir+"/file"))
	must(t, os.Mkdir(dir+"/sticky", 0o755))
	must(t, os.Chmod(dir+"/sticky", 0o777|os.ModeSticky))
	for _, fifo := range []string{dir + "/fifo", dir + "/sticky/fifo"} {
		must(t, own(unix.Mkfifo(fifo, 0o600), fifo))
		r, err := os.OpenFile(fifo, os.O_RDONLY|unix.O_NONBLOCK, 0)
		must(t, err)
		defer r.Close()
	}
	r, w, err := os.Pipe()
	must(t, err)
	defer r.Close()
	defer w.Close()
	must(t, w.Chown(nobody, -1))
	pipe := fmt.Sprintf("/dev/fd/%d", w.Fd())
	for _, c := range []struct {
		path        string
		alone, sudo bool // it is written to
	}{
		{pipe, true, true},
		{dir + "/fifo", false, true},
		{dir + "/sticky/fifo", false, false},
		{dir + "/d/f", false, true},
		{dir + "/link", false, false},
		{dir + "/file", false, false},
	} {
		for uid, want := range map[string]bool{"": c.alone, "1": c.alone, fmt.Sprint(nobody): c.sudo} {
			t.Setenv("SUDO_UID", uid)
			f, err := Create(c.path)
			if (err == nil) != want {
				t.Errorf("%s by sudo of user %q: %v", c.path, uid, err)
			}
			if err == nil {
				f.Close()
			}
		}
	}
}

// TestMakeMissing: the mode of new directories does not depend on the umask.
func TestMakeMissing(t *testing.T) {
	old := unix.Umask(0o077)
	defer unix.Umask(old)
	dir := t.TempDir()
	d, err := OpenDir(dir+"/a//b/./c/", true, Owners{})
	must(t, err)
	d.Close()
	for _, made := range []string{"a", "a/b", "a/b/c"} {
		if info, err := os.Stat(filepath.Join(dir, made)); err != nil || info.Mode().Perm() != 0o755 {
			t.Errorf("%s: %v, %v", made, info.Mode(), err)
		}
	}
	if _, err := OpenDir(dir+"/x", false, Owners{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v", err)
	}
}
