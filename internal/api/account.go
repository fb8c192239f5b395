package api

import (
	"net/netip"
	"time"
)

// BrokerDo is what a BrokerRequest asks for.
type BrokerDo string

// What can be done with accounts and leases, and the answer: a stream of values of one type.
const (
	AccountAdd     BrokerDo = "account add"     // one BrokerAccount, with its password
	AccountSet     BrokerDo = "account set"     // one BrokerAccount
	AccountShow    BrokerDo = "account show"    // one BrokerAccount
	AccountList    BrokerDo = "account list"    // BrokerAccounts
	AccountEnable  BrokerDo = "account enable"  // one BrokerAccount
	AccountDisable BrokerDo = "account disable" // one BrokerAccount
	AccountRemove  BrokerDo = "account remove"  // the BrokerAccount that was removed
	NewPassword    BrokerDo = "password"        // one BrokerPassword
	LeaseList      BrokerDo = "lease list"      // BrokerLeases
	LeaseShow      BrokerDo = "lease show"      // one BrokerLease
	LeaseRelease   BrokerDo = "lease release"   // the BrokerLease that was released
)

// BrokerRequest asks for accounts or leases of a broker, or changes them.
type BrokerRequest struct {
	Do      BrokerDo `json:"do"`
	Account string   `json:"account,omitempty"` // a name; lists take none
	// Password is the new one; "": one that nobody can guess is made.
	Password string `json:"password,omitempty"`
	// What AccountAdd and AccountSet set; nil: as it is, or the default.
	Type            *string `json:"type,omitempty"`
	Prefix          *string `json:"prefix,omitempty"` // always this one; "": one of the pool
	MaxPrefixLength *int    `json:"max_prefix_length,omitempty"`
	MTU             *int    `json:"mtu,omitempty"`
	Rate            *uint64 `json:"rate,omitempty"`
}

// BrokerAccount is an account of a broker, without its secret. 0 stands for the broker's own
// limit.
type BrokerAccount struct {
	Account         string       `json:"account"` // its name
	Password        string       `json:"password,omitempty"`
	Number          uint64       `json:"number"`
	Enabled         bool         `json:"enabled"`
	Open            bool         `json:"open"` // it has no password: anyone may use the name
	Type            string       `json:"type"`
	Prefix          netip.Prefix `json:"prefix,omitzero"`   // always this one
	Endpoint        netip.Addr   `json:"endpoint,omitzero"` // the client's address in the tunnel
	MaxPrefixLength int          `json:"max_prefix_length"`
	MTU             int          `json:"mtu"`
	Rate            uint64       `json:"rate"` // bits per second in each direction
	Created         time.Time    `json:"created"`
	Lease           *BrokerLease `json:"lease,omitempty"`
}

// BrokerPassword is a new password. The broker does not tell it again.
type BrokerPassword struct {
	Account  string `json:"account"`
	Password string `json:"password"`
}

// BrokerLease is what an account was given, and how its client was connected last.
type BrokerLease struct {
	Account   string         `json:"account"`
	Number    uint64         `json:"number"`
	Prefix    netip.Prefix   `json:"prefix"`
	Endpoint  netip.Addr     `json:"endpoint,omitzero"` // the client's address in the tunnel
	Granted   time.Time      `json:"granted"`
	Connected bool           `json:"connected"`
	Server    string         `json:"server,omitempty"`
	Protocol  string         `json:"protocol,omitempty"`
	Outer     netip.AddrPort `json:"outer,omitzero"`
	Since     time.Time      `json:"since,omitzero"`
	Until     time.Time      `json:"until,omitzero"` // when it left
}
