package leases

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"sixfour/internal/store"
)

// holds is what the store must yet be told about clients of this server. Base.mu guards it.
type holds struct {
	session map[string]struct{} // accounts whose holdKey is to be written or removed
	last    map[string]struct{} // accounts whose lastKey is to be written
	wake    chan struct{}       // has a token if there may be something to do at once
	shared  bool                // other servers use the store
	written int64               // revision of the last transaction
}

func (h *holds) poke() {
	select {
	case h.wake <- struct{}{}:
	default:
	}
}

// Hold says that this server serves the client of an account from now on. Other servers that
// did are told (Moved). It does not wait for the store.
func (b *Base) Hold(name, protocol string, outer netip.AddrPort) {
	b.mu.Lock()
	defer b.mu.Unlock()
	e := b.view.entry(name)
	e.mine = &mine{Holding: Holding{Server: b.config.Server, Protocol: b.view.intern(protocol), Outer: outer, Since: time.Now()}}
	b.dirty(e)
}

// dirty notes that who has the client of an entry must be written. b.mu is held.
func (b *Base) dirty(e *entry) {
	b.holds.last[e.name] = struct{}{}
	if b.holds.shared {
		b.holds.session[e.name] = struct{}{}
		b.holds.poke()
	}
}

// Move says that a client that this server holds has another outer address. What is in the store
// follows after a while.
func (b *Base) Move(name string, outer netip.AddrPort) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if e := b.view.accounts[name]; e != nil && e.mine != nil && e.mine.Outer != outer {
		e.mine.Outer = outer
		b.holds.last[e.name] = struct{}{}
	}
}

// Release says that this server does not serve the client of an account any more. It must not
// be called for a client that another one of this server, with a Hold of its own, has replaced.
func (b *Base) Release(name string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	e := b.view.accounts[name]
	if e == nil || e.mine == nil {
		return
	}
	b.release(e)
	b.dirty(e)
	if e.versions == (versions{}) {
		delete(b.view.accounts, name)
	}
}

// release ends that this server has a client. b.mu is held.
func (b *Base) release(e *entry) {
	m := e.mine
	e.mine = nil
	e.last = &lastRecord{Server: m.Server, Protocol: m.Protocol, Outer: m.Outer, Since: m.Since.Unix(), Until: time.Now().Unix()}
}

// checkMoved finds out whether another server has taken over a client of this one. b.mu is
// held.
func (b *Base) checkMoved(e *entry) {
	m := e.mine
	if m == nil || e.holder == nil || e.holder.Instance == b.instance {
		return
	}
	// Until the store has had our record, that of another server is older.
	if m.again || m.held != 0 && e.versions.hold > m.held {
		server := e.holder.Server
		e.mine = nil
		delete(b.holds.last, e.name)
		b.events.add(Event{Kind: Moved, Account: e.name, Server: server})
	}
}

// keep writes who has which client, and extends the session with the store.
func (b *Base) keep(ctx context.Context) {
	renew, last, alive := time.NewTimer(0), time.NewTicker(b.times.last), time.NewTicker(b.times.alive)
	defer renew.Stop()
	defer last.Stop()
	defer alive.Stop()
	var s session
	for {
		select {
		case <-ctx.Done():
			return
		case <-renew.C:
			renew.Reset(b.renew(ctx, &s))
		case <-last.C:
			b.writeLast(ctx)
		case <-alive.C:
			b.writeAlive(ctx)
		case <-b.holds.wake:
			if b.isAway() != nil {
				renew.Reset(b.times.again)
				continue
			}
			if errors.Is(b.writeHolds(ctx), store.ErrNoSession) {
				b.claimAgain()
				renew.Reset(0)
			}
		}
	}
}

func (b *Base) isAway() error {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.away
}

// session is how long other servers respect that this one has its clients. Times are
// monotonic.
type session struct {
	until   time.Time
	ttl     time.Duration
	doubted time.Time // when clients were last reported that may be elsewhere
}

// renew extends the session, and returns when it must be called again. While the session has
// ended, clients that are silent are reported again and again.
func (b *Base) renew(ctx context.Context, s *session) time.Duration {
	timeout := b.times.timeout
	if s.ttl != 0 {
		timeout = min(timeout, s.ttl/3)
	}
	within, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	now := time.Now()
	ttl, err := b.store.Renew(within)
	switch {
	case ctx.Err() != nil:
		return time.Hour
	case errors.Is(err, store.ErrNoSession):
		b.claimAgain()
		return 0
	case err != nil:
		b.failed(err)
		b.doubt(s)
		return b.times.again
	}
	s.until, s.ttl = now.Add(ttl), ttl
	b.answers(ttl != 0)
	if ttl == 0 {
		return b.times.alive
	}
	return ttl / 3
}

// doubt reports clients that may be elsewhere, because the session cannot be extended.
func (b *Base) doubt(s *session) {
	now := time.Now()
	if s.ttl == 0 { // nobody else uses the store, or no session has begun
		return
	}
	if now.After(s.until) {
		b.events.add(Event{Kind: Silent, Before: now.Add(-b.config.Silence)})
	}
	if now.Sub(s.doubted) > s.ttl/4 {
		s.doubted = now
		b.events.add(Event{Kind: Doubt, Before: now.Add(-b.config.Silence / 4)})
	}
}

