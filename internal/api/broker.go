package api

import (
	"net/netip"
	"time"
)

// BrokerStatus is the state of a broker.
type BrokerStatus struct {
	Interface    string           `json:"interface"`
	Server       string           `json:"server"` // name of this server among those with the same store
	Store        string           `json:"store"`
	Error        string           `json:"error,omitempty"` // why all clients are refused
	Accounts     int              `json:"accounts"`
	Leases       int              `json:"leases"`
	FreePrefixes uint64           `json:"free_prefixes"` // of the usual length, in the pool
	Clients      map[string]int   `json:"clients"`       // that are attached, by protocol
	Refused      []BrokerRefusals `json:"refused,omitempty"`
	Listeners    []BrokerListener `json:"listeners"`
}

// BrokerRefusals is how many clients of a protocol were refused for a reason.
type BrokerRefusals struct {
	Protocol string `json:"protocol"`
	Reason   string `json:"reason"`
	Count    uint64 `json:"count"`
}

// BrokerListener is the state of a listener of a broker.
type BrokerListener struct {
	Protocol string         `json:"protocol"`
	Address  netip.AddrPort `json:"address"`
	Error    string         `json:"error,omitempty"` // why it is not open
}

// BrokerClient is a client that is attached. Packets and bytes are inner ones.
type BrokerClient struct {
	Account  string         `json:"account"`
	Protocol string         `json:"protocol"`
	Prefix   netip.Prefix   `json:"prefix"`
	Outer    netip.AddrPort `json:"outer"`
	Since    time.Time      `json:"since"`
	Sent     BrokerTraffic  `json:"sent"`
	Received BrokerTraffic  `json:"received"`
}

// BrokerTraffic counts packets of a client.
type BrokerTraffic struct {
	Packets uint64 `json:"packets"`
	Bytes   uint64 `json:"bytes"`
}
