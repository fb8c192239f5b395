package leases

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"time"

	"sixfour/internal/store"
	"sixfour/transport/access"
)

// Base has all accounts and leases in memory. Its methods may be called concurrently; those
// without a context never wait for the store.
type Base struct {
	config   Config
	store    store.Store
	instance uint64 // of this process, in what the store has
	times    times
	requests chan *request
	events   events
	stop     context.CancelFunc // ends the goroutines
	stopped  <-chan struct{}    // closed by stop
	ended    sync.WaitGroup

	holds holds

	mu   sync.RWMutex
	view view
	news chan struct{} // closed at the next revision
	away error         // why the store does not answer; nil: it does

	reported time.Time // when it was last reported that a lease could not be stored
}

// times are the intervals at which the store is written without a request.
type times struct {
	last    time.Duration // until a new outer address is in the store
	alive   time.Duration // between records that this server is alive
	timeout time.Duration // of one request to the store
	again   time.Duration // until a store that did not answer is asked again
}

var defaultTimes = times{last: 10 * time.Second, alive: time.Minute, timeout: 3 * time.Second, again: 500 * time.Millisecond}

// Open reads the store. If the store does not answer, it tries again until ctx ends.
func Open(ctx context.Context, c Config) (*Base, error) { return open(ctx, c, defaultTimes) }

func open(ctx context.Context, c Config, t times) (*Base, error) {
	if c.MaxAccounts == 0 {
		c.MaxAccounts = DefaultMaxAccounts
	}
	if c.Silence == 0 {
		c.Silence = DefaultSilence
	}
	if c.Notify == nil {
		c.Notify = func(Event) {}
	}
	b := &Base{config: c, store: c.Store, instance: rand.Uint64() | 1, times: t, requests: make(chan *request), news: make(chan struct{})}
	b.events.wake, b.holds.wake = make(chan struct{}, 1), make(chan struct{}, 1)
	b.holds.session, b.holds.last = map[string]struct{}{}, map[string]struct{}{}
	for {
		err := b.load(ctx)
		switch {
		case err == nil:
			b.start()
			return b, nil
		case !errors.Is(err, store.ErrAway) && !errors.Is(err, store.ErrConflict):
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(t.again):
		}
	}
}

func (b *Base) start() {
	ctx, cancel := context.WithCancel(context.Background())
	b.stop, b.stopped = cancel, ctx.Done()
	b.ended.Go(func() { b.events.run(ctx, b.notify) })
	b.ended.Go(func() { b.watch(ctx) })
	b.ended.Go(func() { b.assign(ctx) })
	b.ended.Go(func() { b.keep(ctx) })
}

// notify delivers an event, unless a client that has moved is back already.
func (b *Base) notify(e Event) {
	if e.Kind == Moved {
		b.mu.RLock()
		entry := b.view.accounts[e.Account]
		back := entry != nil && entry.mine != nil
		b.mu.RUnlock()
		if back {
			return
		}
	}
	b.config.Notify(e)
}

// Close writes what is not yet written, and ends. It does not close the store, which must be
// closed soon: then other servers see that this one has no clients any more.
func (b *Base) Close() error {
	b.stop()
	b.ended.Wait()
	return b.finish()
}

// load reads the whole store, and makes the first records in one that is empty.
func (b *Base) load(ctx context.Context) error {
	v := newView()
	if b.config.Endpoints.IsValid() {
		v.used.insert(b.config.Endpoints)
	}
	var bad error
	items := 0
	revision, err := b.store.Load(ctx, func(i store.Item) {
		items++
		if err := v.apply(store.Changes{Put: []store.Item{i}}); err != nil && bad == nil {
			bad = err
		}
	})
	switch {
	case err != nil:
		return err
	case items == 0:
		txn := store.Txn{If: []store.Condition{{Key: formatKey}, {Key: stateKey}}, Put: []store.Put{put(formatKey, formatRecord{format}), put(stateKey, stateRecord{1})}}
		if _, err := b.store.Commit(ctx, txn); err != nil {
			return err
		}
		return b.load(ctx)
	case v.format > format:
		return fmt.Errorf("broker store: a newer sixfour has written it (format %d, and this one knows %d): install that version; nothing in it was changed", v.format, format)
	case v.format == 0:
		return errors.New("broker store: it has data, but not those of a broker: name another path, or another store_prefix")
	case bad != nil:
		return bad
	}
	v.revision = revision
	b.mu.Lock()
	defer b.mu.Unlock()
	b.replace(v)
	return nil
}

