package e2e

import (
	"fmt"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"

	"sixfour/internal/api"
	"sixfour/internal/control/client"
	"sixfour/internal/rig"
)

// brokerClient is a tunnel of a client of the broker, by the way of one host behind the server.
type brokerClient struct {
	mode  string
	lines string
	host  netip.Addr // at the router
}

// sessions waits until the sessions of all tunnels are up.
func (d *daemon) sessions(t *testing.T) map[string]api.TunnelStatus {
	t.Helper()
	all := map[string]api.TunnelStatus{}
	eventually(t, "all sessions are up", func() error {
		s, err := client.Status(t.Context(), d.socket)
		if err != nil {
			return err
		}
		for _, one := range s.Tunnels {
			if all[one.Name] = one; one.Session == nil || one.Session.State != api.SessionUp || one.State.Phase != api.Up {
				return fmt.Errorf("%s: %+v, %+v", one.Name, one.Session, one.State)
			}
		}
		return nil
	})
	return all
}

// Clients of all protocols on one daemon reach hosts behind the broker: at first, after the
// address of their host has changed, and after the server was killed and is there again.
func TestBrokerClients(t *testing.T) {
	t.Parallel()
	n := newBrokered(t)
	const secret = "0123456789abcdef0123456789abcdef"
	password := secretFile(t, secret)
	var clients []brokerClient
	file := ""
	for i, mode := range []string{"json", "ayiya", "heartbeat", "tsp"} {
		lease := n.account(t, "account-"+mode, secret)
		c := brokerClient{mode: mode, host: netip.MustParseAddr(fmt.Sprintf("2001:db8:1::%x", 0x10+i))}
		must(t, n.router.AddAddr("down", netip.PrefixFrom(c.host, 64)))
		switch mode {
		case "json":
			c.lines = fmt.Sprintf("id = \"account-json\"\nsecret_file = %q\n", password)
		case "tsp":
			c.lines = fmt.Sprintf("user = \"account-tsp\"\npassword_file = %q\nwant = \"v6udpv4\"\nkeepalive = \"1s\"\n", password)
		default:
			c.lines = fmt.Sprintf("identity = \"%v\"\npassword_file = %q\nkeepalive = \"1s\"\n", lease.Endpoint.Client, password)
		}
		clients = append(clients, c)
		file += fmt.Sprintf("[[tunnel]]\nname = \"%s\"\nmode = \"%s\"\nserver = \"203.0.113.10\"\nroutes = [\"%v/128\"]\n%s", c.mode, c.mode, c.host, c.lines)
	}
	config := n.config("", "json", "ayiya", "heartbeat", "tsp")
	server := start(t, n.server, config)
	a := start(t, n.client, file)
	check := func() {
		t.Helper()
		a.sessions(t)
		for _, c := range clients {
			reachable(t, n.client, c.host)
		}
	}
	check()
	for _, c := range clients {
		pings(t, n.client, c.host, rig.PingOptions{Size: 1000})
	}
	must(t, n.client.AddAddr("vb", netip.MustParsePrefix("203.0.113.77/23")))
	must(t, n.client.DelAddr("vb", netip.MustParsePrefix("203.0.113.20/24")))
	check()
	must(t, server.cmd.Process.Signal(syscall.SIGKILL))
	server.exit(t)
	start(t, n.server, config)
	check()
	for _, c := range clients {
		pings(t, n.client, c.host, rig.PingOptions{})
	}
	if shown := a.control(t, "status", "json"); !strings.Contains(shown, "granted    2001:db8:1") {
		t.Errorf("sixfourctl status shows\n%s", shown)
	}
}

// A client of TIC learns from the broker, inside TLS, that its tunnel is 6in4 with heartbeats, and
// keeps it while the broker is away. Refusals are in words, for TIC and for JSON.
func TestBrokerTIC(t *testing.T) {
	t.Parallel()
	n := newBrokered(t)
	const secret = "0123456789abcdef0123456789abcdef"
	cert, err := rig.NewCertificate("broker.test")
	must(t, err)
	password := secretFile(t, "fedcba9876543210fedcba9876543210")
	chain, key, ca, hosts := secretFile(t, string(cert.Cert)), secretFile(t, string(cert.Key)), secretFile(t, string(cert.CA)), secretFile(t, "203.0.113.10 broker.test\n")
	must(t, os.Chmod(hosts, 0o644))
	lease := n.account(t, "anna", secret)
	config := n.config("", "heartbeat")
	for _, p := range []string{"tic", "json"} {
		config += fmt.Sprintf("[[broker.listen]]\nprotocol = %q\naddress = \"203.0.113.10\"\ntls_certificate = %q\ntls_key = %q\n", p, chain, key)
	}
	server := start(t, n.server, config)
	file := fmt.Sprintf("[[tunnel]]\nname = \"six0\"\nmode = \"tic\"\nserver = \"broker.test\"\nuser = \"anna\"\npassword_file = %q\nstarttls = \"require\"\nca = %q\nkeepalive = \"1s\"\n", password, ca)
	a := launchWith(t, n.client, file+fmt.Sprintf("[[tunnel]]\nname = \"six1\"\nmode = \"json\"\nserver = \"broker.test\"\nid = \"anna\"\nsecret_file = %q\ntls = \"on\"\nca = %q\n", password, ca), map[string]string{"/etc/hosts": hosts})
	a.wait(t, "ready")
	a.session(t, api.SessionRetrying, "password")
	eventually(t, "JSON is refused", func() error {
		s, err := client.Status(t.Context(), a.socket)
		if err != nil || s.Tunnels[1].Session.State != api.SessionRetrying || !strings.Contains(s.Tunnels[1].Session.Error, "the secret is wrong") {
			return fmt.Errorf("%+v, %v", s.Tunnels[1].Session, err)
		}
		return nil
	})
	must(t, os.WriteFile(password, []byte(secret), 0o600))
	a.mustReload(t, file)
	check := func() {
		t.Helper()
		s := a.sessions(t)["six0"].Session
		if s.Type != "6in4 with heartbeats" || s.Address != lease.Endpoint.Client.String()+"/64" {
			t.Errorf("the session is %+v", s)
		}
		reachable(t, n.client, routerAddr)
		reachable(t, n.router, lease.Endpoint.Client)
	}
	check()
	must(t, server.cmd.Process.Signal(syscall.SIGKILL))
	server.exit(t)
	hasAddress(t, n.client, lease.Endpoint.Client.String()+"/64")
	start(t, n.server, config)
	check()
}
