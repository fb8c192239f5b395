package configfile

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sixfour/internal/config"
)

// updated returns a tunnel with local = "auto", the keys for reporting its address, and others.
func updated(keys ...string) string {
	return tunnel("6in4", "auto", "192.0.2.2") + strings.Join([]string{
		"update_url = 'https://broker.example/nic/update'", "update_user = 'anna'", "update_key_file = '/etc/key'", "update_host = '123'", "",
	}, "\n") + strings.Join(keys, "\n") + "\n"
}

func TestUpdate(t *testing.T) {
	want := config.AddressUpdate{URL: "https://broker.example/nic/update", User: "anna", Key: config.Secret{File: "/etc/key"}, Host: "123"}
	if got := one(t, updated()).Update; got != want {
		t.Errorf("%+v", got)
	}
	other := func(url string) string {
		return strings.Replace(updated(), "https://broker.example/nic/update", url, 1)
	}
	user := func(text string) string { return strings.Replace(updated(), "'anna'", text, 1) }
	const wantURL = `a URL with https, such as "https://broker.example/nic/update"`
	checkProblems(t, []problemRow{
		{other("https://broker.example:8443/update?myip=auto"), ""},
		{other("https://[2001:db8::1]/update"), ""},
		{updated(path("local = '192.0.2.1'"), path("local = 'auto'", "remote = '192.0.2.3'")), ""},
		{strings.Replace(updated(), "local = 'auto'", "local = '192.0.2.1'", 1),
			`6:14: update_url contradicts local, an address that does not change: leave it out, or set local to "auto"`},
		{without(updated(), "local") + path("local = '192.0.2.1'") + path("local = '192.0.2.3'"),
			`5:14: update_url contradicts local, an address that does not change: leave it out, or set local to "auto"`},
		{other("http://broker.example/"), `6:14: update_url is "http://broker.example/", which sends the key without encryption: it must be ` + wantURL},
		{other("https://anna:key@broker.example/"), `6:14: update_url has a user or a password in it: write them in update_user and in update_key_file`},
		{other("broker.example"), `6:14: update_url is "broker.example": it must be ` + wantURL},
		{other("https://"), `6:14: update_url is "https://": it must be ` + wantURL},
		{other("https://b.example/#x"), `6:14: update_url is "https://b.example/#x": it must be ` + wantURL},
		{other("https://b.example:0/"), `6:14: update_url is "https://b.example:0/": it must be ` + wantURL},
		{other("https://b.example:65536/"), `6:14: update_url is "https://b.example:65536/": it must be ` + wantURL},
		{other("https://b.example:x/"), `6:14: update_url is "https://b.example:x/": it must be ` + wantURL},
		{user("''"), `7:15: update_user is "": it must be the user of the account at the broker`},
		{user("'a:b'"), `7:15: update_user is "a:b": it must be the user of the account at the broker`},
		{user(`"a\n"`), `7:15: update_user is "a\n": it must be the user of the account at the broker`},
		{user("7"), `7:15: update_user is an integer: it must be a string, the user of the account at the broker`},
		{strings.Replace(updated(), "'123'", "'1 2'", 1), `9:15: update_host is "1 2": it must be what has the address: a name, or the number of the tunnel at the broker`},
		{strings.Replace(updated(), "'123'", "'"+strings.Repeat("x", 256)+"'", 1), `9:15: update_host is "` + strings.Repeat("x", 80) + `"…: it must be what has the address: a name, or the number of the tunnel at the broker`},
		{strings.Replace(updated(), "'/etc/key'", "'key'", 1), `8:19: update_key_file is "key": it must be the absolute path of a file`},
		{without(without(without(updated(), "update_user"), "update_key_file"), "update_host"), lines(
			`6:14: update_url needs update_user: set it to the user of the account at the broker`,
			`6:14: update_url needs update_key_file: set it to a file with the update key that the broker shows, or with the password`,
			`6:14: update_url needs update_host: set it to the number of the tunnel at the broker, or the name that is to have the address`,
		)},
		{without(updated(), "update_url"), lines(
			`6:15: update_user has no effect without update_url: set that, or leave update_user out`,
			`7:19: update_key_file has no effect without update_url: set that, or leave update_key_file out`,
			`8:15: update_host has no effect without update_url: set that, or leave update_host out`,
		)},
	})
}

// The key is in a file that only its owner may open. Another key in it is a difference.
func TestUpdateKey(t *testing.T) {
	dir := t.TempDir()
	key, file := filepath.Join(dir, "key"), filepath.Join(dir, "file")
	text := strings.Replace(updated(), "/etc/key", key, 1)
	write := func(path, text string, mode os.FileMode) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	load := func() *config.Tunnel {
		t.Helper()
		c, err := Load(file)
		if err != nil {
			t.Fatal(err)
		}
		return &c.Tunnels[0]
	}
	write(file, text, 0o644)
	write(key, "first\n", 0o600)
	first := load()
	if v := first.Update.Key.Value(); v != "first" {
		t.Errorf("the key is %q", v)
	}
	write(key, "second\n", 0o600)
	second := load()
	if d := first.Difference(second); len(d.Keys) != 1 || d.Keys[0] != "update_key_file" {
		t.Errorf("%+v", d)
	}
	first.Assume(second)
	if d := first.Difference(second); !d.None() || first.Update.Key.Value() != "second" {
		t.Errorf("%+v", d)
	}
	for _, c := range []struct {
		text string
		mode os.FileMode
		want string
	}{
		{"second", 0o644, "its mode is 0644, so that other users can open it: chmod 600 "},
		{"\n", 0o600, "with a secret of 0 bytes: it must have at least 1"},
	} {
		write(key, c.text, c.mode)
		if _, err := Load(file); err == nil || !strings.Contains(err.Error(), ":8:19: update_key_file is ") || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v, want %s", err, c.want)
		}
	}
	// The other tunnels work without it: it does not prevent a start.
	write(key, "second", 0o644)
	if c, doubts, err := LoadLenient(file); err != nil || len(doubts) != 1 || c.Tunnels[0].Update.Key.Value() != "" {
		t.Errorf("%+v, %v, %v", c, doubts, err)
	}
}
