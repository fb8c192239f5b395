// Package etcd keeps the broker's store in etcd, for several servers together.
package etcd

import (
	"errors"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// Config says where etcd is.
type Config struct {
	Endpoints     []string // URLs
	CA, Cert, Key string   // files; "": the system's authorities, no certificate of ours
	Prefix        string   // of all keys; "": DefaultPrefix
	TTL           time.Duration
}

// DefaultPrefix is what all keys begin with.
const DefaultPrefix = "/sixfour/broker/"

// DefaultTTL is how long a server may be cut off from etcd until others may consider its
// clients gone.
const DefaultTTL = 10 * time.Second

// Store is a store.Store in etcd.
type Store struct{ client *clientv3.Client }

// Open connects to etcd. It does not wait until etcd answers.
func Open(c Config) (*Store, error) { return nil, errors.New("not written yet") }
