package configfile

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sixfour/internal/config"
)

// A map server alone is a configuration.
func TestMapServer(t *testing.T) {
	const text = `
[lisp]
listen = ["203.0.113.53", "2001:db8::53"]
[[lisp.site]]
name = "a"
key_file = "/etc/a.key"
eid = ["2001:db8:e1::/48", "10.1.0.0/16"]
[[lisp.site]]
name = "b"
key_file = "/etc/b.key"
eid = "10.1.0.0/16"
instance = 7
nonces = "any"
`
	c, err := Parse("file", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	e1, ten := netip.MustParsePrefix("2001:db8:e1::/48"), netip.MustParsePrefix("10.1.0.0/16")
	want := config.LISP{
		Listen: []netip.Addr{netip.MustParseAddr("203.0.113.53"), netip.MustParseAddr("2001:db8::53")},
		Store:  "/var/lib/sixfour/lisp.db",
		Sites: []config.LISPSite{
			{Name: "a", Key: config.Secret{File: "/etc/a.key"}, EID: []netip.Prefix{e1, ten}},
			{Name: "b", Key: config.Secret{File: "/etc/b.key"}, EID: []netip.Prefix{ten}, Instance: 7, AnyNonce: true},
		},
	}
	if !c.LISP.Equal(&want) || len(c.Tunnels) != 0 {
		t.Errorf("read as %+v", c.LISP)
	}
	moved, err := Parse("file", []byte("\n\n"+text))
	if err != nil || !c.LISP.Equal(&moved.LISP) || !c.LISP.SameBase(&moved.LISP) {
		t.Errorf("another place in the file is a difference: %v", err)
	}
	fewer, err := Parse("file", []byte(strings.Replace(text, "instance = 7", "instance = 8", 1)))
	if err != nil || c.LISP.Equal(&fewer.LISP) || !c.LISP.SameBase(&fewer.LISP) {
		t.Errorf("another instance is none: %v", err)
	}
}

func TestMapServerProblems(t *testing.T) {
	site := func(name, eid, more string) string {
		return fmt.Sprintf("[[lisp.site]]\nname = %q\nkey_file = \"/key\"\neid = %s\n%s", name, eid, more)
	}
	const listen = "listen = \"203.0.113.53\"\n"
	a := site("a", "\"2001:db8:e1::/48\"", "")
	for _, c := range []struct{ table, after, want string }{
		{"", a, "1:2: listen is missing"},
		{listen, "", "there is no site"},
		{"listen = \"0.0.0.0\"\n", a, "2:10: listen is \"0.0.0.0\": it must be an address of this host"},
		{"listen = [\"203.0.113.53\", \"203.0.113.54\"]\n", a, "2:27: listen has 203.0.113.53 and 203.0.113.54"},
		{"listen = \"2001:db8:e1::53\"\n", a, "eid has 2001:db8:e1::/48, in which is this server's own address 2001:db8:e1::53"},
		{listen + "store = \"lisp.db\"\n", a, "store is \"lisp.db\": it must be the absolute path of a file"},
		{listen + "port = 1\n", a, "unknown key \"port\" in [lisp]"},
		{listen, a + a, "name is \"a\", as that of the site of line 3"},
		{listen, a + site("b", "\"2001:db8:e1::/48\"", ""), "eid has 2001:db8:e1::/48, which site \"a\" (line 3) has, too"},
		{listen, site("a/b", "\"10.0.0.0/8\"", ""), "it must be a name of at most 63 bytes without white space and '/'"},
		{listen, site("a", "\"10.0.0.1/8\"", ""), "write 10.0.0.0/8"},
		{listen, site("a", "[]", ""), "eid is empty"},
		{listen, site("a", "\"10.0.0.0/8\"", "instance = 16777216\n"), "instance is 16777216: it must be an integer from 0 to 16777215"},
		{listen, site("a", "\"10.0.0.0/8\"", "nonces = \"old\"\n"), "nonces is \"old\": it must be \"growing\" or \"any\""},
		{listen, "[[lisp.site]]\nname = \"a\"\neid = \"10.0.0.0/8\"\n", "key_file is missing"},
		{listen, "site = 3\n", "site is an integer: it must be an array of tables"},
		{listen + "store = \"/var/lib/sixfour/broker.db\"\n", a + "[broker]\npool = \"2001:db8:100::/40\"\n[[broker.listen]]\nprotocol = \"json\"\naddress = \"192.0.2.1\"\n", "which is that of [broker], too"},
	} {
		_, err := Parse("file", []byte("[lisp]\n"+c.table+c.after))
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Count(err.Error(), "\n") > 1 {
			t.Errorf("%s%s: %v, want %q", c.table, c.after, err, c.want)
		}
	}
}

// The file with the key is read with the configuration; without it the other sites are served.
func TestMapServerKey(t *testing.T) {
	dir := t.TempDir()
	key, file := filepath.Join(dir, "key"), filepath.Join(dir, "sixfour.toml")
	text := "[lisp]\nlisten = \"203.0.113.53\"\n[[lisp.site]]\nname = \"a\"\neid = \"10.0.0.0/8\"\nkey_file = \"" + key + "\"\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(file); err == nil || !strings.Contains(err.Error(), ":6:12: key_file is") {
		t.Errorf("no file: %v", err)
	}
	if c, doubts, err := LoadLenient(file); err != nil || len(doubts) != 1 || len(c.LISP.Sites) != 1 || c.LISP.Sites[0].Key.Value() != "" {
		t.Errorf("no file, lenient: %v, %v", doubts, err)
	}
	if err := os.WriteFile(key, []byte("lisp-key\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if c, err := Load(file); err != nil || c.LISP.Sites[0].Key.Value() != "lisp-key" {
		t.Errorf("the key is not read: %v", err)
	}
}
