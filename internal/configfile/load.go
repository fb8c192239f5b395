// Package configfile reads a configuration file in TOML. It returns a valid configuration,
// or all errors in the file.
package configfile

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"syscall"
	"time"

	"sixfour/internal/config"
	"sixfour/internal/config/problem"
	"sixfour/internal/config/tree"
	"sixfour/internal/trusted"
)

// maxSize is the size of the largest file that is read, in bytes. It is enough for several
// hundred thousand peers. A larger file is probably a wrong path, such as a
// device.
const maxSize = 64 << 20

// pipeTimeout is how long a process that writes to a pipe may take.
const pipeTimeout = 10 * time.Second

// Load reads a file, and the files with secrets that it names, and validates it. All errors
// are of type Problems.
func Load(path string) (*config.Config, error) {
	data, err := read(path)
	if err != nil {
		return nil, problem.List{{File: path, Line: 1, Column: 1, Text: err.Error()}}
	}
	return parse(&problem.Report{File: path, ReadSecret: trusted.ReadSecret}, data)
}

// LoadLenient is Load for the start of the daemon. It accepts a file in which something
// stops a part of the traffic only, and returns these problems as doubts: a file that an
// older version has accepted must not end all tunnels after an upgrade.
func LoadLenient(path string) (c *config.Config, doubts problem.List, err error) {
	data, err := read(path)
	if err != nil {
		return nil, nil, problem.List{{File: path, Line: 1, Column: 1, Text: err.Error()}}
	}
	r := &problem.Report{File: path, ReadSecret: trusted.ReadSecret, Lenient: true}
	c, err = parse(r, data)
	return c, r.Doubts.Sorted(), err
}

func read(path string) ([]byte, error) {
	// O_NONBLOCK: opening a named pipe without a writer would block forever, and so would
	// every later reload.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, explain(err)
	}
	defer f.Close()
	_ = f.SetReadDeadline(time.Now().Add(pipeTimeout)) // only pipes support a deadline, and only they need one
	data, err := io.ReadAll(io.LimitReader(f, maxSize+1))
	if err != nil {
		return nil, explain(err)
	}
	if len(data) > maxSize {
		return nil, errors.New("the file is larger than 64 MiB, too large for a configuration: name the right one with -config")
	}
	if info, err := f.Stat(); err == nil && info.Mode()&fs.ModeNamedPipe != 0 && len(data) == 0 {
		return nil, errors.New("no process writes to the pipe: name a file with -config")
	}
	return data, nil
}

// explain returns the system's error without the path, which precedes every problem
// anyway, and with advice.
func explain(err error) error {
	var reason *fs.PathError
	if errors.As(err, &reason) {
		err = reason.Err
	}
	remedy := "name a readable file with -config"
	switch {
	case errors.Is(err, fs.ErrNotExist):
		remedy = "write it, or name another with -config"
	case errors.Is(err, fs.ErrPermission):
		remedy = "run as a user who may read it, or change its permissions"
	case errors.Is(err, os.ErrDeadlineExceeded):
		remedy = "it is a pipe whose writer does not close it: name a file with -config"
	case errors.Is(err, syscall.EISDIR):
		remedy = "name a file in it with -config"
	}
	return errors.New("cannot read the file: " + err.Error() + ": " + remedy)
}

// Parse is Load for the content of a file. It reads no other files, so that secrets have no
// values. name precedes the line and column of each problem.
func Parse(name string, data []byte) (*config.Config, error) {
	return parse(&problem.Report{File: name}, data)
}

func parse(r *problem.Report, data []byte) (*config.Config, error) {
	var c *config.Config
	if root := tree.Parse(r, data); root != nil {
		c = readFile(r, root)
	}
	if r.Found > 0 {
		return nil, r.All()
	}
	return c, nil
}
