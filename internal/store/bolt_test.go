package store

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func open(t *testing.T, path string) *Bolt {
	t.Helper()
	b, err := OpenBolt(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

func commit(t *testing.T, s Store, txn Txn) int64 {
	t.Helper()
	revision, err := s.Commit(t.Context(), txn)
	if err != nil {
		t.Fatal(err)
	}
	return revision
}

// content returns what is in a store, as "key=value@version".
func content(t *testing.T, s Store) (all []string) {
	t.Helper()
	if _, err := s.Load(t.Context(), func(i Item) { all = append(all, fmt.Sprintf("%s=%s@%d", i.Key, i.Value, i.Version)) }); err != nil {
		t.Fatal(err)
	}
	return all
}

func TestBolt(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a", "broker.db")
	b := open(t, path)
	watch := b.Watch(t.Context(), 0)
	put := func(key, value string) Put { return Put{Key: key, Value: []byte(value)} }
	for _, c := range []struct {
		txn  Txn
		err  error
		want string
	}{
		{Txn{Put: []Put{put("b", "1"), put("a", "2")}}, nil, "a=2@1 b=1@1"},
		{Txn{If: []Condition{{"a", 1}, {"c", 0}}, Put: []Put{put("c\x00\xff", "")}}, nil, "a=2@1 b=1@1 c\x00\xff=@2"},
		{Txn{If: []Condition{{"a", 1}, {"b", 2}}, Put: []Put{put("a", "3")}}, ErrConflict, "a=2@1 b=1@1 c\x00\xff=@2"},
		{Txn{If: []Condition{{"a", 0}}, Delete: []string{"a"}}, ErrConflict, "a=2@1 b=1@1 c\x00\xff=@2"},
		{Txn{If: []Condition{{"a", 1}}, Put: []Put{put("b", "9")}, Delete: []string{"a", "nothing"}}, nil, "b=9@3 c\x00\xff=@2"},
	} {
		if _, err := b.Commit(t.Context(), c.txn); !errors.Is(err, c.err) {
			t.Errorf("%+v: %v, want %v", c.txn, err, c.err)
		}
		if got := strings.Join(content(t, b), " "); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
	for revision, want := range []Changes{{1, []Item{{"b", []byte("1"), 1}, {"a", []byte("2"), 1}}, nil}, {2, []Item{{"c\x00\xff", nil, 2}}, nil}, {3, []Item{{"b", []byte("9"), 3}}, []string{"a", "nothing"}}} {
		if got := <-watch; fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("change %d: %v, want %v", revision, got, want)
		}
	}
	if _, ok := <-b.Watch(t.Context(), 2); ok {
		t.Error("changes of the past are delivered, but they are not kept")
	}
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 {
		t.Errorf("%v, %v; want mode 0600", info.Mode(), err)
	}
	if _, err := OpenBolt(path); !errors.Is(err, ErrInUse) {
		t.Errorf("opened twice: %v", err)
	}
	b.Close()
	if got := strings.Join(content(t, open(t, path)), " "); got != "b=9@3 c\x00\xff=@2" {
		t.Errorf("opened again: %q", got)
	}
}

// Damage is reported, wherever it is, and the file stays as it is.
func TestDamage(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "broker.db")
	b := open(t, path)
	for i := range 20 {
		var txn Txn
		for j := range 50 {
			txn.Put = append(txn.Put, Put{Key: fmt.Sprintf("key %d.%d", i, j), Value: bytes.Repeat([]byte{'v'}, 100)})
		}
		commit(t, b, txn)
	}
	b.Close()
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	value := bytes.Index(good, bytes.Repeat([]byte{'v'}, 100))
	change := func(at int, with ...byte) func([]byte) []byte {
		return func(b []byte) []byte { copy(b[at:], with); return b }
	}
	cases := map[string]func([]byte) []byte{
		"empty":            func([]byte) []byte { return nil },
		"text":             func([]byte) []byte { return []byte("not a store\n") },
		"zeros":            func(b []byte) []byte { return make([]byte, len(b)) },
		"half":             func(b []byte) []byte { return b[:len(b)/64] },
		"one page":         func(b []byte) []byte { return b[:4096] },
		"first head":       change(30, 1, 2, 3),
		"second head":      change(4096+30, 1, 2, 3),
		"both heads":       func(b []byte) []byte { copy(b[30:], "xyz"); copy(b[4096+30:], "xyz"); return b },
		"a value":          change(value+7, 'w'),
		"zeros afterwards": func(b []byte) []byte { clear(b[8192:]); return b },
		"ones afterwards": func(b []byte) []byte {
			copy(b[8192:], bytes.Repeat([]byte{0xff}, len(b)-8192))
			return b
		},
	}
	for page := 8192; page < value; page += 4096 {
		cases[fmt.Sprintf("page %d", page/4096)] = change(page, bytes.Repeat([]byte{0xa5}, 512)...)
	}
	found := 0
	for name, damage := range cases {
		bad := damage(slices.Clone(good))
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		b, err := OpenBolt(path)
		now, _ := os.ReadFile(path)
		switch {
		case err == nil && strings.HasPrefix(name, "page "): // one that is not used
			b.Close()
			continue
		case err == nil:
			b.Close()
			t.Errorf("%s: opened", name)
		case !strings.Contains(err.Error(), "is damaged") || !strings.Contains(err.Error(), "backup"):
			t.Errorf("%s: %v", name, err)
		}
		found++
		if !bytes.Equal(now, bad) {
			t.Errorf("%s: the file was changed", name)
		}
	}
	if found < 11 {
		t.Errorf("only %d of %d were found", found, len(cases))
	}
}

// A file is refused that others can read, or that is not one of ours.
func TestRefused(t *testing.T) {
	dir := t.TempDir()
	good := filepath.Join(dir, "good")
	open(t, good).Close()
	for _, c := range []struct {
		name string
		make func(path string) error
		want string
	}{
		{"mode", func(path string) error {
			b, err := os.ReadFile(good)
			return errors.Join(err, os.WriteFile(path, b, 0o640), os.Chmod(path, 0o640))
		}, "chmod 600 "},
		{"link", func(path string) error { return os.Symlink(good, path) }, "is a symbolic link"},
		{"second", func(path string) error { return os.Link(good, path) }, "a second name"},
		{"directory", func(path string) error { return os.Mkdir(path, 0o700) }, "no regular file"},
	} {
		path := filepath.Join(dir, c.name)
		if err := c.make(path); err != nil {
			t.Fatal(err)
		}
		b, err := OpenBolt(path)
		if err == nil {
			b.Close()
		}
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

// What a process that was killed while it made the file has left is replaced.
func TestCreateAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "broker.db")
	if err := os.WriteFile(path+".new", []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	commit(t, open(t, path), Txn{Put: []Put{{Key: "a"}}})
	if _, err := os.Stat(path + ".new"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v", err)
	}
}

// On a full disk commits fail, and change nothing; what is in the store stays, and when there
// is room again, commits succeed.
func TestFull(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	path, filler := filepath.Join(dir, "broker.db"), filepath.Join(dir, "filler")
	b := open(t, path)
	if err := os.WriteFile(filler, make([]byte, 512<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	var kept []string
	add := func() error {
		key := fmt.Sprintf("key %03d", len(kept))
		revision, err := b.Commit(t.Context(), Txn{If: []Condition{{key, 0}}, Put: []Put{{Key: key, Value: bytes.Repeat([]byte{'v'}, 10<<10)}}})
		if err == nil {
			kept = append(kept, fmt.Sprintf("%s=%s@%d", key, bytes.Repeat([]byte{'v'}, 10<<10), revision))
		}
		return err
	}
	var err error
	for err == nil && len(kept) < 200 {
		err = add()
	}
	if !errors.Is(err, ErrFull) || !strings.Contains(err.Error(), "free some") {
		t.Fatalf("%d items, and %v", len(kept), err)
	}
	if got := content(t, b); !slices.Equal(got, kept) {
		t.Errorf("%d items are left of %d", len(got), len(kept))
	}
	b.Close()
	b = open(t, path)
	if err := add(); !errors.Is(err, ErrFull) {
		t.Errorf("opened again: %v", err)
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	if err := add(); err != nil {
		t.Errorf("there is room again: %v", err)
	}
	if got := content(t, b); !slices.Equal(got, kept) {
		t.Errorf("%d items are left of %d", len(got), len(kept))
	}
}

// A store cannot be made on a full disk, and nothing of it is left.
func TestFullAtFirst(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=8k"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	if b, err := OpenBolt(filepath.Join(dir, "broker.db")); !errors.Is(err, ErrFull) {
		t.Errorf("%v, %v", b, err)
	}
	if names, err := os.ReadDir(dir); err != nil || len(names) > 0 {
		t.Errorf("%v, %v", names, err)
	}
}
