package configfile

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"sixfour/internal/config/keys"
	"sixfour/internal/config/section"
	"sixfour/internal/config/tree"
)

// documented returns the tables whose keys are in the reference, with those keys that
// hold values.
func documented() map[string][]string {
	isTable := func(name string) bool { return name == "peer" || name == "path" }
	all := section.Names()
	all[keys.TableTunnel], all[keys.TablePeer] = slices.DeleteFunc(tree.Names(tunnelKeys), isTable), slices.DeleteFunc(tree.Names(peerKeys), isTable)
	all[keys.TablePath], all[keys.TablePeerPath] = tree.Names(pathKeys), tree.Names(pathKeys)
	return all
}

// TestReferenceIsComplete: the reference has each key once, and no others.
func TestReferenceIsComplete(t *testing.T) {
	seen := make(map[string]bool)
	all := documented()
	for _, k := range keys.Reference() {
		id := k.Table + " " + k.Name
		if seen[id] || !slices.Contains(all[k.Table], k.Name) {
			t.Errorf("the reference has %s, which there is not, or twice", id)
		}
		seen[id] = true
		if k.Values == "" || k.Meaning == "" {
			t.Errorf("the reference says nothing of %s", id)
		}
	}
	for table, names := range all {
		for _, name := range names {
			if !seen[table+" "+name] {
				t.Errorf("the reference lacks %s %s", table, name)
			}
		}
	}
}

// bare returns a minimal file for a mode, in which a key can be set.
func bare(k keys.Key) string {
	tunnel := "[[tunnel]]\nname = \"six0\"\nlocal = \"192.0.2.1\"\n"
	switch {
	case strings.Contains(k.Modes, "gre"):
		tunnel += "mode = \"gre\"\nremote = \"192.0.2.2\"\n"
	case strings.Contains(k.Modes, "4in6"):
		tunnel = strings.ReplaceAll(tunnel, "192.0.2.1", "2001:db8::1") + "mode = \"4in6\"\nremote = \"2001:db8::2\"\n"
	case strings.Contains(k.Modes, "6to4"):
		tunnel += "mode = \"6to4\"\naddress = [\"2002:c000:201::1/16\"]\n"
	case strings.Contains(k.Modes, "6rd"):
		tunnel += "mode = \"6rd\"\nprefix = \"2001:db8::/32\"\n"
	case strings.Contains(k.Modes, "isatap"):
		tunnel += "mode = \"isatap\"\nrouters = [\"192.0.2.7\"]\n"
	case strings.Contains(k.Modes, "`ayiya`"):
		tunnel += "mode = \"ayiya\"\nserver = \"192.0.2.2\"\nidentity = \"2001:db8::2\"\npassword_file = \"/password\"\n"
	case strings.Contains(k.Modes, "`tic`"):
		tunnel += "mode = \"tic\"\nserver = \"192.0.2.2\"\nuser = \"a\"\npassword_file = \"/password\"\n"
	case strings.Contains(k.Modes, "`tsp`"):
		tunnel += "mode = \"tsp\"\nserver = \"192.0.2.2\"\n"
	case strings.Contains(k.Modes, "`json`"):
		tunnel += "mode = \"json\"\nserver = \"192.0.2.2\"\nid = \"a\"\n"
	case k.Modes == "`teredo`" && k.Name == "bind":
		tunnel = strings.Replace(tunnel, "local =", "#", 1) + "mode = \"teredo\"\nrole = \"server\"\n"
	case k.Modes == "`6bed4`" && k.Name == "netid":
		tunnel += "mode = \"6bed4\"\nrole = \"router\"\n"
	case k.Modes == "`6bed4`":
		tunnel += "mode = \"6bed4\"\nrole = \"peer\"\nrouter = \"192.0.2.7\"\n"
	case k.Modes == "`teredo`":
		tunnel += "mode = \"teredo\"\nrole = \"client\"\nserver = \"192.0.2.7\"\n"
	case strings.Contains(k.Modes, "6over4"):
		tunnel += "mode = \"6over4\"\n"
	default:
		tunnel += "mode = \"4in6in4\"\nremote = \"192.0.2.2\"\nlocal6 = \"fc00::1\"\nremote6 = \"fc00::2\"\n"
	}
	switch k.Table {
	case keys.TableTunnel:
		return tunnel
	case keys.TableBroker:
		return "[[broker.listen]]\nprotocol = \"json\"\naddress = \"192.0.2.1\"\n[broker]\npool = [\"2001:db8:100::/40\"]\n"
	case keys.TableBrokerListen:
		protocol := "json"
		if k.Modes != "" {
			protocol = strings.Trim(strings.Split(k.Modes, ",")[0], "` ")
		}
		return "[broker]\npool = [\"2001:db8:100::/40\"]\nendpoints = \"2001:db8:ff::/48\"\n[[broker.listen]]\nprotocol = \"" + protocol + "\"\naddress = \"192.0.2.1\"\n"
	case keys.TableLISP:
		return lispSite + "[lisp]\nlisten = \"192.0.2.1\"\n"
	case keys.TableLISPSite:
		return "[lisp]\nlisten = \"192.0.2.1\"\n" + lispSite
	case keys.TablePeerPath:
		tunnel = "[[tunnel]]\nname = \"six0\"\nmode = \"gre\"\nlocal = \"192.0.2.1\"\n" + peer("b", "192.0.2.2", "10.0.0.2/32")
	}
	encap := ""
	if k.Modes != "" && (k.Table == keys.TablePath || k.Table == keys.TablePeerPath) {
		name := strings.Trim(strings.Split(k.Modes, ",")[0], "` ")
		encap = fmt.Sprintf("encap = %q\n", name) + required[name]
		tunnel = strings.Replace(tunnel, "mode = \"gre\"", "mode = \"4in4\"", 1)
	}
	return tunnel + k.Table + "\n" + encap
}

const lispSite = "[[lisp.site]]\nname = \"a\"\nkey_file = \"/key\"\neid = \"2001:db8:e1::/48\"\n"

// required are the keys that a path must have, by encapsulation.
var required = map[string]string{
	"https":     "secret_file = \"/secret\"\n",
	"wireguard": "private_key_file = \"/key\"\npublic_key = \"" + publicKey + "\"\n",
}

// publicKey is a public key of WireGuard.
const publicKey = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg="

// values returns a configuration without positions in the file, which differ.
func values(t *testing.T, text string) string {
	t.Helper()
	c, err := Parse("file", []byte(text))
	if err != nil {
		t.Errorf("%v in\n%s", err, text)
		return ""
	}
	c.Control.Explicit = false
	forget(c)
	return fmt.Sprintf("%+v", reflect.ValueOf(c).Elem())
}

// TestReferenceDefaults: setting a key to its default changes nothing.
func TestReferenceDefaults(t *testing.T) {
	for _, k := range keys.Reference() {
		if k.Default == "" {
			continue
		}
		text := bare(k)
		without := values(t, text)
		with := values(t, text+k.Name+" = "+k.Default+"\n")
		if without != with {
			t.Errorf("%s %s = %s:\n%s\nwithout it:\n%s", k.Table, k.Name, k.Default, with, without)
		}
	}
}
