package store

import (
	"context"
	"errors"
	"time"

	bolt "go.etcd.io/bbolt"
)

// Bolt is a store in a file of this machine. One process uses it at a time.
type Bolt struct{ db *bolt.DB }

// OpenBolt opens the file, which only its owner may read, and makes it if it is missing.
// The errors say what to do; a file that is damaged, or that a newer sixfour has written, is left
// as it is.
func OpenBolt(path string) (*Bolt, error) {
	return nil, errors.New("not written yet")
}

// Load implements Store.
func (b *Bolt) Load(ctx context.Context, each func(Item)) (int64, error) { return 0, ErrAway }

// Commit implements Store.
func (b *Bolt) Commit(ctx context.Context, t Txn) (int64, error) { return 0, ErrAway }

// Watch implements Store.
func (b *Bolt) Watch(ctx context.Context, after int64) <-chan Changes { return nil }

// Renew implements Store. There are no other users.
func (b *Bolt) Renew(context.Context) (time.Duration, error) { return 0, nil }

// Close implements Store.
func (b *Bolt) Close() error { return b.db.Close() }
