package ctl

import (
	"context"
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/zap"

	"sixfour/internal/api"
	"sixfour/internal/control"
	"sixfour/internal/leases"
	"sixfour/internal/store"
)

// broker is a daemon with accounts and leases.
type broker struct {
	*fake
	base *leases.Base
}

func (b broker) Broker(ctx context.Context, q api.BrokerRequest, emit func(any) error) error {
	return b.base.Serve(ctx, q, emit)
}

// startBroker returns a function that runs sixfourctl broker with arguments.
func startBroker(t *testing.T) (*leases.Base, func(args ...string) (out, err string)) {
	t.Helper()
	s, err := store.OpenBolt(filepath.Join(t.TempDir(), "broker.db"))
	must(t, err)
	t.Cleanup(func() { s.Close() })
	base, err := leases.Open(t.Context(), leases.Config{
		Store: s, Server: "here", Pool: []netip.Prefix{netip.MustParsePrefix("2001:db8:100::/48")}, PrefixLength: 64, MaxPrefixLength: 56,
		Endpoints: netip.MustParsePrefix("2001:db8:ff::/48"),
	})
	must(t, err)
	t.Cleanup(func() { base.Close() })
	d := broker{&fake{}, base}
	socket := filepath.Join(t.TempDir(), "s")
	server, err := control.Open(socket, d, zap.NewNop())
	must(t, err)
	server.Serve()
	t.Cleanup(func() { server.Close() })
	return base, func(args ...string) (string, string) {
		t.Helper()
		root := Root()
		var out, errs strings.Builder
		root.SetOut(&out)
		root.SetErr(&errs)
		root.SetArgs(append(append([]string{"broker"}, args...), "--socket", socket))
		if err := root.ExecuteContext(t.Context()); err != nil {
			return out.String(), err.Error()
		}
		return out.String(), ""
	}
}

func TestBroker(t *testing.T) {
	base, run := startBroker(t)
	secret := filepath.Join(t.TempDir(), "secret")
	must(t, os.WriteFile(secret, []byte("old-password\n"), 0o600))
	const odd = "\x1b[2Jo\u202edd\n"
	for _, c := range []struct {
		args []string
		out  []string // parts of the output
		err  string
	}{
		{args: []string{"account", "list"}, out: []string{"ACCOUNT  NUMBER  STATE  TYPE  LEASE  CLIENT\n"}},
		{args: []string{"account", "add", "alice", "--type", "heartbeat", "--mtu", "1400", "--rate", "20M", "--max-prefix-length", "60"}, out: []string{"account            alice\npassword           ", "number             1\nstate              enabled\ntype               heartbeat\n", "rate               20000000 bit/s"}},
		{args: []string{"account", "add", "alice"}, err: `there is an account "alice" already`},
		{args: []string{"account", "add", odd, "--password-file", secret, "--prefix", "2001:db8:5::/48"}, out: []string{`account            "\x1b[2Jo\u202edd\n"` + "\n", "old-password", "always 2001:db8:5::/48"}},
		{args: []string{"account", "add", "x", "--password-file", "/dev/null"}, err: "/dev/null: it is no regular file"},
		{args: []string{"account", "add", "x", "--prefix", "2001:db8:5:1::/64"}, err: "overlaps"},
		{args: []string{"account", "add", "x", "--prefix", "here"}, err: `"here" is no prefix`},
		{args: []string{"account", "add", "x", "--type", "gre"}, err: "the type is one of ayiya, heartbeat, 6in4"},
		{args: []string{"account", "add", "x", "--rate", "fast"}, err: `--rate "fast": give bits per second`},
		{args: []string{"account", "add", "x", "--mtu", "-1"}, err: `--mtu "-1": give a whole number`},
		{args: []string{"account", "add", "x\xff"}, err: "UTF-8"},
		{args: []string{"account", "add", ""}, err: "needs the name"},
		{args: []string{"account", "add"}, err: "an argument is missing: sixfourctl broker account add NAME"},
		{args: []string{"account", "show", "nobody"}, err: `there is no account "nobody"`},
		{args: []string{"account", "set", "alice", "--mtu", "0", "--prefix", "2001:db8:6::/48"}, out: []string{"always 2001:db8:6::/48", "rate "}},
		{args: []string{"account", "set", "alice", "--prefix", "none"}, out: []string{"alice"}},
		{args: []string{"account", "disable", "alice"}, out: []string{"disabled"}},
		{args: []string{"account", "enable", "alice"}, out: []string{"enabled"}},
		{args: []string{"lease", "show", "alice"}, err: `account "alice" has no lease`},
		{args: []string{"lease", "release", "alice"}, err: "has no lease"},
		{args: []string{"password", "nobody"}, err: "no account"},
		{args: []string{"password", "alice", "--password-file", secret}, out: []string{"account            alice\npassword           old-password\n"}},
	} {
		out, err := run(c.args...)
		if (c.err == "") != (err == "") || !strings.Contains(err, c.err) {
			t.Errorf("%q: %q, want %q", c.args, err, c.err)
		}
		for _, part := range c.out {
			if !strings.Contains(out, part) {
				t.Errorf("%q: %q, want %q", c.args, out, part)
			}
		}
		if strings.ContainsAny(out+err, "\x1b\u202e") {
			t.Errorf("%q: control characters in %q, %q", c.args, out, err)
		}
	}
	if _, _, err := ctl(t.Context(), "broker account frob"); err == nil || !strings.Contains(err.Error(), `there is no command "frob": choose add, set, show, list, enable, disable, remove`) {
		t.Error(err)
	}
	for _, name := range []string{"alice", odd} {
		if _, err := base.Assign(t.Context(), name, 0); err != nil {
			t.Error(err)
		}
	}
	base.Hold("alice", "json", netip.MustParseAddrPort("192.0.2.7:1234"))
	for _, c := range []struct {
		args string
		want []string
	}{
		{"lease list", []string{"2001:db8:5::/48    \"\\x1b[2Jo\\u202edd\\n\"  -          -", "2001:db8:100::/64  alice                 connected  json      192.0.2.7:1234  here"}},
		{"lease show alice", []string{"lease              2001:db8:100::/64 since 20", "endpoint           2001:db8:ff:1::2", "outer address      192.0.2.7:1234"}},
		{"account list", []string{"alice                      1  enabled  heartbeat  2001:db8:100::/64  connected"}},
		{"lease release alice", []string{"released\naccount            alice"}},
		{"account remove alice", []string{"removed\naccount            alice"}},
	} {
		out, err := run(strings.Fields(c.args)...)
		for _, part := range c.want {
			if err != "" || !strings.Contains(out, part) {
				t.Errorf("%s: %s, %s; want %s", c.args, out, err, part)
			}
		}
	}
}

