package e2e

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"sixfour/internal/api"
)

// Accounts are changed on the store while no daemon runs, and through the socket of one that
// runs; a daemon that cannot be asked is not circumvented.
func TestBrokerAccounts(t *testing.T) {
	t.Parallel()
	n := newBrokered(t)
	a := start(t, n.server, n.config("", "json"))
	o := newOperator(t)
	broker := func(socket string, into any, args ...string) string {
		t.Helper()
		cmd := exec.Command(string(o), append(append([]string{"broker"}, args...), "--json", "--socket", socket, "--config", a.config)...)
		cmd.Env = append(os.Environ(), "PATH="+filepath.Dir(program))
		var out, errs strings.Builder
		cmd.Stdout, cmd.Stderr = &out, &errs
		if cmd.Run() == nil {
			must(t, json.Unmarshal([]byte(out.String()), into))
		}
		return errs.String()
	}
	expect := func(names string) {
		t.Helper()
		var all []api.BrokerAccount
		if err := broker(a.socket, &all, "account", "list"); err != "" {
			t.Error(err)
		}
		var got []string
		for _, account := range all {
			got = append(got, account.Account)
		}
		if strings.Join(got, " ") != names {
			t.Errorf("the accounts are %q, not %s", got, names)
		}
	}
	var added api.BrokerAccount
	var password api.BrokerPassword
	if err := broker(a.socket, &added, "account", "add", "alice"); err != "" || added.Password == "" {
		t.Errorf("%+v, %s", added, err)
	}
	if err := broker(filepath.Join(n.dir, "no-socket"), &added, "account", "add", "bob"); !strings.Contains(err, "another process uses it: if sixfourd runs") {
		t.Errorf("%+v, %s", added, err)
	}
	expect("alice")
	if code := a.end(t, syscall.SIGTERM); code != 0 {
		t.Errorf("exit status %d", code)
	}
	expect("alice")
	if err := broker(a.socket, &password, "password", "alice"); err != "" || password.Password == "" || password.Password == added.Password {
		t.Errorf("%+v, %s", password, err)
	}
	if err := broker(a.socket, &added, "account", "add", "carol", "--type", "6in4"); err != "" || added.Number != 2 {
		t.Errorf("%+v, %s", added, err)
	}
	if err := broker(a.socket, &added, "account", "remove", "nobody"); !strings.Contains(err, `there is no account "nobody"`) {
		t.Error(err)
	}
	expect("alice carol")
}
