// Package etcd keeps the broker's store in etcd, for several servers together.
package etcd

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"

	"sixfour/internal/store"
)

// Config says where etcd is.
type Config struct {
	Endpoints []string // URLs
	// CA, Cert and Key are files: the authorities that sign for etcd ("": the system's), and our
	// certificate with its key ("": none).
	CA, Cert, Key string
	Prefix        string        // of all keys; "": DefaultPrefix
	TTL           time.Duration // of a session, in whole seconds; 0: DefaultTTL

	// Dial connects to an address of etcd; nil: as usual.
	Dial func(ctx context.Context, address string) (net.Conn, error)
}

// DefaultPrefix is what all keys begin with.
const DefaultPrefix = "/sixfour/broker/"

// DefaultTTL is how long a server may be cut off from etcd until others may consider its
// clients gone.
const DefaultTTL = 10 * time.Second

// Store is a store.Store in etcd.
type Store struct {
	client *clientv3.Client
	prefix string
	ttl    time.Duration

	mu      sync.Mutex
	session clientv3.LeaseID // 0: there is none
}

// Open connects to etcd. It does not wait until etcd answers.
func Open(c Config) (*Store, error) {
	if c.Prefix == "" {
		c.Prefix = DefaultPrefix
	}
	if c.TTL == 0 {
		c.TTL = DefaultTTL
	}
	secure, err := c.tls()
	if err != nil {
		return nil, fmt.Errorf("broker store: %w", err)
	}
	config := clientv3.Config{
		Endpoints: c.Endpoints, TLS: secure, Logger: zap.NewNop(),
		DialTimeout: c.TTL / 4, DialKeepAliveTime: 10 * time.Second, DialKeepAliveTimeout: c.TTL / 4, // 10 s is the least that gRPC allows
	}
	if c.Dial != nil {
		config.DialOptions = append(config.DialOptions, grpc.WithContextDialer(c.Dial))
	}
	client, err := clientv3.New(config)
	if err != nil {
		return nil, fmt.Errorf("broker store: %w: check [broker] store", err)
	}
	return &Store{client: client, prefix: c.Prefix, ttl: c.TTL}, nil
}

