package store

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"sync"
	"syscall"
	"time"

	bolt "go.etcd.io/bbolt"
)

// Bolt is a store in a file of this machine. One process uses it at a time.
type Bolt struct {
	path string
	db   *bolt.DB

	mu       sync.Mutex // held during commits, and for what follows
	broken   error      // an error after which the file's content is not known
	watchers map[*watcher]struct{}
}

// itemBucket has the items, and as its sequence the revision of the map.
var itemBucket = []byte("items")

// A value in the file begins with its version and a checksum of key, version and value.
const valueHeader = 8 + 4

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func checksum(key string, version, value []byte) uint32 {
	sum := crc32.Update(0, castagnoli, []byte(key))
	return crc32.Update(crc32.Update(sum, castagnoli, version), castagnoli, value)
}

func encode(key string, version int64, value []byte) []byte {
	b := make([]byte, valueHeader, valueHeader+len(value))
	binary.BigEndian.PutUint64(b, uint64(version))
	binary.BigEndian.PutUint32(b[8:], checksum(key, b[:8], value))
	return append(b, value...)
}

// decode returns a copy of an item, which does not lie in the file.
func decode(key string, b []byte) (Item, error) {
	if len(b) < valueHeader || binary.BigEndian.Uint32(b[8:]) != checksum(key, b[:8], b[valueHeader:]) {
		return Item{}, fmt.Errorf("the checksum of %q is wrong", key)
	}
	return Item{key, append([]byte(nil), b[valueHeader:]...), int64(binary.BigEndian.Uint64(b))}, nil
}

// Load implements Store.
func (b *Bolt) Load(ctx context.Context, each func(Item)) (revision int64, err error) {
	err = b.db.View(func(tx *bolt.Tx) error {
		items := tx.Bucket(itemBucket)
		revision = int64(items.Sequence())
		return items.ForEach(func(k, v []byte) error {
			item, err := decode(string(k), v)
			if err == nil {
				each(item)
				err = ctx.Err()
			}
			return err
		})
	})
	if err != nil && ctx.Err() == nil {
		err = damaged(b.path, err)
	}
	return revision, err
}

// Commit implements Store.
func (b *Bolt) Commit(_ context.Context, t Txn) (revision int64, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.broken != nil {
		return 0, b.broken
	}
	changes := Changes{Delete: t.Delete}
	err = b.db.Update(func(tx *bolt.Tx) error {
		items := tx.Bucket(itemBucket)
		revision = int64(items.Sequence())
		for _, c := range t.If {
			var version int64
			if v := items.Get([]byte(c.Key)); len(v) >= valueHeader {
				version = int64(binary.BigEndian.Uint64(v))
			}
			if version != c.Version {
				return ErrConflict
			}
		}
		revision++
		for _, p := range t.Put {
			if err := items.Put([]byte(p.Key), encode(p.Key, revision, p.Value)); err != nil {
				return err
			}
			changes.Put = append(changes.Put, Item{p.Key, p.Value, revision})
		}
		for _, key := range t.Delete {
			if err := items.Delete([]byte(key)); err != nil {
				return err
			}
		}
		return items.SetSequence(uint64(revision))
	})
	if err != nil {
		return revision, b.explain(err)
	}
	changes.Revision = revision
	for w := range b.watchers {
		w.add(changes)
	}
	return revision, nil
}

// explain returns the error of a commit with what it means.
func (b *Bolt) explain(err error) error {
	var no syscall.Errno
	switch {
	case errors.Is(err, ErrConflict):
		return err
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT), errors.Is(err, syscall.EFBIG):
		return fmt.Errorf("store %s: %w (%w): free some on that file system; what is known already is served", b.path, ErrFull, err)
	case errors.As(err, &no): // the kernel may have dropped what fsync could not write
		b.broken = fmt.Errorf("store %s: %w: it could not be written (%w): check the disk, then restart sixfourd; what is known already is served", b.path, ErrAway, err)
		return b.broken
	}
	return fmt.Errorf("store %s: %w", b.path, err)
}

// Renew implements Store. A file has no other users.
func (b *Bolt) Renew(context.Context) (time.Duration, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return 0, b.broken
}

// Close implements Store.
func (b *Bolt) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.db.Close()
}

// watcher is a queue of changes for one Watch.
type watcher struct {
	mu    sync.Mutex
	queue []Changes
	ready chan struct{} // has a token if the queue may have changes
}

func (w *watcher) add(c Changes) {
	w.mu.Lock()
	w.queue = append(w.queue, c)
	w.mu.Unlock()
	select {
	case w.ready <- struct{}{}:
	default:
	}
}

func (w *watcher) take() []Changes {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := w.queue
	w.queue = nil
	return all
}

// Watch implements Store. Only changes after the call are known, so the channel is closed at
// once if there were others after the revision.
func (b *Bolt) Watch(ctx context.Context, after int64) <-chan Changes {
	out, w := make(chan Changes), &watcher{ready: make(chan struct{}, 1)}
	b.mu.Lock()
	defer b.mu.Unlock()
	var revision int64
	err := b.db.View(func(tx *bolt.Tx) error {
		revision = int64(tx.Bucket(itemBucket).Sequence())
		return nil
	})
	if err != nil || revision != after {
		close(out)
		return out
	}
	b.watchers[w] = struct{}{}
	go func() {
		defer close(out)
		defer b.forget(w)
		for {
			select {
			case <-ctx.Done():
				return
			case <-w.ready:
			}
			for _, c := range w.take() {
				select {
				case <-ctx.Done():
					return
				case out <- c:
				}
			}
		}
	}()
	return out
}

func (b *Bolt) forget(w *watcher) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.watchers, w)
}
