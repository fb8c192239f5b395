package leases

import (
	"net/netip"
	"strings"
	"time"

	"sixfour/internal/store"
)

// view is what the store has, in memory. It is changed only by what the store says (apply):
// after a commit, a caller waits until the view has it.
type view struct {
	accounts map[string]*entry
	numbers  map[uint64]*entry
	used     prefixes // leases and fixed prefixes
	next     uint64   // number of the next account
	state    int64    // version of stateKey
	format   int
	leases   int              // how many there are
	alive    map[string]int64 // when servers were alive last
	names    map[string]string
	revision int64
}

func newView() view {
	return view{accounts: map[string]*entry{}, numbers: map[uint64]*entry{}, next: 1, alive: map[string]int64{}, names: map[string]string{}}
}

// entry is all that is known under the name of an account.
type entry struct {
	name     string
	account  Account      // without one if versions.account is 0
	prefix   netip.Prefix // leased; the zero Prefix: none
	granted  int64
	inserted [2]bool // prefix and account.Fixed are in view.used
	last     *lastRecord
	holder   *holdRecord // the server that has the client; nil: none that shares the store
	mine     *mine       // this server has the client
	versions versions    // of the items; 0: there is none
}

type versions struct{ account, lease, last, hold int64 }

// mine is a client of this server.
type mine struct {
	Holding
	again bool  // the session has ended since: another server may have the client
	held  int64 // revision at which the store had it; 0: not yet
}

// intern returns a string that is equal to s, and shared by all entries.
func (v *view) intern(s string) string {
	if same, ok := v.names[s]; ok {
		return same
	}
	s = strings.Clone(s)
	v.names[s] = s
	return s
}

// entry returns the entry of a name, which is made if it is missing.
func (v *view) entry(name string) *entry {
	e := v.accounts[name]
	if e == nil {
		e = &entry{name: strings.Clone(name)}
		v.accounts[e.name] = e
	}
	return e
}

// claims are the prefixes that an entry needs.
func (e *entry) claims() [2]netip.Prefix {
	if e.account.Fixed == e.prefix {
		return [2]netip.Prefix{e.prefix}
	}
	return [2]netip.Prefix{e.prefix, e.account.Fixed}
}

func (v *view) unclaim(e *entry) {
	for i, p := range e.claims() {
		if e.inserted[i] {
			v.used.remove(p)
		}
		e.inserted[i] = false
	}
	if e.prefix.IsValid() {
		v.leases--
	}
}

func (v *view) claim(e *entry) {
	for i, p := range e.claims() {
		e.inserted[i] = p.IsValid() && v.used.insert(p)
	}
	if e.prefix.IsValid() {
		v.leases++
	}
}

// known returns the entry that a key belongs to; nil if it is not known.
func (v *view) known(key string) *entry {
	_, name, _ := strings.Cut(key, "/")
	return v.accounts[name]
}

// named returns the entry that a key belongs to, which is made if it is missing; nil if the key
// belongs to none.
func (v *view) named(key string) *entry {
	for _, kind := range []string{accountKey, leaseKey, lastKey, holdKey} {
		if name, ok := strings.CutPrefix(key, kind); ok {
			return v.entry(name)
		}
	}
	return nil
}

// apply makes the changes of one transaction. An item that cannot be read is left out, and
// the first error is returned.
func (v *view) apply(c store.Changes) (err error) {
	touched := map[*entry]struct{}{}
	touch := func(key string) {
		e := v.named(key)
		if _, ok := touched[e]; e != nil && !ok {
			touched[e] = struct{}{}
			v.unclaim(e)
		}
	}
	for _, i := range c.Put {
		touch(i.Key)
	}
	for _, key := range c.Delete {
		touch(key)
	}
	for _, i := range c.Put {
		if bad := v.put(i); bad != nil && err == nil {
			err = bad
		}
	}
	for _, key := range c.Delete {
		v.delete(key)
	}
	for e := range touched {
		v.claim(e)
	}
	v.revision = max(v.revision, c.Revision)
	return err
}

func (v *view) put(i store.Item) (err error) {
	kind, name, _ := strings.Cut(i.Key, "/")
	switch kind + "/" {
	case formatKey + "/":
		r := formatRecord{}
		err = decode(i, &r)
		v.format = r.Format
	case stateKey + "/":
		r := stateRecord{}
		err = decode(i, &r)
		v.next, v.state = max(r.Next, 1), i.Version
	case serverKey:
		r := serverRecord{}
		err = decode(i, &r)
		v.alive[v.intern(name)] = r.Alive
	case accountKey:
		r := accountRecord{}
		if err = decode(i, &r); err == nil {
			e := v.entry(name)
			r.Type = v.intern(r.Type)
			e.account, e.versions.account = r.account(e.name), i.Version
			v.numbers[r.Number] = e
		}
	case leaseKey:
		r := leaseRecord{}
		if err = decode(i, &r); err == nil {
			e := v.entry(name)
			e.prefix, e.granted, e.versions.lease = r.Prefix, r.Granted, i.Version
		}
	case lastKey:
		r := &lastRecord{}
		if err = decode(i, r); err == nil {
			r.Server, r.Protocol = v.intern(r.Server), v.intern(r.Protocol)
			e := v.entry(name)
			e.last, e.versions.last = r, i.Version
		}
	case holdKey:
		r := &holdRecord{}
		if err = decode(i, r); err == nil {
			r.Server, r.Protocol = v.intern(r.Server), v.intern(r.Protocol)
			e := v.entry(name)
			e.holder, e.versions.hold = r, i.Version
		}
	}
	return err
}

func (v *view) delete(key string) {
	kind, name, _ := strings.Cut(key, "/")
	e := v.accounts[name]
	if e == nil {
		return
	}
	switch kind + "/" {
	case accountKey:
		if v.numbers[e.account.Number] == e {
			delete(v.numbers, e.account.Number)
		}
		e.account, e.versions.account = Account{}, 0
	case leaseKey:
		e.prefix, e.versions.lease = netip.Prefix{}, 0
	case lastKey:
		e.last, e.versions.last = nil, 0
	case holdKey:
		if e.holder != nil && e.last != nil && e.last.Until == 0 && e.mine == nil { // the server has ended
			e.last.Until = time.Now().Unix()
		}
		e.holder, e.versions.hold = nil, 0
	}
	if e.versions == (versions{}) && e.mine == nil {
		delete(v.accounts, name)
	}
}
