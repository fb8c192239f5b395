package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	bolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
	"golang.org/x/sys/unix"

	"sixfour/internal/trusted"
)

// lockPatience is how long OpenBolt waits for a process that is about to end.
const lockPatience = time.Second

// OpenBolt opens the file, which only its owner may read, and makes it and its directory if they
// are missing. The errors say what to do. A file that is damaged, or that a newer sixfour has
// written, is left as it is.
func OpenBolt(path string) (*Bolt, error) {
	dir, err := trusted.OpenDir(filepath.Dir(path), true, trusted.Owners{Users: trusted.OwnersNamed(daemonUser).Users})
	if err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	defer dir.Close()
	f := file{dir: dir, path: path, name: filepath.Base(path)}
	var st unix.Stat_t
	err = unix.Fstatat(int(dir.Fd()), f.name, &st, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) {
		err = f.create()
	}
	if err != nil {
		return nil, f.explain(err)
	}
	if err := f.check(); err != nil {
		return nil, f.explain(err)
	}
	db, err := f.open(f.name, false)
	if err != nil {
		return nil, f.explain(err)
	}
	return &Bolt{path: path, db: db, watchers: map[*watcher]struct{}{}}, nil
}

// daemonUser is the user that packages create for the daemon. Its directory, and a file that it
// has made, may be used by root, too.
const daemonUser = "sixfour"

// file is the file of a store, in a directory that other users cannot change.
type file struct {
	dir        *os.File
	path, name string
}

// damage is an error that concerns what is in the file.
type damage struct{ error }

// damaged returns the error of a file whose content is not a store.
func damaged(path string, why error) error {
	return fmt.Errorf("store %s is damaged: %w: nothing in it was changed; stop sixfourd, move the file to another name, and put the last backup in its place (docs/broker-store.md, Backup); without one, sixfourd begins an empty store: the clients of a broker get other prefixes", path, why)
}

// explain returns an error with the path and what to do.
func (f *file) explain(err error) error {
	switch {
	case errors.As(err, new(damage)), errors.Is(err, berrors.ErrInvalid), errors.Is(err, berrors.ErrChecksum):
		return damaged(f.path, err)
	case errors.Is(err, berrors.ErrVersionMismatch):
		return fmt.Errorf("store %s was written by a newer version: install that one; the file is as it was", f.path)
	case errors.Is(err, berrors.ErrTimeout):
		return fmt.Errorf("store %s: %w", f.path, ErrInUse)
	case errors.Is(err, unix.ELOOP):
		return fmt.Errorf("store %s is a symbolic link: name the file that it leads to", f.path)
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		return fmt.Errorf("store %s: %w: it belongs to another user: chown it to the user of sixfourd", f.path, err)
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		return fmt.Errorf("store %s: %w (%w): free some on that file system", f.path, ErrFull, err)
	}
	return fmt.Errorf("store %s: %w", f.path, err)
}

// ErrInUse is the error for a file that another process has open.
var ErrInUse = errors.New("another process uses it: if sixfourd runs, sixfourctl must ask it through its control socket (sixfourctl --socket PATH); two daemons cannot share a file, but they can share etcd")

// open opens a file of the directory.
func (f *file) open(name string, readOnly bool) (*bolt.DB, error) {
	return bolt.Open(name, 0o600, &bolt.Options{
		Timeout: lockPatience, ReadOnly: readOnly, FreelistType: bolt.FreelistMapType,
		OpenFile: func(name string, flag int, mode os.FileMode) (*os.File, error) {
			fd, err := unix.Openat(int(f.dir.Fd()), name, flag&^unix.O_CREAT|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
			if err != nil {
				return nil, err
			}
			file := os.NewFile(uintptr(fd), f.path)
			if err := checkMode(file); err != nil {
				file.Close()
				return nil, err
			}
			return file, nil
		},
	})
}

// checkMode refuses a file that other users can read, or may have put there.
func checkMode(file *os.File) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(file.Fd()), &st); err != nil {
		return err
	}
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return errors.New("it is no regular file: name another path")
	case st.Mode&0o077 != 0:
		return fmt.Errorf("its mode is %#o, so that other users can read the secrets of accounts: chmod 600 %s", st.Mode&0o777, file.Name())
	case st.Nlink > 1:
		return errors.New("it has a second name (a hard link): copy it, and remove the other name")
	}
	return nil
}

