package leases

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"sixfour/internal/store"
)

// NewSecret returns a secret that cannot be guessed: 130 random bits as letters and digits.
func NewSecret() string { return rand.Text() }

// Add makes an account, and gives it a number. One without a type gets the first of Types.
func (b *Base) Add(ctx context.Context, a Account) (Account, error) {
	if a.Type == "" {
		a.Type = Types[0]
	}
	if err := errors.Join(checkName(a.Name), check(&a)); err != nil {
		return Account{}, err
	}
	a.Created = time.Now()
	err := b.commit(ctx, func() (txn store.Txn, err error) {
		if e := b.view.accounts[a.Name]; e != nil && e.versions.account != 0 {
			return txn, fmt.Errorf("there is an account %q already: choose another name, or remove that one first", a.Name)
		}
		if err := b.checkFixed(&entry{}, &a); err != nil {
			return txn, err
		}
		a.Number = b.view.next
		txn.If = []store.Condition{{Key: accountKey + a.Name}, {Key: stateKey, Version: b.view.state}}
		txn.Put = []store.Put{put(accountKey+a.Name, record(&a)), put(stateKey, stateRecord{a.Number + 1})}
		return txn, nil
	})
	return a, err
}

// Change changes an account by a function. It releases the account's lease if that is not what
// the account would get now: it has another fixed prefix. The name and the number stay.
func (b *Base) Change(ctx context.Context, name string, change func(*Account)) (a Account, err error) {
	err = b.commit(ctx, func() (txn store.Txn, err error) {
		e, err := b.existing(name)
		if err != nil {
			return txn, err
		}
		a = e.account
		change(&a)
		a.Name, a.Number = e.account.Name, e.account.Number
		if err := errors.Join(check(&a), b.checkFixed(e, &a)); err != nil {
			return txn, err
		}
		txn.If = []store.Condition{{Key: accountKey + name, Version: e.versions.account}}
		txn.Put = []store.Put{put(accountKey+name, record(&a))}
		if a.Fixed == e.account.Fixed {
			return txn, nil
		}
		txn.If = append(txn.If, store.Condition{Key: leaseKey + name, Version: e.versions.lease}, store.Condition{Key: stateKey, Version: b.view.state})
		txn.Put = append(txn.Put, put(stateKey, stateRecord{b.view.next}))
		if e.prefix.IsValid() && e.prefix != a.Fixed && (a.Fixed.IsValid() || !b.inPool(e.prefix)) {
			txn.Delete = []string{leaseKey + name}
		}
		return txn, nil
	})
	return a, err
}

// Remove removes an account with its lease. Its number is not used again.
func (b *Base) Remove(ctx context.Context, name string) error {
	return b.commit(ctx, func() (txn store.Txn, err error) {
		e, err := b.existing(name)
		if err != nil {
			return txn, err
		}
		txn.If = []store.Condition{{Key: accountKey + name, Version: e.versions.account}}
		txn.Delete = []string{accountKey + name, leaseKey + name, lastKey + name, holdKey + name}
		return txn, nil
	})
}

// Free ends the lease of an account: others can get its prefix.
func (b *Base) Free(ctx context.Context, name string) (l Lease, err error) {
	err = b.commit(ctx, func() (txn store.Txn, err error) {
		e, err := b.existing(name)
		switch {
		case err != nil:
			return txn, err
		case !e.prefix.IsValid():
			return txn, fmt.Errorf("account %q has no lease", name)
		}
		l = b.lease(e)
		txn.If = []store.Condition{{Key: leaseKey + name, Version: e.versions.lease}}
		txn.Delete = []string{leaseKey + name, lastKey + name}
		return txn, nil
	})
	return l, err
}

// Accounts calls each with all accounts, in the order of names, until it returns false.
func (b *Base) Accounts(each func(Account) bool) {
	b.mu.RLock()
	all := make([]Account, 0, len(b.view.numbers))
	for _, e := range b.view.accounts {
		if e.versions.account != 0 {
			all = append(all, e.account)
		}
	}
	b.mu.RUnlock()
	slices.SortFunc(all, func(x, y Account) int { return strings.Compare(x.Name, y.Name) })
	for _, a := range all {
		if !each(a) {
			return
		}
	}
}

// existing returns the entry of an account that exists. b.mu is held.
func (b *Base) existing(name string) (*entry, error) {
	if e := b.view.accounts[name]; e != nil && e.versions.account != 0 {
		return e, nil
	}
	return nil, fmt.Errorf("there is no account %q", name)
}

// Prefixes that an account can have, as lengths, and MTUs of tunnels.
const (
	minLength, maxLength = 16, 64
	minMTU, maxMTU       = 1280, 65535
)

// check returns what is wrong with an account.
func check(a *Account) error {
	switch l := a.Limits; {
	case !slices.Contains(Types, a.Type):
		return fmt.Errorf("the type is one of %s, not %q", strings.Join(Types, ", "), a.Type)
	case l.PrefixLength != 0 && (l.PrefixLength < minLength || l.PrefixLength > maxLength):
		return fmt.Errorf("the length of the shortest prefix is %d to %d, not %d", minLength, maxLength, l.PrefixLength)
	case l.MTU != 0 && (l.MTU < minMTU || l.MTU > maxMTU):
		return fmt.Errorf("the MTU is %d to %d bytes, not %d", minMTU, maxMTU, l.MTU)
	case a.Fixed == netip.Prefix{}:
		return nil
	case !a.Fixed.Addr().Is6() || a.Fixed.Addr().Is4In6() || a.Fixed.Bits() < minLength || a.Fixed.Bits() > maxLength:
		return fmt.Errorf("the prefix is one of IPv6 with a length of %d to %d, not %v", minLength, maxLength, a.Fixed)
	case a.Fixed != a.Fixed.Masked():
		return fmt.Errorf("the prefix has bits after its length: write %v", a.Fixed.Masked())
	}
	return nil
}

// checkFixed returns an error if the fixed prefix of an account overlaps what others have. e is
// the account's entry. b.mu is held.
func (b *Base) checkFixed(e *entry, a *Account) error {
	if !a.Fixed.IsValid() || a.Fixed == e.account.Fixed {
		return nil
	}
	b.view.unclaim(e)
	overlaps := b.view.used.overlaps(a.Fixed)
	b.view.claim(e)
	if overlaps {
		return fmt.Errorf("prefix %v overlaps a lease, the fixed prefix of another account, or [broker] endpoints: see sixfourctl broker lease list", a.Fixed)
	}
	return nil
}
