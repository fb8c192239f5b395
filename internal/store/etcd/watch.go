package etcd

import (
	"context"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"sixfour/internal/store"
)

// watchPatience is the pause before a watch that has failed is begun again.
const watchPatience = 100 * time.Millisecond

// Watch implements store.Store.
func (s *Store) Watch(ctx context.Context, after int64) <-chan store.Changes {
	out := make(chan store.Changes)
	go func() {
		defer close(out)
		for ctx.Err() == nil {
			var compacted bool
			if after, compacted = s.follow(ctx, after, out); compacted {
				return
			}
			select {
			case <-ctx.Done():
			case <-time.After(watchPatience):
			}
		}
	}()
	return out
}

// follow delivers changes until the watch fails. It returns the last revision that was
// delivered, and whether the next one is not known any more.
func (s *Store) follow(ctx context.Context, after int64, out chan<- store.Changes) (last int64, compacted bool) {
	// A member that is cut off from the others ends the watch, instead of delivering nothing.
	ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
	defer cancel()
	watch := s.client.Watch(ctx, s.prefix, clientv3.WithPrefix(), clientv3.WithRev(after+1))
	// A member that we are cut off from is left, too: it is asked now and then.
	ask, asked := time.NewTicker(s.ttl/4), false
	defer ask.Stop()
	for {
		select {
		case <-ask.C:
			if asked || s.client.RequestProgress(ctx) != nil {
				return after, false
			}
			asked = true
		case r, ok := <-watch:
			asked = false
			if r.CompactRevision != 0 {
				return after, true
			}
			if !ok || r.Err() != nil {
				return after, false
			}
			for _, c := range s.changes(r.Events) {
				select {
				case <-ctx.Done():
					return after, false
				case out <- c:
					after = c.Revision
				}
			}
		}
	}
}

// changes divides events into those of each transaction, which follow each other.
func (s *Store) changes(events []*clientv3.Event) (all []store.Changes) {
	for _, e := range events {
		if n := len(all); n == 0 || all[n-1].Revision != e.Kv.ModRevision {
			all = append(all, store.Changes{Revision: e.Kv.ModRevision})
		}
		c := &all[len(all)-1]
		if e.Type == clientv3.EventTypeDelete {
			c.Delete = append(c.Delete, s.item(e.Kv).Key)
		} else {
			c.Put = append(c.Put, s.item(e.Kv))
		}
	}
	return all
}
