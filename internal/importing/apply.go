package importing

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"

	"sixfour/internal/importing/host"
)

// group is the group that may read the configuration.
const group = "sixfour"

// Apply writes a result to path, and its secrets into their files. A file that is there
// already is kept beside the new one, as path.bak. On an error nothing is changed, except
// that files with secrets may have been made.
func Apply(path string, r host.Result) error {
	backup := path + ".bak"
	if _, err := os.Lstat(backup); err == nil {
		return fmt.Errorf("%s exists, so that %s cannot be kept under this name: move it away first", backup, path)
	}
	for _, s := range r.Secrets {
		if err := writeSecret(s); err != nil {
			return err
		}
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".sixfour-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // fails if the file has its name
	_, err = f.WriteString(r.Config)
	err = errors.Join(err, f.Chmod(0o640), f.Sync(), f.Close())
	if err != nil {
		return err
	}
	if g, err := user.LookupGroup(group); err == nil {
		if id, err := strconv.Atoi(g.Gid); err == nil {
			_ = os.Chown(f.Name(), -1, id) // the group only may read
		}
	}
	if err := os.Link(path, backup); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.Rename(f.Name(), path)
}

// writeSecret writes a secret into a new file. One with the same content may be there.
func writeSecret(s host.Secret) error {
	if old, err := os.ReadFile(s.Path); err == nil {
		if string(old) == s.Value+"\n" {
			return nil
		}
		return fmt.Errorf("%s exists, and has another secret: move it away first", s.Path)
	}
	if err := os.MkdirAll(filepath.Dir(s.Path), 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(s.Path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(s.Value + "\n")
	return errors.Join(err, f.Close())
}
