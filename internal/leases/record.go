package leases

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"
	"unicode/utf8"

	"sixfour/internal/store"
)

// The keys of the store. Those that end in "/" are followed by a name: of an account, or of
// a server.
const (
	formatKey  = "format"   // formatRecord
	stateKey   = "state"    // stateRecord: changed by each transaction that uses up a number or prefix
	accountKey = "account/" // accountRecord
	leaseKey   = "lease/"   // leaseRecord
	lastKey    = "last/"    // lastRecord
	holdKey    = "hold/"    // holdRecord: in the session of the server that has the client
	serverKey  = "server/"  // serverRecord
)

// format is the version of the records. A program refuses a store with a newer one.
const format = 1

type formatRecord struct {
	Format int `json:"format"`
}

type stateRecord struct {
	Next uint64 `json:"next"` // number of the next account
}

type accountRecord struct {
	Number       uint64       `json:"number"`
	Secret       string       `json:"secret,omitempty"`
	Type         string       `json:"type"`
	Disabled     bool         `json:"disabled,omitempty"`
	Fixed        netip.Prefix `json:"prefix,omitzero"`
	PrefixLength int          `json:"max_prefix_length,omitempty"`
	MTU          int          `json:"mtu,omitempty"`
	Rate         uint64       `json:"rate,omitempty"`
	Created      int64        `json:"created"`
}

type leaseRecord struct {
	Prefix  netip.Prefix `json:"prefix"`
	Granted int64        `json:"granted"`
}

type lastRecord struct {
	Server   string         `json:"server"`
	Protocol string         `json:"protocol"`
	Outer    netip.AddrPort `json:"outer"`
	Since    int64          `json:"since"`
	Until    int64          `json:"until,omitempty"`
}

type holdRecord struct {
	Server   string `json:"server"`
	Instance uint64 `json:"instance"` // of the process
	// How the client came; lastRecord has where it went since.
	Protocol string         `json:"protocol"`
	Outer    netip.AddrPort `json:"outer"`
	Since    int64          `json:"since"`
}

type serverRecord struct {
	Alive int64 `json:"alive"`
}

func encode(record any) []byte {
	b, err := json.Marshal(record)
	if err != nil {
		panic(err) // all fields are plain values
	}
	return b
}

func decode(i store.Item, record any) error {
	if err := json.Unmarshal(i.Value, record); err != nil {
		return fmt.Errorf("broker store: %q is not what sixfour writes: %w", i.Key, err)
	}
	return nil
}

func put(key string, record any) store.Put { return store.Put{Key: key, Value: encode(record)} }

func record(a *Account) accountRecord {
	return accountRecord{Number: a.Number, Secret: a.Secret, Type: a.Type, Disabled: !a.Enabled, Fixed: a.Fixed,
		PrefixLength: a.Limits.PrefixLength, MTU: a.Limits.MTU, Rate: a.Limits.Rate, Created: a.Created.Unix()}
}

func (r *accountRecord) account(name string) Account {
	return Account{Name: name, Number: r.Number, Secret: r.Secret, Type: r.Type, Enabled: !r.Disabled, Fixed: r.Fixed,
		Limits: Limits{PrefixLength: r.PrefixLength, MTU: r.MTU, Rate: r.Rate}, Created: time.Unix(r.Created, 0)}
}

// checkName returns why an account cannot have a name.
func checkName(name string) error {
	switch {
	case name == "":
		return errors.New("a name is empty")
	case len(name) > MaxName:
		return fmt.Errorf("a name has at most %d bytes, and this one has %d", MaxName, len(name))
	case !utf8.ValidString(name) || strings.ContainsRune(name, 0):
		return errors.New("a name is text in UTF-8")
	}
	return nil
}
