package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"sixfour/internal/api"
	"sixfour/internal/session/heartbeat"
	"sixfour/internal/store/etcd/etcdtest"
)

// A client that moves between two servers with one etcd has the same prefix at both, which is
// routed to it at one of them only: the former one withdraws the route when the client has
// reached the other. An account that is made at one is known to the other.
func TestBrokerCluster(t *testing.T) {
	t.Parallel()
	c := etcdtest.New(t)
	urls, err := json.Marshal(c.Endpoints())
	must(t, err)
	var servers [2]*daemon
	for i := range servers {
		servers[i] = start(t, c.Host(i), fmt.Sprintf("[broker]\nname = \"server%d\"\nstore = %s\nstore_ca = %q\nstore_cert = %q\nstore_key = %q\npool = [\"2001:db8:100::/40\"]\nendpoints = \"2001:db8:ff::/48\"\n[[broker.listen]]\nprotocol = \"heartbeat\"\naddress = \"10.1.%[1]d.2\"\n", i, urls, c.CA, c.Cert, c.Key))
	}
	var account api.BrokerAccount
	for _, d := range servers {
		d.wait(t, "the broker serves clients")
	}
	must(t, json.Unmarshal([]byte(servers[0].control(t, "broker", "account", "add", "alice", "--type", "heartbeat", "--json")), &account))
	beat := func(to int) { // once, and no word to the former server
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		h := heartbeat.NewClient(heartbeat.ClientConfig{
			Server: func() (netip.AddrPort, bool) {
				return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 1, byte(to), 2}), 3740), true
			},
			Identity: netip.MustParseAddr("2001:db8:ff:1::2"), Secret: account.Password, Sender: true, Every: time.Hour,
		})
		go func() {
			defer close(done)
			_ = c.Hub().Do(func() error { h.Run(ctx); return nil })
		}()
		t.Cleanup(func() { cancel(); <-done })
	}
	const prefix = "2001:db8:100::/64"
	routed := func(at int) bool { return strings.Contains(routes(t, c.Host(at), "six0"), prefix) }
	for _, at := range []int{0, 1, 0} {
		beat(at)
		until(t, fmt.Sprintf("the prefix is routed at server %d", at), func() bool { return routed(at) })
		until(t, fmt.Sprintf("it is not routed at server %d", 1-at), func() bool { return !routed(1 - at) })
		var lease api.BrokerLease
		until(t, "the other server to know where the client is", func() bool {
			must(t, json.Unmarshal([]byte(servers[1-at].control(t, "broker", "lease", "show", "alice", "--json")), &lease))
			return lease.Connected && lease.Server == fmt.Sprint("server", at) && lease.Protocol == "heartbeat"
		})
	}
	servers[0].end(t, syscall.SIGTERM)
	until(t, "the client to be known as gone", func() bool {
		var lease api.BrokerLease
		must(t, json.Unmarshal([]byte(servers[1].control(t, "broker", "lease", "show", "alice", "--json")), &lease))
		return !lease.Connected
	})
}
