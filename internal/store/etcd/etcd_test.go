package etcd_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"sixfour/internal/store"
	"sixfour/internal/store/etcd"
	"sixfour/internal/store/etcd/etcdtest"
)

func open(t *testing.T, c *etcdtest.Cluster, host int) *etcd.Store {
	t.Helper()
	s, err := etcd.Open(etcd.Config{Endpoints: c.Endpoints(), CA: c.CA, Cert: c.Cert, Key: c.Key, TTL: 2 * time.Second, Dial: c.Dial(host)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// try makes a transaction until the cluster answers.
func try(t *testing.T, s store.Store, txn store.Txn) (revision int64, err error) {
	t.Helper()
	etcdtest.Until(t, "a transaction", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		revision, err = s.Commit(ctx, txn)
		return !errors.Is(err, store.ErrAway)
	})
	return revision, err
}

func content(t *testing.T, s store.Store) string {
	t.Helper()
	var all []string
	if _, err := s.Load(t.Context(), func(i store.Item) { all = append(all, fmt.Sprintf("%s=%s", i.Key, i.Value)) }); err != nil {
		t.Fatal(err)
	}
	return strings.Join(all, " ")
}

// Transactions with conditions, the same for all hosts, and items that vanish with a session;
// then without one member, and without the majority.
func TestStore(t *testing.T) {
	c := etcdtest.New(t)
	a, b := open(t, c, 0), open(t, c, 1)
	put := func(key, value string) store.Put { return store.Put{Key: key, Value: []byte(value)} }
	first, err := try(t, a, store.Txn{Put: []store.Put{put("a", "1"), put("b/\x00\xff", "2")}})
	if err != nil {
		t.Fatal(err)
	}
	watch := b.Watch(t.Context(), first-1)
	if got := <-watch; got.Revision != first || len(got.Put) != 2 || got.Put[0].Key != "a" || got.Put[1].Version != first {
		t.Errorf("%+v", got)
	}
	txn := store.Txn{If: []store.Condition{{Key: "a", Version: first}, {Key: "c"}}, Put: []store.Put{put("a", "3"), put("c", "4")}, Delete: []string{"b/\x00\xff"}}
	second, err := b.Commit(t.Context(), txn)
	if err != nil {
		t.Fatal(err)
	}
	if got := <-watch; got.Revision != second || len(got.Put) != 2 || len(got.Delete) != 1 || got.Delete[0] != "b/\x00\xff" {
		t.Errorf("%+v", got)
	}
	if conflict, err := a.Commit(t.Context(), txn); !errors.Is(err, store.ErrConflict) || conflict != second {
		t.Errorf("%d, %v; want a conflict with %d", conflict, err, second)
	}

	// What belongs to a session ends with it.
	session := store.Txn{Put: []store.Put{{Key: "hold", Value: []byte("x"), Session: true}}}
	if _, err := a.Commit(t.Context(), session); !errors.Is(err, store.ErrNoSession) {
		t.Errorf("without a session: %v", err)
	}
	if ttl, err := a.Renew(t.Context()); ttl != 2*time.Second || err != nil {
		t.Errorf("%v, %v", ttl, err)
	}
	if _, err := a.Commit(t.Context(), session); err != nil {
		t.Error(err)
	}
	if got := content(t, b); got != "a=3 c=4 hold=x" {
		t.Error(got)
	}
	<-watch
	if got := <-watch; len(got.Delete) != 1 || got.Delete[0] != "hold" { // nobody has renewed it
		t.Errorf("%+v", got)
	}
	if _, err := a.Renew(t.Context()); !errors.Is(err, store.ErrNoSession) {
		t.Errorf("%v", err)
	}
	if ttl, err := a.Renew(t.Context()); ttl != 2*time.Second || err != nil {
		t.Errorf("%v, %v", ttl, err)
	}

	// One member less is none less; a host is told even if its watch was at a member that is cut off.
	c.Kill(0)
	c.CutMember(t, 1, true)
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	if _, err := a.Commit(ctx, store.Txn{Put: []store.Put{put("d", "5")}}); !errors.Is(err, store.ErrAway) {
		t.Errorf("with one of three members: %v", err)
	}
	cancel()
	c.CutMember(t, 1, false)
	if _, err := try(t, a, store.Txn{Put: []store.Put{put("e", "6")}}); err != nil {
		t.Error(err)
	}
	for got := range watch {
		if len(got.Put) == 1 && got.Put[0].Key == "e" {
			break
		}
	}
}

// Changes of which etcd has kept no record close the watch.
func TestMissing(t *testing.T) {
	c := etcdtest.New(t)
	s := open(t, c, 0)
	var last int64
	for i := range 5 {
		last, _ = try(t, s, store.Txn{Put: []store.Put{{Key: "a", Value: []byte{byte('0' + i)}}}})
	}
	if err := etcd.Compact(t.Context(), s, last); err != nil {
		t.Fatal(err)
	}
	if got, ok := <-s.Watch(t.Context(), 1); ok {
		t.Errorf("%+v", got)
	}
	if got := <-s.Watch(t.Context(), last-1); got.Revision != last {
		t.Errorf("%+v", got)
	}
}

func TestFiles(t *testing.T) {
	for _, c := range []struct {
		config etcd.Config
		want   string
	}{
		{etcd.Config{Endpoints: []string{"https://10.0.0.2:2379"}, CA: "/nothing"}, "store_ca: open /nothing"},
		{etcd.Config{Endpoints: []string{"https://10.0.0.2:2379"}, CA: "/dev/null"}, "no certificate in PEM"},
		{etcd.Config{Endpoints: []string{"https://10.0.0.2:2379"}, Cert: "/dev/null", Key: "/dev/null"}, "store_cert and store_key"},
	} {
		if _, err := etcd.Open(c.config); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v, want %q", err, c.want)
		}
	}
}
