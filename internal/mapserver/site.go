// Package mapserver is a map server and map resolver of LISP (RFC 9301 sections 8.2 to 8.4). It
// keeps the mappings that the routers of sites register, answers requests for them or forwards
// these to a router of the site, and says of all other prefixes that they have no mapping.
//
// Server has the protocol, without sockets and with the time as an argument; Service runs it.
package mapserver

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"github.com/gaissmai/bart"

	"sixfour/encap/lisp"
)

// Site is a site whose routers may register mappings.
type Site struct {
	Name string
	Key  []byte
	// EIDs are the prefixes in which it may register, which are not those of another site.
	EIDs []lisp.EID
	// AnyNonce accepts registrations whose nonces do not grow, as routers of RFC 6833 send
	// them. Then everybody who has seen a registration can send it again.
	AnyNonce bool
}

func (s *Site) equal(o *Site) bool {
	return s.Name == o.Name && bytes.Equal(s.Key, o.Key) && slices.Equal(s.EIDs, o.EIDs)
}

// Limits of what the routers of a site can make the server remember.
const (
	maxRouters  = 64
	maxPrefixes = 1000
	maxLocators = 32 // as many as data packets have status bits for (RFC 9300 section 5.3)
)

// site is a Site with what the server knows of it. Server.mu guards it.
type site struct {
	Site
	routers  map[identity]*router
	floor    uint64 // the greatest nonce of routers that were forgotten
	prefixes int    // that are registered
	refused  [reasons]uint64
	seen     time.Time // of the last registration that was accepted
	from     netip.AddrPort
}

// router is a router of a site that has registered.
type router struct {
	nonce uint64
	at    time.Time // of its last registration
}

// identity is what tells the routers of a site apart: the identifier in their registrations or,
// without one, a hash of their own locators. Only authenticated data is in it, so that a
// registration that is sent again has the identity that it had before.
type identity [17]byte

func identityOf(m *lisp.Registration) (id identity) {
	if m.Identified {
		id[0] = 1
		copy(id[1:], m.XTR[:])
		return id
	}
	var own []string
	for _, local := range []bool{true, false} { // without locators of its own: all
		for i := range m.Records {
			for _, l := range m.Records[i].Locators {
				if l.Flags&lisp.LocatorLocal != 0 || !local {
					own = append(own, l.Addr.String()+l.Other)
				}
			}
		}
		if len(own) > 0 {
			break
		}
	}
	slices.Sort(own)
	h := sha256.New()
	for _, a := range slices.Compact(own) {
		h.Write(append([]byte(a), 0))
	}
	copy(id[1:], h.Sum(nil))
	return id
}

func (id identity) String() string { return hex.EncodeToString(id[:]) }

// space is the address space of an instance.
type space struct {
	sites    bart.Table[*site]
	mappings bart.Table[*mapping]
}

// mapping is the registered mapping of a prefix.
type mapping struct {
	record lisp.Record
	proxy  bool // the server shall reply itself
	until  time.Time
	site   *site
}

// Reason is why a message was not served.
type Reason uint8

// Reasons.
const (
	Served      Reason = iota
	Malformed          // it cannot be parsed, or contradicts itself
	Unsupported        // another type of message, or authentication of LISP-SEC
	UnknownSite        // a registration outside the prefixes of all sites, or of more than one
	WrongKey           // its authentication data is wrong
	OldNonce           // a registration whose nonce is not greater than the last: it was sent before
	TooMany            // prefixes of a site, or locators of a prefix
	NotKept            // the nonce could not be stored
	Unreachable        // no address to which an answer may go
	TooLarge           // the answer is larger than the question, and the receiver has got too much of that
	Busy               // too many registrations wait
	reasons
)

var reasonNames = [reasons]string{"", "malformed", "unsupported", "unknown_site", "wrong_key", "old_nonce", "too_many", "not_kept", "unreachable", "too_large", "busy"}

// String returns the name in status and metrics.
func (r Reason) String() string { return reasonNames[r] }

// Count is the kind of a message that was served.
type Count uint8

// Kinds of messages.
const (
	Registered Count = iota
	Replied          // to requests, with the mapping
	Forwarded        // requests, to a router of the site
	NoMapping        // replies that there is no mapping
	counts
)

var countNames = [counts]string{"registered", "replied", "forwarded", "no_mapping"}

// String returns the name in status and metrics.
func (c Count) String() string { return countNames[c] }

type counters struct {
	served  [counts]atomic.Uint64
	refused [reasons]atomic.Uint64
}
