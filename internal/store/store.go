// Package store keeps the broker's accounts and leases, and the registrations of the LISP map
// server: a map of keys and values that survives the process. Bolt is a file of one machine; package etcd is for several servers together.
//
// Each change of the map has a revision, a number that grows. The version of a key is the
// revision of its last change.
package store

import (
	"context"
	"errors"
	"time"
)

// Store is a map of keys and values. Its methods may be called concurrently.
type Store interface {
	// Load calls each with every item, in the order of keys, and returns the revision
	// of the map that it has read. The item's bytes are the callee's.
	Load(ctx context.Context, each func(Item)) (revision int64, err error)
	// Commit makes all changes of a transaction, or none. When it returns the transaction's
	// revision, the changes survive a crash. ErrConflict: a condition does not hold.
	// ErrFull: there is no room on the disk. ErrAway: the store does not answer; then
	// the changes may have been made all the same, as Watch shows.
	Commit(ctx context.Context, t Txn) (revision int64, err error)
	// Watch delivers the changes after a revision, those of one transaction together, in the
	// order of revisions. If it cannot, because the changes in between are not known any more,
	// the channel is closed before ctx ends: then Load shows what has become of the map.
	Watch(ctx context.Context, after int64) <-chan Changes
	// Renew extends the life of items with Txn.Session, and returns for how long, from the
	// moment of the call. ErrNoSession: their life has ended, and they are removed; the
	// next call begins a new session. It returns 0 if the store has no other users, and so
	// no use for such items.
	Renew(ctx context.Context) (time.Duration, error)
	// Close releases the store. Commits that run are completed.
	Close() error
}

// Item is one key with its value.
type Item struct {
	Key     string
	Value   []byte
	Version int64
}

// Txn is a transaction: if all conditions hold, all changes are made.
type Txn struct {
	If  []Condition
	Put []Put
	// Delete has keys. One that does not exist is no error.
	Delete []string
}

// MaxChanges is how many conditions, and how many puts and deletes together, a transaction
// can have.
const MaxChanges = 120

// Condition holds if a key has a version. 0: the key does not exist.
type Condition struct {
	Key     string
	Version int64
}

// Put is a value that a key gets.
type Put struct {
	Key   string
	Value []byte
	// Session removes the item when the process has not called Renew for too long.
	Session bool
}

// Changes are what one transaction has changed.
type Changes struct {
	Revision int64
	Put      []Item
	Delete   []string
}

// The errors of stores; others wrap them with what happened and what to do.
var (
	ErrConflict  = errors.New("another change came first")
	ErrFull      = errors.New("no space left for the store")
	ErrAway      = errors.New("the store does not answer")
	ErrNoSession = errors.New("the session with the store has ended")
)