// replace takes a view that was read anew. What connected clients must know is reported.
// b.mu is held.
func (b *Base) replace(v view) {
	old := b.view
	b.view = v
	for name, was := range old.accounts {
		if was.mine == nil {
			continue
		}
		now := b.view.entry(name)
		now.mine = was.mine
		if was.account != now.account || was.prefix != now.prefix {
			b.events.add(Event{Kind: Changed, Account: name})
		}
		b.checkMoved(now)
	}
	b.tell()
}

// tell wakes those that wait for a revision. b.mu is held.
func (b *Base) tell() {
	close(b.news)
	b.news = make(chan struct{})
}

// watch follows the store.
func (b *Base) watch(ctx context.Context) {
	for ctx.Err() == nil {
		b.mu.RLock()
		revision := b.view.revision
		b.mu.RUnlock()
		for c := range b.store.Watch(ctx, revision) {
			b.apply(c)
		}
		for ctx.Err() == nil {
			err := b.load(ctx)
			if err == nil {
				break
			}
			b.failed(err)
			pause(ctx, b.times.again)
		}
	}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// apply takes over the changes of one transaction.
func (b *Base) apply(c store.Changes) {
	b.mu.Lock()
	defer b.mu.Unlock()
	type state struct {
		account Account
		prefix  netip.Prefix
	}
	before := map[*entry]state{} // of connected clients
	look := func(key string) {
		if e := b.view.known(key); e != nil && e.mine != nil {
			before[e] = state{e.account, e.prefix}
		}
	}
	for _, i := range c.Put {
		look(i.Key)
	}
	for _, key := range c.Delete {
		look(key)
	}
	if err := b.view.apply(c); err != nil {
		b.events.add(Event{Kind: Unreadable, Err: err})
	}
	for e, was := range before {
		if was != (state{e.account, e.prefix}) {
			b.events.add(Event{Kind: Changed, Account: e.name})
		}
		b.checkMoved(e)
	}
	b.tell()
}

// await returns when the view has a revision, or at the end of the context.
func (b *Base) await(ctx context.Context, revision int64) {
	for {
		b.mu.RLock()
		there, news := b.view.revision >= revision, b.news
		b.mu.RUnlock()
		if there {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-news:
		}
	}
}

// commit commits what plan returns, as often as another change comes first, and returns when
// it is in the view. plan is called with b.mu held.
func (b *Base) commit(ctx context.Context, plan func() (store.Txn, error)) error {
	ctx, cancel := context.WithTimeout(ctx, b.times.timeout)
	defer cancel()
	for {
		b.mu.Lock()
		away := b.away
		var txn store.Txn
		var err error
		if away == nil {
			txn, err = plan()
		}
		b.mu.Unlock()
		switch {
		case away != nil:
			return away
		case err != nil:
			return err
		case len(txn.Put)+len(txn.Delete) == 0:
			return nil
		}
		revision, err := b.store.Commit(ctx, txn)
		if errors.Is(err, store.ErrConflict) && ctx.Err() == nil {
			wait, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
			b.await(wait, revision)
			cancel()
			continue
		}
		if err == nil {
			b.await(ctx, revision)
		}
		return err
	}
}

// Account returns the account with a name. With Config.Open, one that is not known has an
// account without a secret and number, which Assign makes.
func (b *Base) Account(name string) (Account, bool) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	if e := b.view.accounts[name]; e != nil && e.versions.account != 0 {
		return e.account, true
	}
	if b.config.Open && checkName(name) == nil {
		return b.openAccount(name, 0), true
	}
	return Account{}, false
}

func (b *Base) openAccount(name string, number uint64) Account {
	return Account{Name: name, Number: number, Type: Types[0], Enabled: true, Created: time.Now()}
}

