package configfile

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/pelletier/go-toml/v2"

	"sixfour/encap"
	"sixfour/internal/config"
	"sixfour/internal/config/section"
	"sixfour/internal/config/tree"
)

// root is the module's root directory.
const root = "../.."

// fragmentMark follows "toml" if a block of the manual is not a whole file. Such a block
// must still be valid TOML.
const fragmentMark = "fragment"

var (
	tomlBlock  = regexp.MustCompile("(?ms)^```toml *([^\n]*)\n(.*?)^```")
	setKey     = regexp.MustCompile(`(?m)[\[{,#\s]([a-z0-9_]+) *= `)
	anyBlock   = regexp.MustCompile("(?ms)^```.*?^```$")
	quoted     = regexp.MustCompile("`([^`]+)`")
	link       = regexp.MustCompile(`\]\(([^)#:]+)(#[^)]*)?\)`)
	keySection = regexp.MustCompile(`(?ms)^## Keys.*`)
)

// manual returns the text of every page, by its path from the root.
func manual(t *testing.T) map[string]string {
	t.Helper()
	pages := map[string]string{"README.md": readPage(t, "README.md")}
	err := filepath.WalkDir(filepath.Join(root, "docs"), func(path string, _ fs.DirEntry, err error) error {
		if err != nil || filepath.Ext(path) != ".md" {
			return err
		}
		path, err = filepath.Rel(root, path)
		pages[path] = readPage(t, path)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return pages
}

func readPage(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root, path))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// examples returns the whole files that a page shows.
func examples(t *testing.T, path, page string) (all []*config.Config) {
	t.Helper()
	for _, b := range tomlBlock.FindAllStringSubmatch(page, -1) {
		switch mark, text := b[1], b[2]; mark {
		case "":
			c, err := Parse(path, []byte(text))
			if err != nil {
				t.Errorf("%s shows what is no configuration (mark it \"toml %s\" if it is only part of one):\n%s\n%v", path, fragmentMark, text, err)
				continue
			}
			all = append(all, c)
		case fragmentMark:
			if err := toml.Unmarshal([]byte(text), new(map[string]any)); err != nil {
				t.Errorf("%s shows what is no TOML:\n%s\n%v", path, text, err)
			}
		default:
			t.Errorf("%s has a block of \"toml %s\": the only mark is %q", path, mark, fragmentMark)
		}
	}
	return all
}

// TestExamplesOfTheManual: every example of the manual is a valid file.
func TestExamplesOfTheManual(t *testing.T) {
	n := 0
	for path, page := range manual(t) {
		n += len(examples(t, path, page))
	}
	if n < 2*len(encap.Modes) {
		t.Errorf("%d examples in the manual, less than both ends of %d modes", n, len(encap.Modes))
	}
}

// TestEachModeHasAPage: every mode has a page, which the index lists and which shows the
// mode at both ends. So have stacks and hubs.
func TestEachModeHasAPage(t *testing.T) {
	pages := manual(t)
	index := pages["docs/modes/README.md"]
	check := func(name string, shows func(*config.Tunnel) bool) {
		path := "docs/modes/" + name + ".md"
		page, ok := pages[path]
		if !ok {
			t.Errorf("there is no page %s", path)
			return
		}
		if !strings.Contains(index, "("+name+".md)") {
			t.Errorf("docs/modes/README.md does not list %s", path)
		}
		ends := 0
		for _, c := range examples(t, path, page) {
			if slices.ContainsFunc(c.Tunnels, func(tunnel config.Tunnel) bool { return shows(&tunnel) }) {
				ends++
			}
		}
		if ends < 2 && name != "hub" || ends == 0 {
			t.Errorf("%s has %d examples of what it is about", path, ends)
		}
		for _, has := range []string{"\n## When\n", "iproute2", "# sixfourctl status", "\n## Limits\n", "\n## Keys\n"} {
			if !strings.Contains(page, has) && (name != "hub" || has != "# sixfourctl status") {
				t.Errorf("%s has no %q", path, strings.TrimSpace(has))
			}
		}
	}
	for _, m := range encap.Modes {
		check(m.Name, func(tunnel *config.Tunnel) bool { return tunnel.Mode.Name == m.Name })
	}
	check(stackMode, func(tunnel *config.Tunnel) bool { return tunnel.Mode.Name == stackMode })
	check("hub", func(tunnel *config.Tunnel) bool { return tunnel.Hub })
}

// TestEachEncapsulationHasAPage: every encapsulation that has no sessions has a page, which
// the index lists and which shows it at both ends. The index has a row for all.
func TestEachEncapsulationHasAPage(t *testing.T) {
	pages := manual(t)
	index := pages["docs/encap/README.md"]
	for _, e := range config.Encapsulations {
		if e.Mode {
			continue
		}
		if !slices.ContainsFunc(tableRows(index), func(cell string) bool { return strings.Contains(cell, "`"+e.Name+"`") }) {
			t.Errorf("docs/encap/README.md has no row for %s", e.Name)
		}
		if e.Name == config.NoEncapsulation || e.Session != nil {
			continue
		}
		path := "docs/encap/" + e.Name + ".md"
		if !strings.Contains(index, "("+e.Name+".md)") {
			t.Errorf("docs/encap/README.md does not link to %s", path)
		}
		ends := 0
		for _, c := range examples(t, path, pages[path]) {
			if c.Tunnels[0].Peers[0].Paths[0].Encap == e.Name {
				ends++
			}
		}
		if ends < 2 {
			t.Errorf("%s has %d examples of what it is about", path, ends)
		}
		for _, has := range []string{"\n## When\n", "\n## With iproute2\n", "# sixfourctl status", "\n## Limits\n", "\n## Keys\n"} {
			if !strings.Contains(pages[path], has) {
				t.Errorf("%s has no %q", path, strings.TrimSpace(has))
			}
		}
	}
}

// TestEachKeyIsInTheManual: every key is in the manual or in the sample, and every key
// that the pages of modes and encapsulations list exists.
func TestEachKeyIsInTheManual(t *testing.T) {
	keys := slices.Concat(tree.Names(fileKeys), tree.Names(tunnelKeys), tree.Names(peerKeys), tree.Names(pathKeys), tree.Names(itemKeys))
	for _, names := range section.Names() {
		keys = append(keys, names...)
	}
	mentioned := map[string]bool{"peer": true, "path": true} // [[tunnel.peer]], [[tunnel.path]]
	for path, page := range manual(t) {
		for _, m := range quoted.FindAllStringSubmatch(anyBlock.ReplaceAllString(page, ""), -1) {
			mentioned[strings.Trim(m[1], "[]")] = true
		}
		for _, b := range tomlBlock.FindAllStringSubmatch(page, -1) {
			mention(mentioned, b[2])
		}
		if !strings.HasPrefix(path, "docs/modes/") && !strings.HasPrefix(path, "docs/encap/") {
			continue
		}
		for _, row := range tableRows(keySection.FindString(page)) {
			for _, m := range quoted.FindAllStringSubmatch(row, -1) {
				if m[1][0] != '[' && !slices.Contains(keys, m[1]) {
					t.Errorf("%s lists the key %s, which there is not", path, m[1])
				}
			}
		}
	}
	mention(mentioned, readPage(t, "cmd/sixfourd/dist/sixfour.toml"))
	for _, key := range keys {
		if !mentioned[key] {
			t.Errorf("neither the manual nor the sample mentions the key %s", key)
		}
	}
}

func mention(mentioned map[string]bool, text string) {
	for _, m := range setKey.FindAllStringSubmatch("\n"+text, -1) {
		mentioned[m[1]] = true
	}
}

// tableRows returns the first cells of the rows of tables.
func tableRows(section string) (cells []string) {
	for line := range strings.Lines(section) {
		if rest, ok := strings.CutPrefix(line, "| "); ok {
			cell, _, _ := strings.Cut(rest, " |")
			cells = append(cells, cell)
		}
	}
	return cells
}

// TestLinksOfTheManual: every link of the manual into this repository is valid.
func TestLinksOfTheManual(t *testing.T) {
	for path, page := range manual(t) {
		for _, m := range link.FindAllStringSubmatch(page, -1) {
			if _, err := os.Stat(filepath.Join(root, filepath.Dir(path), m[1])); err != nil {
				t.Errorf("%s links to %s: %v", path, m[1], err)
			}
		}
	}
}

// TestREADMELinksToEachPage: every page can be reached from README.md.
func TestREADMELinksToEachPage(t *testing.T) {
	pages := manual(t)
	for path := range pages {
		if path != "README.md" && !strings.Contains(pages["README.md"], "]("+path) {
			t.Errorf("README.md does not link to %s", path)
		}
	}
}
