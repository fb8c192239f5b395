package store

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"sixfour/internal/trusted"
)

// Counters are numbers that only increase, each in a file of its own, so that they do so after a
// restart, too. Any goroutine may use them.
type Counters struct {
	failed func(file string, err error)

	mu   sync.Mutex
	open map[string]*counter
}

// counter is a number of which all smaller ones are reserved.
type counter struct {
	file *os.File // nil: it could not be opened
	next uint64
}

// A counter is written as decimal digits and a newline, always as many. Larger numbers than
// maxCounter are never reached: a file with one is damaged.
const (
	counterFormat = "%020d\n"
	counterLen    = 21
	maxCounter    = 1 << 63
)

// OpenCounters opens the files of counters, and makes those that are missing, before the process
// drops its privileges. It calls failed for each file that cannot be used, and Reserve calls it if
// it cannot write: then the counter increases only as long as the process runs.
func OpenCounters(files []string, failed func(file string, err error)) *Counters {
	c := &Counters{failed: failed, open: make(map[string]*counter)}
	for _, path := range files {
		if c.open[path] != nil {
			continue
		}
		o := new(counter)
		c.open[path] = o
		if err := o.load(path); err != nil {
			failed(path, err)
		}
	}
	return c
}

// load opens the file of a counter and reads it.
func (c *counter) load(path string) error {
	dir, err := trusted.OpenDir(filepath.Dir(path), true, trusted.Owners{Users: trusted.OwnersNamed(daemonUser).Users})
	if err != nil {
		return err
	}
	defer dir.Close()
	f := file{dir: dir, path: path, name: filepath.Base(path)}
	fd, err := unix.Openat(int(dir.Fd()), f.name, unix.O_RDWR|unix.O_CREAT|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	o := os.NewFile(uintptr(fd), path)
	var st unix.Stat_t
	if err = unix.Fstat(fd, &st); err == nil && st.Mode&unix.S_IFMT != unix.S_IFREG {
		err = errors.New("it is not a regular file")
	}
	if err == nil {
		err = f.giveToOwner(fd)
	}
	if err == nil && st.Size == 0 {
		err = f.syncDir()
	}
	if err == nil && st.Size > 0 {
		c.next, err = readCounter(o)
	}
	if err != nil {
		o.Close()
		return err
	}
	c.file = o
	return nil
}

func readCounter(r io.ReaderAt) (uint64, error) {
	b := make([]byte, counterLen+1)
	n, err := r.ReadAt(b, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return 0, err
	}
	text, ok := strings.CutSuffix(string(b[:n]), "\n")
	next, err := strconv.ParseUint(text, 10, 63)
	if !ok || err != nil {
		return 0, errors.New("it is damaged: its content is not a number: remove it")
	}
	return next, nil
}

// Reserve reserves count numbers of the counter of a file, and returns the first of them: it is at
// least least, and greater than all that were reserved before.
func (c *Counters) Reserve(path string, least, count uint64) uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	o := c.open[path]
	if o == nil {
		o = new(counter)
		c.open[path] = o
		c.failed(path, errors.New("the daemon opens such files only when it starts: restart it"))
	}
	first := max(o.next, least)
	if first+count < first || first+count >= maxCounter { // least is not sensible
		first = o.next
	}
	o.next = first + count
	if o.file == nil {
		return first
	}
	_, err := o.file.WriteAt(fmt.Appendf(nil, counterFormat, o.next), 0)
	if err == nil {
		err = unix.Fdatasync(int(o.file.Fd()))
	}
	if err != nil {
		c.failed(path, err)
	}
	return first
}

// Close closes the files.
func (c *Counters) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, o := range c.open {
		if o.file != nil {
			o.file.Close()
			o.file = nil
		}
	}
}