// create makes an empty store, in such a way that the file has its name only when it is
// complete. It belongs to the owner of the directory, because root may make it for the daemon.
func (f *file) create() error {
	dir, temporary := int(f.dir.Fd()), f.name+".new"
	if err := unix.Unlinkat(dir, temporary, 0); err != nil && !errors.Is(err, unix.ENOENT) {
		return err
	}
	fd, err := unix.Openat(dir, temporary, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	err = f.giveToOwner(fd)
	if err == nil {
		err = f.initialize(temporary)
	}
	if err == nil {
		err = unix.Renameat2(dir, temporary, dir, f.name, unix.RENAME_NOREPLACE)
	}
	if err != nil {
		_ = unix.Unlinkat(dir, temporary, 0)
		if errors.Is(err, unix.EEXIST) { // another process was faster
			return nil
		}
		return err
	}
	return f.syncDir()
}

// syncDir writes the directory to the disk. Its descriptor is one that cannot.
func (f *file) syncDir() error {
	fd, err := unix.Openat(int(f.dir.Fd()), ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Fsync(fd)
}

func (f *file) giveToOwner(fd int) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.dir.Fd()), &st); err != nil {
		return err
	}
	if os.Geteuid() == 0 && st.Uid != 0 {
		return unix.Fchown(fd, int(st.Uid), int(st.Gid))
	}
	return nil
}

func (f *file) initialize(name string) error {
	db, err := f.open(name, false)
	if err != nil {
		return err
	}
	err = db.Update(func(tx *bolt.Tx) error {
		_, err := tx.CreateBucket(itemBucket)
		return err
	})
	return errors.Join(err, db.Close())
}

// check reads the whole file without changing it.
func (f *file) check() (err error) {
	var st unix.Stat_t
	if err := unix.Fstatat(int(f.dir.Fd()), f.name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFREG && st.Size < minSize { // the library would make a new store in an empty file
		return damage{fmt.Errorf("it has only %d bytes", st.Size)}
	}
	// The library panics when it finds a page that it does not expect, and reads a
	// part of the file that is missing through its mapping.
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if v := recover(); v != nil {
			err = damage{fmt.Errorf("%v", v)}
		}
	}()
	db, err := f.open(f.name, true)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	if err := f.checkHeads(db); err != nil {
		return damage{err}
	}
	return db.View(func(tx *bolt.Tx) error {
		if tx.Size() > st.Size {
			return damage{fmt.Errorf("it has %d bytes, and should have %d at least", st.Size, tx.Size())}
		}
		var first error
		for err := range tx.Check() {
			if first == nil {
				first = damage{err}
			}
		}
		switch {
		case first != nil:
			return first
		case tx.Bucket(itemBucket) == nil:
			return errors.New("it is no store of sixfour, or one of a newer version: name another path, or install that version; the file is as it was")
		}
		return tx.Bucket(itemBucket).ForEach(func(k, v []byte) error {
			if _, err := decode(string(k), v); err != nil {
				return damage{err}
			}
			return nil
		})
	})
}

// The first two pages of a file are heads: each has a page header, then a head whose last
// eight bytes are the FNV-1a hash of those before, in the byte order of the machine.
const (
	pageHeader = 16
	headSize   = 64
)

// minSize is the size of two pages.
const minSize = 2 * 4096

// checkHeads checks the two pages that say where the rest of the file is. The library uses the
// older one if the newer one is damaged, which would lose the last transaction.
func (f *file) checkHeads(db *bolt.DB) error {
	fd, err := unix.Openat(int(f.dir.Fd()), f.name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	for page := range 2 {
		var b [pageHeader + headSize]byte
		if _, err := unix.Pread(fd, b[:], int64(page*db.Info().PageSize)); err != nil {
			return err
		}
		head, hash := b[pageHeader:], fnv.New64a()
		hash.Write(head[:headSize-8])
		if hash.Sum64() != binary.NativeEndian.Uint64(head[headSize-8:]) {
			return fmt.Errorf("the checksum of page %d is wrong", page)
		}
	}
	return nil
}