// What is printed as JSON, for programs.
func TestBrokerJSON(t *testing.T) {
	base, run := startBroker(t)
	ask := func(into any, args ...string) {
		t.Helper()
		out, err := run(append(args, "--json")...)
		if err != "" || json.Unmarshal([]byte(out), into) != nil {
			t.Errorf("%v: %q, %s", args, out, err)
		}
	}
	if out, _ := run("lease", "list", "--json"); out != "[]\n" {
		t.Errorf("%q", out)
	}
	var a api.BrokerAccount
	ask(&a, "account", "add", "alice", "--rate", "500k")
	if a.Account != "alice" || len(a.Password) < 20 || a.Number != 1 || a.Rate != 500_000 || !a.Enabled {
		t.Errorf("%+v", a)
	}
	var p map[string]string
	ask(&p, "password", "alice")
	if len(p) != 2 || p["account"] != "alice" || len(p["password"]) < 20 || p["password"] == a.Password {
		t.Errorf("%v", p)
	}
	if got, _ := base.Account("alice"); got.Secret != p["password"] {
		t.Errorf("%+v", got)
	}
	if _, err := base.Assign(t.Context(), "alice", 0); err != nil {
		t.Error(err)
	}
	var all []api.BrokerAccount
	ask(&all, "account", "list")
	if len(all) != 1 || all[0].Password != "" || all[0].Lease == nil || all[0].Lease.Prefix.String() != "2001:db8:100::/64" || all[0].Lease.Connected {
		t.Errorf("%+v", all)
	}
	var l []api.BrokerLease
	ask(&l, "lease", "list")
	if len(l) != 1 || l[0].Account != "alice" || l[0].Endpoint.String() != "2001:db8:ff:1::2" {
		t.Errorf("%+v", l)
	}
}

// If no daemon answers, sixfourd is started with the configuration and the request.
func TestBrokerWithoutDaemon(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	program := func(script string) {
		must(t, os.WriteFile(filepath.Join(dir, "sixfourd"), []byte("#!/bin/sh\n"+script), 0o700))
	}
	run := func() (string, error) {
		root := Root()
		var out strings.Builder
		root.SetOut(&out)
		root.SetArgs([]string{"broker", "password", "alice", "--socket", filepath.Join(dir, "s"), "--config", "a.toml", "--json"})
		err := root.ExecuteContext(t.Context())
		return out.String(), err
	}
	program(`test "$*" = "-config a.toml -broker" && grep -q '^{"do":"password","account":"alice"}$' && echo '{"account":"alice","password":"x"}'`)
	if out, err := run(); err != nil || out != "{\n  \"account\": \"alice\",\n  \"password\": \"x\"\n}\n" {
		t.Errorf("%q, %v", out, err)
	}
	program(`echo "sixfourd: broker store x: another process uses it" >&2; exit 1`)
	if out, err := run(); err == nil || out != "" || !strings.HasSuffix(err.Error(), ", and without it: broker store x: another process uses it") {
		t.Errorf("%q, %v", out, err)
	}
	program("exit 3")
	if out, err := run(); err == nil || out != "" || !strings.Contains(err.Error(), "exit status 3") {
		t.Errorf("%q, %v", out, err)
	}
}
