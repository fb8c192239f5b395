package leases

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"sixfour/internal/store"
	"sixfour/transport/access"
)

// maxBatch is how many leases one transaction grants.
const maxBatch = store.MaxChanges/2 - 1

// request is a client that waits for a lease.
type request struct {
	name string
	bits int
	done chan answer // has room for one
}

type answer struct {
	prefix netip.Prefix
	err    error
}

// Assign returns the lease of an account. One that has none gets its fixed prefix or the
// lowest free one with a length of bits (0: Config.PrefixLength), which is in the store before
// Assign returns. An account keeps its prefix, whatever length is asked for later. The error is
// an *access.Refusal.
func (b *Base) Assign(ctx context.Context, name string, bits int) (Lease, error) {
	b.mu.RLock()
	prefix, err := b.granted(name)
	away := b.away
	b.mu.RUnlock()
	switch {
	case err != nil:
		return Lease{}, err
	case !prefix.IsValid() && away != nil:
		return Lease{}, errUnavailable
	case !prefix.IsValid():
		if prefix, err = b.ask(ctx, name, bits); err != nil {
			return Lease{}, err
		}
	}
	b.mu.RLock()
	defer b.mu.RUnlock()
	if e := b.view.accounts[name]; e != nil && e.prefix == prefix {
		return b.lease(e), nil
	}
	return Lease{Account: name, Prefix: prefix, Granted: time.Now()}, nil
}

// errUnavailable does not say why: it is for strangers, too.
var errUnavailable = access.Refuse(access.Unavailable, "no new lease can be stored at the moment: try again later")

// ask puts a request into the queue, and waits for the answer.
func (b *Base) ask(ctx context.Context, name string, bits int) (netip.Prefix, error) {
	r := &request{name, bits, make(chan answer, 1)}
	stopped := access.Refuse(access.Stopping, "the server ends")
	select {
	case b.requests <- r:
	case <-ctx.Done():
		return netip.Prefix{}, errUnavailable
	case <-b.stopped:
		return netip.Prefix{}, stopped
	}
	select {
	case a := <-r.done:
		return a.prefix, a.err
	case <-ctx.Done():
		return netip.Prefix{}, errUnavailable
	case <-b.stopped:
		return netip.Prefix{}, stopped
	}
}

// assign answers requests: all that have come while one transaction was written are in the
// next one.
func (b *Base) assign(ctx context.Context) {
	for {
		var batch []*request
		select {
		case <-ctx.Done():
			return
		case r := <-b.requests:
			batch = append(batch, r)
		}
		for more := true; more && len(batch) < maxBatch; {
			select {
			case r := <-b.requests:
				batch = append(batch, r)
			default:
				more = false
			}
		}
		b.grant(ctx, batch)
	}
}

// grant answers requests with one transaction.
func (b *Base) grant(ctx context.Context, batch []*request) {
	var answers map[string]answer
	err := b.commit(ctx, func() (txn store.Txn, err error) {
		txn, answers = b.planLeases(batch)
		return txn, nil
	})
	b.outcome(err)
	for _, r := range batch {
		a := answers[r.name]
		if err != nil && a.err == nil {
			a = answer{err: errUnavailable}
		}
		r.done <- a
	}
}

// planLeases returns the transaction that grants leases, and the answers if it succeeds. It
// holds only if nothing else has used up a prefix in the meantime. b.mu is held.
func (b *Base) planLeases(batch []*request) (txn store.Txn, answers map[string]answer) {
	answers = make(map[string]answer, len(batch))
	p := plan{Base: b, next: b.view.next}
	for _, r := range batch {
		if _, ok := answers[r.name]; !ok {
			prefix, err := p.lease(r.name, r.bits)
			answers[r.name] = answer{prefix, err}
		}
	}
	for _, taken := range p.taken {
		b.view.used.remove(taken)
	}
	if len(p.txn.Put) > 0 {
		p.txn.If = append(p.txn.If, store.Condition{Key: stateKey, Version: b.view.state})
		p.txn.Put = append(p.txn.Put, put(stateKey, stateRecord{p.next}))
	}
	return p.txn, answers
}

// plan is a transaction that grants leases.
type plan struct {
	*Base
	txn   store.Txn
	next  uint64         // number of the next account
	taken []netip.Prefix // of the pool, marked as used until the plan is complete
}

