package leases

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"sixfour/internal/api"
)

// Serve carries out a request, and calls emit with each value of the answer.
func (b *Base) Serve(ctx context.Context, q api.BrokerRequest, emit func(any) error) error {
	lists := q.Do == api.AccountList || q.Do == api.LeaseList
	switch {
	case lists && q.Account != "":
		return fmt.Errorf("%s takes no account", q.Do)
	case !lists && q.Account == "":
		return fmt.Errorf("%s needs the name of an account", q.Do)
	}
	switch q.Do {
	case api.AccountList:
		return each(b.Accounts, func(a Account) error { return emit(b.describe(&a)) })
	case api.LeaseList:
		return each(b.Leases, func(l Lease) error { return emit(describe(&l)) })
	case api.LeaseShow:
		l, ok := b.Lease(q.Account)
		if !ok {
			return fmt.Errorf("account %q has no lease: it gets one when it connects for the first time", q.Account)
		}
		return emit(describe(&l))
	case api.LeaseRelease:
		l, err := b.Free(ctx, q.Account)
		if err != nil {
			return err
		}
		return emit(describe(&l))
	case api.NewPassword:
		secret, err := secretOf(&q)
		if err == nil {
			_, err = b.Change(ctx, q.Account, func(a *Account) { a.Secret = secret })
		}
		if err != nil {
			return err
		}
		return emit(api.BrokerPassword{Account: q.Account, Password: secret})
	}
	a, err := b.account(ctx, &q)
	if err != nil {
		return err
	}
	return emit(a)
}

// account carries out a request about one account.
func (b *Base) account(ctx context.Context, q *api.BrokerRequest) (answer api.BrokerAccount, err error) {
	var a Account
	switch q.Do {
	case api.AccountAdd:
		if a.Secret, err = secretOf(q); err == nil {
			a.Name, a.Enabled = q.Account, true
			err = set(&a, q)
		}
		if err == nil {
			a, err = b.Add(ctx, a)
		}
		answer = b.describe(&a)
		answer.Password = a.Secret
		return answer, err
	case api.AccountSet:
		if err = set(&a, q); err == nil { // what cannot be read is an error before anything is changed
			a, err = b.Change(ctx, q.Account, func(a *Account) { _ = set(a, q) })
		}
	case api.AccountEnable, api.AccountDisable:
		a, err = b.Change(ctx, q.Account, func(a *Account) { a.Enabled = q.Do == api.AccountEnable })
	case api.AccountShow, api.AccountRemove:
		a, err = b.stored(q.Account)
	default:
		return answer, fmt.Errorf("%q is not known: the daemon and sixfourctl have different versions", q.Do)
	}
	if err != nil {
		return answer, err
	}
	answer = b.describe(&a)
	if q.Do == api.AccountRemove {
		err = b.Remove(ctx, q.Account)
	}
	return answer, err
}

// stored returns an account that is in the store.
func (b *Base) stored(name string) (Account, error) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	e, err := b.existing(name)
	if err != nil {
		return Account{}, err
	}
	return e.account, nil
}

// maxSecret is how many bytes a secret may have: that of a line of TIC, with its command.
const maxSecret = 128

// secretOf returns the secret of a request, or makes one.
func secretOf(q *api.BrokerRequest) (string, error) {
	switch {
	case q.Password == "":
		return NewSecret(), nil
	case len(q.Password) > maxSecret:
		return "", fmt.Errorf("the password has %d bytes, and may have %d", len(q.Password), maxSecret)
	case strings.ContainsFunc(q.Password, func(r rune) bool { return r <= ' ' || r > '~' }):
		return "", errors.New("the password has a space, a control character or one that is not ASCII: not all protocols can carry that")
	}
	return q.Password, nil
}

// set sets what a request says of an account.
func set(a *Account, q *api.BrokerRequest) error {
	if q.Type != nil {
		a.Type = *q.Type
	}
	if q.Prefix != nil {
		a.Fixed = netip.Prefix{}
		if *q.Prefix != "" {
			p, err := netip.ParsePrefix(*q.Prefix)
			if err != nil {
				return fmt.Errorf("%q is no prefix, such as 2001:db8:1::/48", *q.Prefix)
			}
			a.Fixed = p
		}
	}
	if q.MaxPrefixLength != nil {
		a.Limits.PrefixLength = *q.MaxPrefixLength
	}
	if q.MTU != nil {
		a.Limits.MTU = *q.MTU
	}
	if q.Rate != nil {
		a.Limits.Rate = *q.Rate
	}
	return nil
}

// each calls visit with all that list has, until it fails.
func each[T any](list func(func(T) bool), visit func(T) error) (err error) {
	list(func(v T) bool {
		err = visit(v)
		return err == nil
	})
	return err
}

func (b *Base) describe(a *Account) api.BrokerAccount {
	answer := api.BrokerAccount{Account: a.Name, Number: a.Number, Enabled: a.Enabled, Open: a.Secret == "", Type: a.Type, Prefix: a.Fixed, Endpoint: b.Endpoint(a.Number).Client,
		MaxPrefixLength: a.Limits.PrefixLength, MTU: a.Limits.MTU, Rate: a.Limits.Rate, Created: a.Created.UTC().Truncate(time.Second)}
	if l, ok := b.Lease(a.Name); ok {
		lease := describe(&l)
		answer.Lease = &lease
	}
	return answer
}

func describe(l *Lease) api.BrokerLease {
	answer := api.BrokerLease{Account: l.Account, Number: l.Number, Prefix: l.Prefix, Endpoint: l.Endpoint.Client, Granted: l.Granted.UTC()}
	if l.Last != (Holding{}) {
		answer.Connected = l.Until.IsZero()
		answer.Server, answer.Protocol, answer.Outer, answer.Since = l.Last.Server, l.Last.Protocol, l.Last.Outer, l.Last.Since.UTC().Truncate(time.Second)
		if !answer.Connected {
			answer.Until = l.Until.UTC()
		}
	}
	return answer
}
