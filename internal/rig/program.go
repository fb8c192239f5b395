package rig

import (
	"bytes"
	"fmt"
	"os/exec"
	"path"
	"path/filepath"
	"sync"
)

// Build builds a program into a directory and returns its path. If the race detector is
// on, the program uses it, too.
func Build(dir, pkg string) (string, error) {
	file := filepath.Join(dir, path.Base(pkg))
	args := []string{"build", "-o", file}
	if Race {
		args = append(args, "-race")
	}
	if out, err := exec.Command("go", append(args, pkg)...).CombinedOutput(); err != nil {
		return "", fmt.Errorf("build %s: %w\n%s", pkg, err, out)
	}
	return file, nil
}

// Log is a bytes.Buffer for concurrent use. It collects the output of a program.
type Log struct {
	mu sync.Mutex
	b  bytes.Buffer
}

// Write appends.
func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

// String returns what was written so far.
func (l *Log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