// tls returns how to connect to https; nil if no endpoint needs it.
func (c *Config) tls() (*tls.Config, error) {
	secure := false
	for _, e := range c.Endpoints {
		secure = secure || strings.HasPrefix(e, "https://")
	}
	if !secure {
		return nil, nil
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.CA != "" {
		pem, err := os.ReadFile(c.CA)
		if err != nil {
			return nil, fmt.Errorf("store_ca: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("store_ca: %s has no certificate in PEM", c.CA)
		}
	}
	if c.Cert != "" || c.Key != "" {
		pair, err := tls.LoadX509KeyPair(c.Cert, c.Key)
		if err != nil {
			return nil, fmt.Errorf("store_cert and store_key: %w", err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}

// pageSize is how many items one request reads.
const pageSize = 2000

// Load implements store.Store.
func (s *Store) Load(ctx context.Context, each func(store.Item)) (revision int64, err error) {
	from, end := s.prefix, clientv3.GetPrefixRangeEnd(s.prefix)
	for {
		options := []clientv3.OpOption{clientv3.WithRange(end), clientv3.WithLimit(pageSize), clientv3.WithRev(revision)}
		var r *clientv3.GetResponse
		err := s.try(ctx, func(ctx context.Context) (err error) {
			r, err = s.client.Get(ctx, from, options...)
			return err
		})
		if err != nil {
			return 0, err
		}
		if revision == 0 {
			revision = r.Header.Revision // further pages are of the same state of the map
		}
		for _, kv := range r.Kvs {
			each(s.item(kv))
		}
		if !r.More {
			return revision, nil
		}
		from = string(r.Kvs[len(r.Kvs)-1].Key) + "\x00"
	}
}

func (s *Store) item(kv *mvccpb.KeyValue) store.Item {
	return store.Item{Key: strings.TrimPrefix(string(kv.Key), s.prefix), Value: kv.Value, Version: kv.ModRevision}
}

// Commit implements store.Store.
func (s *Store) Commit(ctx context.Context, t store.Txn) (revision int64, err error) {
	var conditions []clientv3.Cmp
	var changes, look []clientv3.Op
	for _, c := range t.If {
		conditions = append(conditions, clientv3.Compare(clientv3.ModRevision(s.prefix+c.Key), "=", c.Version))
		look = append(look, clientv3.OpGet(s.prefix+c.Key, clientv3.WithKeysOnly()))
	}
	for _, p := range t.Put {
		var options []clientv3.OpOption
		if p.Session {
			id := s.current()
			if id == 0 {
				return 0, store.ErrNoSession
			}
			options = append(options, clientv3.WithLease(id))
		}
		changes = append(changes, clientv3.OpPut(s.prefix+p.Key, string(p.Value), options...))
	}
	for _, key := range t.Delete {
		changes = append(changes, clientv3.OpDelete(s.prefix+key))
	}
	var r *clientv3.TxnResponse
	err = s.try(ctx, func(ctx context.Context) (err error) {
		r, err = s.client.Txn(ctx).If(conditions...).Then(changes...).Else(look...).Commit()
		return err
	})
	switch {
	case err != nil:
		return 0, err
	case r.Succeeded:
		return r.Header.Revision, nil
	}
	for _, o := range r.Responses { // when what was expected has changed
		for _, kv := range o.GetResponseRange().GetKvs() {
			revision = max(revision, kv.ModRevision)
		}
	}
	return revision, store.ErrConflict
}

func (s *Store) current() clientv3.LeaseID {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.session
}

// Renew implements store.Store.
func (s *Store) Renew(ctx context.Context) (time.Duration, error) {
	id, ttl := s.current(), int64(0)
	err := s.try(ctx, func(ctx context.Context) error {
		if id == 0 {
			r, err := s.client.Grant(ctx, int64(s.ttl/time.Second))
			if err == nil {
				id, ttl = r.ID, r.TTL
			}
			return err
		}
		r, err := s.client.KeepAliveOnce(ctx, id)
		if err == nil {
			ttl = r.TTL
		}
		return err
	})
	if errors.Is(err, store.ErrNoSession) {
		id = 0
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.session = id
	return time.Duration(ttl) * time.Second, err
}

// try makes a request, again if it gets no answer: the next one goes to another member. A request
// that has changed the map without an answer is made twice then, and its conditions do not hold
// the second time.
func (s *Store) try(ctx context.Context, request func(context.Context) error) error {
	ctx = clientv3.WithRequireLeader(ctx)
	for {
		within, cancel := context.WithTimeout(ctx, s.ttl/10)
		err := request(within)
		late := within.Err() != nil
		cancel()
		if err == nil || !late || ctx.Err() != nil {
			return s.explain(err)
		}
	}
}

// explain returns the error of a request with what it means.
func (s *Store) explain(err error) error {
	endpoints := strings.Join(s.client.Endpoints(), ", ")
	switch {
	case err == nil:
		return nil
	case errors.Is(err, rpctypes.ErrLeaseNotFound):
		return store.ErrNoSession
	case errors.Is(err, rpctypes.ErrNoSpace):
		return fmt.Errorf("etcd at %s: %w (%w): compact and defragment it, then etcdctl alarm disarm", endpoints, store.ErrFull, err)
	case errors.Is(err, rpctypes.ErrPermissionDenied), errors.Is(err, rpctypes.ErrUserEmpty):
		return fmt.Errorf("etcd at %s: %w: %w: give the certificate's user the right to %s", endpoints, store.ErrAway, err, s.prefix)
	case errors.Is(err, context.Canceled):
		return err
	}
	return fmt.Errorf("etcd at %s: %w: %w", endpoints, store.ErrAway, err)
}

// closePatience limits how long Close waits for etcd.
const closePatience = 2 * time.Second

// Close implements store.Store. It ends the session, so that other servers need not wait until
// its time is over.
func (s *Store) Close() error {
	if id := s.current(); id != 0 {
		ctx, cancel := context.WithTimeout(context.Background(), closePatience)
		defer cancel()
		_, _ = s.client.Revoke(ctx, id) // otherwise it ends by itself
	}
	return s.client.Close()
}
