package trusted

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"syscall"
)

// maxSecret is the size of the largest secret, in bytes.
const maxSecret = 4 << 10

// ReadSecret returns the content of a file that only its owner can read. A line break at the
// end is left out. The errors say what to do.
func ReadSecret(path string) (string, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a pipe must not block
	if err != nil {
		return "", explainSecret(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", explainSecret(err)
	}
	switch mode := info.Mode(); {
	case !mode.IsRegular():
		return "", errors.New("it is no regular file: name one")
	case mode.Perm()&0o077 != 0:
		return "", fmt.Errorf("its mode is %#o, so that other users can open it: chmod 600 %s", mode.Perm(), path)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxSecret+1))
	if err != nil {
		return "", explainSecret(err)
	}
	if len(b) > maxSecret {
		return "", fmt.Errorf("it is larger than %d bytes, and so no secret: name another file", maxSecret)
	}
	return strings.TrimRight(string(b), "\r\n"), nil
}

// explainSecret returns an error without the path, and with advice.
func explainSecret(err error) error {
	var reason *fs.PathError
	if errors.As(err, &reason) {
		err = reason.Err
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return errors.New("there is no such file: write it, with mode 0600")
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("the user of sixfourd (uid %d) cannot open it: chown it to that user; if the daemon runs, and had no file in that directory at its start, restart it", os.Geteuid())
	}
	return fmt.Errorf("it cannot be read: %w", err)
}
