//go:build interop

package interop

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sixfour/encap/header"
	"sixfour/encap/heartbeat"
	"sixfour/internal/control/client"
	"sixfour/internal/leases"
	"sixfour/internal/rig"
	"sixfour/internal/store"
)

// beat sends a heartbeat from an address of the machine, each time from another port, as
// AICCU does.
func beat(t *testing.T, from string, port uint16, command heartbeat.Command, inner netip.Addr, secret string) {
	t.Helper()
	text := heartbeat.Append(nil, heartbeat.Message{Command: command, Inner: inner, Epoch: time.Now().Unix()}, secret, heartbeat.MD5)
	local, remote := netip.AddrPortFrom(netip.MustParseAddr(from), port), netip.MustParseAddrPort(ours+":3740")
	n := header.HeadersLen(local.Addr())
	packet := make([]byte, n+len(text))
	header.PutHeaders(packet, &header.Outer{From: local, At: remote, TTL: 64}) // UDP checksum 0: none
	copy(packet[n:], text)
	header.IPv4(packet).SetChecksum()
	raw(t, packet)
}

// TestHeartbeat: the kernel's sit device is the tunnel of a client of the broker. Its outer address
// is known by heartbeats, and moves by them.
//
//	2001:db8:1::2 ── sixfourd with [broker] ── tap0 ──┼── eth0 ── sit6to4, an account's endpoint and prefix
func TestHeartbeat(t *testing.T) {
	const secret = "91915d757a09bfc94d5028832d85cc0d"
	file := filepath.Join(t.TempDir(), "broker.db")
	lease := account(t, file, "alice", secret)
	prefix := lease.Prefix.Addr().Next()
	kernel(t, fmt.Sprintf(sit, ours, fmt.Sprintf("%v/64", lease.Endpoint.Client))+fmt.Sprintf(`
		ip link set sit6to4 mtu 1280
		ip addr add %v/128 dev sit6to4 nodad
		ip route add 2001:db8:1::/64 dev sit6to4
		ip addr add %s/24 dev eth0`, prefix, theirs2))
	inside := netip.MustParsePrefix("2001:db8:1::2/128")
	if err := lab.ns.AddAddr("lo", inside); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = lab.ns.DelAddr("lo", inside) })
	socket := sixfourd(t, lab.ns, fmt.Sprintf(`[broker]
		store = %q
		pool = ["2001:db8:100::/40"]
		endpoints = "2001:db8:ff::/48"
		[[broker.listen]]
		protocol = "heartbeat"
		address = %q`, file, ours))
	w := watch(t, protocol41)

	// Without a heartbeat, and with one that is not authentic, nothing comes back.
	answers := func(what string, want bool) {
		t.Helper()
		for deadline := time.Now().Add(time.Minute); ; {
			r, err := kernelEnd{lab.ns}.ping(t.Context(), inside.Addr(), rig.PingOptions{Count: 1, Size: 56, Timeout: time.Second})
			if err != nil {
				t.Fatal(err)
			}
			if got := r.Received == 1; got == want {
				report(t, "%s: answers %v", what, got)
				return
			} else if time.Now().After(deadline) || !want {
				t.Fatalf("%s: answers %v", what, got)
			}
		}
	}
	answers("before the first heartbeat", false)
	beat(t, theirs, 50000, heartbeat.Tunnel, lease.Endpoint.Client, "guess")
	answers("after a heartbeat with another password", false)

	beat(t, theirs, 50001, heartbeat.Tunnel, lease.Endpoint.Client, secret)
	answers("after the first heartbeat", true)
	exchange(t, kernelEnd{lab.ns}, daemonEnd{lab.ns}, inside.Addr(), "sit6to4", brief)
	exchange(t, daemonEnd{lab.ns}, kernelEnd{lab.ns}, prefix, "six0", brief)

	// The kernel's end moves to another address. Until the next heartbeat it gets nothing.
	run(t, "ip tunnel change sit6to4 mode sit local "+theirs2+" remote "+ours)
	answers("at another address", false)
	time.Sleep(time.Until(time.Now().Truncate(time.Second).Add(time.Second))) // a later time in the message
	beat(t, theirs2, 50002, heartbeat.Tunnel, lease.Endpoint.Client, secret)
	answers("after a heartbeat from there", true)
	s, err := client.Status(t.Context(), socket)
	if err != nil || s.Broker == nil || s.Broker.Clients["heartbeat"] != 1 {
		t.Errorf("status: %+v, %v", s.Broker, err)
	}
	exchange(t, daemonEnd{lab.ns}, kernelEnd{lab.ns}, lease.Endpoint.Client, "six0", brief)

	beat(t, theirs2, 50003, heartbeat.Disable, lease.Endpoint.Client, secret)
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		if s, err = client.Status(t.Context(), socket); err != nil || s.Broker.Clients["heartbeat"] == 0 {
			break
		} else if time.Now().After(deadline) {
			t.Fatalf("the client is still there: %+v", s.Broker)
		}
	}
	answers("after the client has left", false)
	if n := w.unreachable(); n > 0 {
		t.Errorf("%d ICMP errors for packets of strangers", n)
	}
}

// account adds an account to a store that no daemon uses, and gives it a lease.
func account(t *testing.T, file, name, secret string) leases.Lease {
	t.Helper()
	s, err := store.OpenBolt(file)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	b, err := leases.Open(t.Context(), leases.Config{
		Store: s, Server: "test", Pool: []netip.Prefix{netip.MustParsePrefix("2001:db8:100::/40")}, PrefixLength: 64, MaxPrefixLength: 64,
		Endpoints: netip.MustParsePrefix("2001:db8:ff::/48"), MTU: 1280,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if _, err = b.Add(t.Context(), leases.Account{Name: name, Secret: secret, Type: "heartbeat", Enabled: true}); err != nil {
		t.Fatal(err)
	}
	l, err := b.Assign(t.Context(), name, 0)
	if err != nil || !strings.Contains(l.Endpoint.Client.String(), "2001:db8:ff:") {
		t.Fatalf("%+v, %v", l, err)
	}
	return l
}