// At returns the account of the client whose end of the tunnel has an address.
func (b *Base) At(endpoint netip.Addr) (Account, bool) {
	number := b.number(endpoint)
	b.mu.RLock()
	defer b.mu.RUnlock()
	if e := b.view.numbers[number]; e != nil && number != 0 {
		return e.account, true
	}
	return Account{}, false
}

// Lease returns the lease of an account, if it has one.
func (b *Base) Lease(name string) (Lease, bool) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	e := b.view.accounts[name]
	if e == nil || !e.prefix.IsValid() {
		return Lease{}, false
	}
	return b.lease(e), true
}

// lease returns the lease of an entry. b.mu is held.
func (b *Base) lease(e *entry) Lease {
	l := Lease{Account: e.name, Number: e.account.Number, Prefix: e.prefix, Endpoint: b.Endpoint(e.account.Number), Granted: time.Unix(e.granted, 0)}
	switch {
	case e.mine != nil:
		l.Last = e.mine.Holding
	case e.holder != nil && (e.last == nil || e.last.Server != e.holder.Server || e.last.Since < e.holder.Since):
		l.Last = Holding{Server: e.holder.Server, Protocol: e.holder.Protocol, Outer: e.holder.Outer, Since: time.Unix(e.holder.Since, 0)}
	case e.last != nil:
		l.Last = Holding{Server: e.last.Server, Protocol: e.last.Protocol, Outer: e.last.Outer, Since: time.Unix(e.last.Since, 0)}
	}
	if e.mine == nil && e.holder == nil && e.last != nil {
		until := e.last.Until
		if until == 0 { // the server was killed
			until = max(e.last.Since, b.view.alive[e.last.Server])
		}
		l.Until = time.Unix(until, 0)
	}
	return l
}

// Leases calls each with all leases, in the order of prefixes, until it returns false.
func (b *Base) Leases(each func(Lease) bool) {
	b.mu.RLock()
	all := make([]Lease, 0, b.view.leases)
	for _, e := range b.view.accounts {
		if e.prefix.IsValid() {
			all = append(all, b.lease(e))
		}
	}
	b.mu.RUnlock()
	slices.SortFunc(all, func(x, y Lease) int { return x.Prefix.Compare(y.Prefix) })
	for _, l := range all {
		if !each(l) {
			return
		}
	}
}

// Sizes says how many accounts and leases there are, and how many leases are still free, at
// Config.PrefixLength.
func (b *Base) Sizes() (accounts, leases int, free uint64) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	for _, pool := range b.config.Pool {
		free += b.view.used.count(pool, b.config.PrefixLength)
	}
	return len(b.view.numbers), b.view.leases, free
}

// The last 64 bits of the two ends of a tunnel.
const (
	brokerEnd = 1
	clientEnd = 2
)

// Endpoint returns the ends of an account's tunnel; zero if its number is 0, or too large for
// Config.Endpoints.
func (b *Base) Endpoint(number uint64) access.Endpoint {
	within := 64 - b.config.Endpoints.Bits() // bits that the number may have
	if !b.config.Endpoints.IsValid() || number == 0 || within < 0 || within < 64 && number>>within != 0 {
		return access.Endpoint{}
	}
	a := b.config.Endpoints.Masked().Addr().As16()
	for i := range 8 {
		a[i] |= byte(number >> (56 - 8*i))
	}
	end := func(last byte) netip.Addr { a[15] = last; return netip.AddrFrom16(a) }
	return access.Endpoint{Broker: end(brokerEnd), Client: end(clientEnd)}
}

// number returns the number of the account whose client has an address; 0: none.
func (b *Base) number(endpoint netip.Addr) (number uint64) {
	if !b.config.Endpoints.IsValid() || !b.config.Endpoints.Contains(endpoint) {
		return 0
	}
	a, e := endpoint.As16(), b.config.Endpoints.Masked().Addr().As16()
	for i := range 8 {
		number = number<<8 | uint64(a[i]^e[i])
	}
	if b.Endpoint(number).Client != endpoint {
		return 0
	}
	return number
}
