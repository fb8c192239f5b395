package nats

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"sixfour/internal/rig/rigtest"
)

// Clients reach each other through a server and behind NATs, whoever plays which role. Each pair
// has at least one role of this program.
func TestClients(t *testing.T) {
	for _, k := range []struct {
		server, a, b who
		natA, natB   string
	}{
		{ours, ours, ours, "port-restricted", "port-restricted"},
		{ours, ours, ours, "restricted", "symmetric"},
		{ours, ours, ours, "symmetric", "restricted"},
		{ours, ours, ours, "none", "symmetric"},
		{ours, theirs, theirs, "port-restricted", "restricted"},
		{theirs, ours, ours, "port-restricted", "restricted"},
		{theirs, ours, ours, "symmetric", "restricted"},
		{theirs, ours, theirs, "port-restricted", "port-restricted"},
		{ours, ours, theirs, "restricted", "restricted"},
		{ours, ours, theirs, "symmetric", "none"},
		{ours, theirs, ours, "port-restricted", "none"},
	} {
		t.Run(fmt.Sprintf("server %s, %s behind %s, %s behind %s", k.server, k.a, k.natA, k.b, k.natB), func(t *testing.T) {
			if k.natA == "symmetric" && k.b == theirs {
				return // miredo answers to the mapping for the server, which a symmetric NAT closes
			}
			t.Parallel()
			n := newInternet(t, k.natA, k.natB)
			n.server(k.server)
			a, b := n.client(k.a, n.a), n.client(k.b, n.b)
			n.reaches(n.a, b, "a reaches b")
			n.reaches(n.b, a, "b reaches a")
		})
		t.Run(fmt.Sprintf("server %s, %s behind %s, %s behind %s begins", k.server, k.a, k.natA, k.b, k.natB), func(t *testing.T) {
			t.Parallel()
			n := newInternet(t, k.natA, k.natB)
			n.server(k.server)
			a, b := n.client(k.a, n.a), n.client(k.b, n.b)
			n.reaches(n.b, a, "b reaches a")
			n.reaches(n.a, b, "a reaches b")
		})
	}
}

// A client and a native host reach each other through a relay, whoever begins.
func TestNative(t *testing.T) {
	for _, k := range []struct {
		server, relay, client who
		nat                   string
	}{
		{ours, ours, ours, "port-restricted"},
		{ours, ours, ours, "symmetric"},
		{ours, ours, ours, "restricted"},
		{ours, ours, theirs, "port-restricted"},
		{ours, theirs, ours, "port-restricted"},
		{theirs, ours, ours, "restricted"},
		{theirs, theirs, ours, "symmetric"},
		{theirs, ours, theirs, "port-restricted"},
		{ours, theirs, theirs, "none"},
	} {
		for _, first := range []string{"client", "native"} {
			t.Run(fmt.Sprintf("server %s, relay %s, %s behind %s, %s begins", k.server, k.relay, k.client, k.nat, first), func(t *testing.T) {
				t.Parallel()
				n := newInternet(t, k.nat, "none")
				n.server(k.server)
				n.relay(k.relay)
				a := n.client(k.client, n.a)
				if first == "native" {
					n.reaches(n.h, a, "the native host reaches the client")
				}
				n.reaches(n.a, native, "the client reaches the native host")
				n.reaches(n.h, a, "the native host reaches the client")
			})
		}
	}
}

// A server and a relay on one host, in one daemon. The server has a key: the second client,
// which has none, gets no address.
func TestRelayBesideServer(t *testing.T) {
	t.Parallel()
	n := newInternet(t, "port-restricted", "none")
	file := filepath.Join(t.TempDir(), "password")
	rigtest.Must(t, os.WriteFile(file, []byte("correct horse"), 0o600))
	key := fmt.Sprintf("user = \"lab\"\npassword_file = %q\n", file)
	const client = "role = \"client\"\nserver = \"198.51.100.120\"\n"
	n.daemon(n.b, "teredo", client)
	n.daemon(n.s, "teredo", "role = \"server\"\nbind = [\"198.51.100.120\", \"198.51.100.121\"]\n"+key+
		"[[tunnel]]\nname = \"six1\"\nmode = \"teredo\"\nrole = \"relay\"\nlocal = \"198.51.100.120\"\nprefix = [\"2001:db8:ff::/64\"]\n")
	n.route(n.i, "2001::/32", "2001:db8:1::2", "is")
	n.daemon(n.a, "teredo", client+key)
	a := n.address(n.a, "six0", "2001::/32")
	n.reaches(n.h, a, "the native host reaches the client")
	n.reaches(n.a, native, "the client reaches the native host")
	if a, ok := n.hasAddress(n.b, "six0", "2001::/32"); ok {
		t.Errorf("the client without a key has %v", a)
	}
}