// answers notes that the store answers.
func (b *Base) answers(shared bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.away != nil {
		b.away = nil
		b.events.add(Event{Kind: Back})
	}
	if shared && !b.holds.shared { // the first answer
		for name, e := range b.view.accounts {
			if e.mine != nil {
				b.holds.session[name] = struct{}{}
			}
		}
	}
	b.holds.shared = shared
	b.holds.poke()
}

// claimAgain writes anew which clients this server has, because the session has ended. Others
// may have them by now.
func (b *Base) claimAgain() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for name, e := range b.view.accounts {
		if e.mine != nil {
			e.mine.again = e.mine.again || e.mine.held != 0
			e.mine.held = 0
			b.holds.session[name] = struct{}{}
			b.checkMoved(e)
		}
	}
	b.holds.poke()
}

// maxHolds is how many records one transaction writes.
const maxHolds = store.MaxChanges / 2

// writeHolds writes which clients this server has, and has no more.
func (b *Base) writeHolds(ctx context.Context) error {
	for size := maxHolds; ; {
		b.mu.Lock()
		names := take(b.holds.session, size)
		written := b.holds.written
		b.mu.Unlock()
		if len(names) == 0 {
			return nil
		}
		err := b.writeSome(ctx, names, written)
		switch {
		case err == nil:
			continue
		case errors.Is(err, store.ErrConflict): // one of them has moved: find out which
			size = max(size/8, 1)
		}
		b.mu.Lock()
		for _, name := range names {
			b.holds.session[name] = struct{}{}
		}
		b.mu.Unlock()
		if !errors.Is(err, store.ErrConflict) {
			b.failed(err)
			return err
		}
	}
}

// take removes up to n names from a set.
func take(set map[string]struct{}, n int) (names []string) {
	for name := range set {
		if len(names) == n {
			break
		}
		names = append(names, name)
		delete(set, name)
	}
	return names
}

func (b *Base) writeSome(ctx context.Context, names []string, written int64) error {
	ctx, cancel := context.WithTimeout(ctx, b.times.timeout)
	defer cancel()
	b.await(ctx, written) // what is removed must be known
	var txn store.Txn
	put := map[string]*mine{}
	b.mu.Lock()
	for _, name := range names {
		e := b.view.accounts[name]
		if e == nil {
			continue
		}
		key := holdKey + name
		b.checkMoved(e)
		switch {
		case e.mine != nil:
			put[name] = e.mine
			r := holdRecord{b.config.Server, b.instance, e.mine.Protocol, e.mine.Outer, e.mine.Since.Unix()}
			txn.Put = append(txn.Put, store.Put{Key: key, Value: encode(r), Session: true})
			if e.mine.again {
				txn.If = append(txn.If, store.Condition{Key: key, Version: e.versions.hold})
			}
		case e.holder != nil && e.holder.Instance == b.instance:
			txn.Delete = append(txn.Delete, key)
			txn.If = append(txn.If, store.Condition{Key: key, Version: e.versions.hold})
		}
	}
	b.mu.Unlock()
	if len(txn.Put)+len(txn.Delete) == 0 {
		return nil
	}
	revision, err := b.store.Commit(ctx, txn)
	if errors.Is(err, store.ErrConflict) {
		wait, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
		defer cancel()
		b.await(wait, revision)
	}
	if err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.holds.written = revision
	for name, m := range put {
		m.again, m.held = false, revision
		if e := b.view.accounts[name]; e != nil && e.mine == m {
			b.checkMoved(e)
		}
	}
	return nil
}

// writeLast writes which clients this server has, or had last, and where they were.
func (b *Base) writeLast(ctx context.Context) {
	for size := maxHolds; ; {
		b.mu.Lock()
		names := take(b.holds.last, size)
		var txn store.Txn
		for _, name := range names {
			e := b.view.accounts[name]
			if e == nil || e.versions.account == 0 {
				continue
			}
			r := e.last
			if m := e.mine; m != nil {
				r = &lastRecord{Server: m.Server, Protocol: m.Protocol, Outer: m.Outer, Since: m.Since.Unix()}
			}
			if r != nil {
				txn.If = append(txn.If, store.Condition{Key: accountKey + name, Version: e.versions.account})
				txn.Put = append(txn.Put, put(lastKey+name, r))
			}
		}
		b.mu.Unlock()
		switch {
		case len(names) == 0:
			return
		case len(txn.Put) == 0:
			continue
		}
		within, cancel := context.WithTimeout(ctx, b.times.timeout)
		_, err := b.store.Commit(within, txn)
		cancel()
		if err == nil {
			continue
		}
		b.mu.Lock()
		if !errors.Is(err, store.ErrConflict) || size > 1 { // alone, a conflict means that the account has changed
			for _, name := range names {
				b.holds.last[name] = struct{}{}
			}
		}
		b.mu.Unlock()
		if !errors.Is(err, store.ErrConflict) {
			b.failed(err)
			return
		}
		size = max(size/8, 1)
	}
}

// writeAlive writes until when clients of this server were served, if it is killed.
func (b *Base) writeAlive(ctx context.Context) {
	if b.config.Server == "" {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, b.times.timeout)
	defer cancel()
	if _, err := b.store.Commit(ctx, store.Txn{Put: []store.Put{put(serverKey+b.config.Server, serverRecord{time.Now().Unix()})}}); err != nil {
		b.failed(err)
	}
}

// finish writes what there is to write before the end. Records in the session vanish with it.
func (b *Base) finish() error {
	if err := b.isAway(); err != nil {
		return err
	}
	b.writeLast(context.Background())
	b.writeAlive(context.Background())
	return b.isAway()
}
