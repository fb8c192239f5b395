package importing

import (
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"sixfour/internal/config"
	"sixfour/internal/configfile"
)

const docs = "../../docs"

var (
	tomlBlock = regexp.MustCompile("(?ms)^```toml\n(.*?)^```")
	shBlock   = regexp.MustCompile("(?ms)^```sh\n(.*?)^```")
	makesLink = regexp.MustCompile(`(?m)^ip (link|tunnel) add (?:name )?(?:six|b0|dslite|map)`)
)

// unequal are the commands of the manual whose import is another configuration than that of
// the page, by the page and the number of the block, with the reason.
var unequal = map[string]string{
	"modes/4in6.md 2":      "the page has a name, and the commands its address",
	"modes/6to4.md 4":      "the commands do not say for which sources the return path is",
	"modes/6to4.md 6":      "a customer of a relay that translates prefixes has a private address",
	"modes/hub.md 0":       "the kernel has an interface for each peer: two tunnels",
	"modes/map_e.md 0":     "the kernel has no MAP-E: 4in6",
	"encap/wireguard.md 0": "WireGuard",
	"encap/wireguard.md 1": "WireGuard",
}

// autoLocal are the local addresses of the commands of pages whose first configuration
// leaves them to the daemon.
var autoLocal = map[string]string{"6rd.md": "10.100.100.1", "isatap.md": "203.0.113.10"}

// The commands of iproute2 that a page of the manual shows become the configuration of the
// page.
func TestCommandsOfTheManual(t *testing.T) {
	checked := 0
	for _, folder := range []string{"modes", "encap"} {
		pages, err := filepath.Glob(filepath.Join(docs, folder, "*.md"))
		if err != nil || len(pages) == 0 {
			t.Fatal(pages, err)
		}
		for _, path := range pages {
			page, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			var known []*config.Config
			for i, m := range tomlBlock.FindAllSubmatch(page, -1) {
				text := string(m[1])
				if local := autoLocal[filepath.Base(path)]; i == 0 && local != "" {
					text = strings.Replace(text, `"auto"`, `"`+local+`"`, 1)
				}
				known = append(known, parse(t, text))
			}
			n := 0
			for _, m := range shBlock.FindAllSubmatch(page, -1) {
				if !makesLink.Match(m[1]) {
					continue
				}
				name := folder + "/" + filepath.Base(path) + " " + string(rune('0'+n))
				n++
				r, err := Import([]File{{"-", m[1]}}, Options{})
				if err != nil {
					t.Fatal(err)
				}
				if len(r.Tunnels) == 0 {
					if unequal[name] == "" {
						t.Errorf("%s: no tunnel:\n%s", name, r.Config)
					}
					continue
				}
				got := parse(t, r.Config)
				equal := false
				for _, c := range known {
					equal = equal || reflect.DeepEqual(c, got)
				}
				if why := unequal[name]; equal == (why != "") {
					t.Errorf("%s: equal: %v (%s):\n%s", name, equal, why, r.Config)
				}
				checked++
			}
		}
	}
	if checked < 30 {
		t.Errorf("only %d examples", checked)
	}
}

// parse returns a configuration without the positions in its text. The commands do not say
// from which relays packets of 6to4 are accepted.
func parse(t *testing.T, text string) *config.Config {
	t.Helper()
	text = regexp.MustCompile(`(?m)^relays .*\n`).ReplaceAllString(text, "")
	c, err := configfile.Parse("", []byte(text))
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	for i := range c.Tunnels {
		c.Tunnels[i].Source = config.Source{}
	}
	return c
}