// lease adds the lease of an account.
func (p *plan) lease(name string, bits int) (netip.Prefix, error) {
	prefix, err := p.granted(name)
	if err != nil || prefix.IsValid() {
		return prefix, err
	}
	e := p.view.accounts[name]
	if e == nil {
		e = &entry{}
	}
	account, version := e.account, e.versions.account
	if version == 0 {
		account = p.openAccount(name, p.next)
	}
	if prefix, err = p.choose(e, &account, bits); err != nil {
		return netip.Prefix{}, err
	}
	if version == 0 {
		p.next++
		p.txn.Put = append(p.txn.Put, put(accountKey+name, record(&account)))
	}
	p.txn.If = append(p.txn.If, store.Condition{Key: accountKey + name, Version: version})
	p.txn.Put = append(p.txn.Put, put(leaseKey+name, leaseRecord{prefix, time.Now().Unix()}))
	return prefix, nil
}

// choose returns a prefix for an account that has none.
func (p *plan) choose(e *entry, a *Account, bits int) (netip.Prefix, error) {
	switch {
	case a.Fixed.IsValid() && !e.inserted[1]:
		return netip.Prefix{}, access.Refuse(access.NoPrefix, "the fixed prefix %v overlaps another lease", a.Fixed)
	case a.Fixed.IsValid():
		return a.Fixed, nil
	case bits == 0:
		bits = p.config.PrefixLength
	}
	shortest := p.config.MaxPrefixLength
	if a.Limits.PrefixLength != 0 {
		shortest = a.Limits.PrefixLength
	}
	bits = min(max(bits, shortest), max(p.config.PrefixLength, 64))
	for _, pool := range p.config.Pool {
		if prefix, ok := p.view.used.lowest(pool, bits); ok {
			p.view.used.insert(prefix)
			p.taken = append(p.taken, prefix)
			return prefix, nil
		}
	}
	return netip.Prefix{}, access.Refuse(access.NoPrefix, "no /%d is left in the pool: %d leases are given", bits, p.view.leases)
}

// granted returns the prefix that an account has already; the zero Prefix: none yet. The error is
// that of an account that cannot have one. b.mu is held.
func (b *Base) granted(name string) (netip.Prefix, error) {
	e := b.view.accounts[name]
	known := e != nil && e.versions.account != 0
	switch bad := checkName(name); {
	case !known && !b.config.Open:
		return netip.Prefix{}, access.Refuse(access.UnknownAccount, "there is no such account")
	case !known && bad != nil:
		return netip.Prefix{}, access.Refuse(access.BadMessage, "%v", bad)
	case !known && len(b.view.numbers) >= b.config.MaxAccounts:
		return netip.Prefix{}, access.Refuse(access.NoPrefix, "this broker has %d accounts, and makes no more", len(b.view.numbers))
	case !known || !e.prefix.IsValid() && e.account.Enabled:
		return netip.Prefix{}, nil
	case !e.account.Enabled:
		return netip.Prefix{}, access.Refuse(access.Disabled, "the account is disabled")
	case e.prefix != e.account.Fixed && !b.inPool(e.prefix):
		return netip.Prefix{}, access.Refuse(access.NoPrefix, "the account's prefix %v is not in the pool any more: the operator must add it to [broker] pool, or release the lease", e.prefix)
	}
	return e.prefix, nil
}

func (b *Base) inPool(p netip.Prefix) bool {
	for _, pool := range b.config.Pool {
		if pool.Bits() <= p.Bits() && pool.Contains(p.Addr()) {
			return true
		}
	}
	return false
}

// outcome notes the outcome of a transaction that grants leases.
func (b *Base) outcome(err error) {
	if err == nil {
		return
	}
	b.mu.Lock()
	if now := time.Now(); now.Sub(b.reported) > time.Minute && !errors.Is(err, store.ErrAway) {
		b.reported = now
		b.events.add(Event{Kind: Failed, Err: err})
	}
	b.mu.Unlock()
	b.failed(err)
}

// failed notes that the store has failed. The loop of keep finds out when it answers again.
func (b *Base) failed(err error) {
	if !errors.Is(err, store.ErrAway) {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.away == nil {
		b.away = err
		b.events.add(Event{Kind: Away, Err: err})
		b.holds.poke()
	}
}
