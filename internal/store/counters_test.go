package store

import (
	"os"
	"path/filepath"
	"sync"
	"testing"
)

// counters opens counters for a test, which fails if a file cannot be used.
func counters(t *testing.T, files ...string) *Counters {
	t.Helper()
	c := OpenCounters(files, func(file string, err error) { t.Errorf("%s: %v", file, err) })
	t.Cleanup(c.Close)
	return c
}

// A counter goes on after a restart where it was, and where it is told if that is more.
func TestCounters(t *testing.T) {
	dir := t.TempDir()
	a, b := filepath.Join(dir, "new", "a"), filepath.Join(dir, "b")
	c := counters(t, a, b, a)
	for _, r := range []struct {
		file               string
		least, count, want uint64
	}{
		{a, 1000, 10, 1000},
		{a, 0, 10, 1010},
		{a, 1015, 1, 1020},
		{a, 5000, 1 << 20, 5000},
		{b, 7, 1, 7},
		{b, 1 << 63, 1, 8}, // no number is left after that
		{b, 1<<64 - 1, 1, 9},
	} {
		if got := c.Reserve(r.file, r.least, r.count); got != r.want {
			t.Errorf("%+v: %d", r, got)
		}
	}
	c.Close()
	again := counters(t, a, b)
	if first, second := again.Reserve(a, 3, 1), again.Reserve(b, 3, 1); first != 5000+1<<20 || second != 10 {
		t.Errorf("%d and %d after a restart", first, second)
	}
	if st, err := os.Stat(a); err != nil || st.Mode() != 0o600 || st.Size() != counterLen {
		t.Errorf("%v, %v", st, err)
	}
}

// Numbers that several goroutines reserve are different.
func TestCountersAtOnce(t *testing.T) {
	file := filepath.Join(t.TempDir(), "a")
	c := counters(t, file)
	var mu sync.Mutex
	var wg sync.WaitGroup
	seen := map[uint64]bool{}
	for range 4 {
		wg.Go(func() {
			for range 10 {
				n := c.Reserve(file, 1, 5)
				mu.Lock()
				seen[n] = true
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if len(seen) != 40 {
		t.Errorf("%d different numbers", len(seen))
	}
}

// With a file that cannot be used, a counter increases nevertheless, and the file stays as it is.
func TestCountersBroken(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "a")
	for name, make := range map[string]func() error{
		"text":         func() error { return os.WriteFile(file, []byte("a number\n"), 0o600) },
		"cut off":      func() error { return os.WriteFile(file, []byte("00000000000000"), 0o600) },
		"too large":    func() error { return os.WriteFile(file, []byte("18446744073709551615\n"), 0o600) },
		"too long":     func() error { return os.WriteFile(file, []byte("0000000000000000000000000000\n"), 0o600) },
		"a directory":  func() error { return os.Mkdir(file, 0o700) },
		"a link":       func() error { return os.Symlink("/etc/hostname", file) },
		"not possible": func() error { return os.Symlink("a", file) },
	} {
		t.Run(name, func(t *testing.T) {
			if err := os.RemoveAll(file); err != nil {
				t.Fatal(err)
			}
			if err := make(); err != nil {
				t.Fatal(err)
			}
			before, _ := os.ReadFile(file)
			failures := 0
			c := OpenCounters([]string{file}, func(string, error) { failures++ })
			defer c.Close()
			if a, b := c.Reserve(file, 100, 1), c.Reserve(file, 50, 1); failures != 1 || a != 100 || b != 101 {
				t.Errorf("%d failures, numbers %d and %d", failures, a, b)
			}
			if after, _ := os.ReadFile(file); string(after) != string(before) {
				t.Errorf("the file has %q", after)
			}
		})
	}
	failures := 0
	c := OpenCounters(nil, func(string, error) { failures++ })
	if a, b := c.Reserve(file, 100, 1), c.Reserve(file, 50, 1); failures != 1 || a != 100 || b != 101 {
		t.Errorf("not opened: %d failures, numbers %d and %d", failures, a, b)
	}
}

// A full disk is reported, and the numbers increase.
func TestCountersFull(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	failures := 0
	c := OpenCounters(nil, func(string, error) { failures++ })
	c.open["a"] = &counter{file: full}
	defer c.Close()
	if a, b := c.Reserve("a", 100, 1), c.Reserve("a", 50, 1); failures != 2 || a != 100 || b != 101 {
		t.Errorf("%d failures, numbers %d and %d", failures, a, b)
	}
}
