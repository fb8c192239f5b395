package broker

import (
	"maps"
	"slices"
	"strings"

	"sixfour/internal/api"
)

// Status returns the state of the broker. It takes the same time however many clients there are.
func (b *Broker) Status() *api.BrokerStatus {
	cfg := b.config()
	s := &api.BrokerStatus{Interface: cfg.Interface, Server: serverName(&cfg), Store: strings.Join(storeNames(&cfg), ","), Listeners: b.listeners.status()}
	base, err := b.Base()
	if err != nil {
		s.Error = err.Error()
	} else {
		s.Accounts, s.Leases, s.FreePrefixes = base.Sizes()
	}
	s.Clients, s.Refused = b.authority.counts()
	return s
}

// counts returns how many clients are attached, by protocol, and how many were refused, by
// protocol and reason.
func (a *Authority) counts() (clients map[string]int, refused []api.BrokerRefusals) {
	a.mu.Lock()
	clients = maps.Clone(a.protocol)
	a.mu.Unlock()
	r := &a.refusals
	r.mu.Lock()
	defer r.mu.Unlock()
	for of, n := range r.counts {
		refused = append(refused, api.BrokerRefusals{Protocol: of.protocol, Reason: string(of.reason), Count: n})
	}
	slices.SortFunc(refused, func(x, y api.BrokerRefusals) int {
		return strings.Compare(x.Protocol+" "+x.Reason, y.Protocol+" "+y.Reason)
	})
	return clients, refused
}

// Clients calls each with every client that is attached.
func (b *Broker) Clients(each func(api.BrokerClient)) {
	for _, c := range b.authority.all() {
		s := api.BrokerClient{Account: c.account, Protocol: c.protocol, Prefix: c.lease.Prefix, Outer: *c.outer.Load(), Since: c.since}
		s.Sent.Packets, s.Sent.Bytes = c.attached.Sent.Packets.Load(), c.attached.Sent.Bytes.Load()
		s.Received.Packets, s.Received.Bytes = c.attached.Got.Packets.Load(), c.attached.Got.Bytes.Load()
		each(s)
	}
}
