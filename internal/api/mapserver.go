package api

import (
	"net/netip"
	"time"
)

// MapServerStatus is the state of the LISP map server and map resolver of [lisp].
type MapServerStatus struct {
	Listeners  []MapServerListener `json:"listeners"`
	Store      string              `json:"store"`
	Error      string              `json:"error,omitempty"` // why registrations are refused
	Sites      int                 `json:"sites"`
	Registered int                 `json:"registered"` // sites with a prefix that is registered
	Prefixes   int                 `json:"prefixes"`   // that are registered
	Served     map[string]uint64   `json:"served"`     // messages, by what became of them
	Refused    map[string]uint64   `json:"refused"`    // messages, by reason
	// SiteList has at most 1000 sites: first those that have registered nothing.
	SiteList []MapServerSite `json:"site_list"`
}

// MapServerListener is an address at which a map server receives.
type MapServerListener struct {
	Address netip.AddrPort `json:"address"`
	Error   string         `json:"error,omitempty"` // why it is not open
}

// MapServerSite is the state of a site.
type MapServerSite struct {
	Name     string `json:"name"`
	Prefixes int    `json:"prefixes"` // that are registered
	// LastRegistered is when the last registration was accepted since the start, which came
	// From this address.
	LastRegistered *time.Time        `json:"last_registered,omitempty"`
	From           netip.AddrPort    `json:"from,omitzero"`
	Refused        map[string]uint64 `json:"refused,omitempty"` // registrations, by reason
}
