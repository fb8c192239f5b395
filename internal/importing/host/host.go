// Package host describes the tunnels of a host as Linux has them, and makes a configuration
// of sixfour from the description. Commands of iproute2 describe tunnels; readers of other
// formats use the same commands and parameters.
package host

import (
	"cmp"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Host collects what inputs say of a host.
type Host struct {
	file  string   // that is being read
	lines []string // of it

	commands int              // of iproute2 that were read
	links    map[string]*Link // by name
	order    []*Link
	ports    []udpPort
	routes   []route // without an interface
	gateway  string  // tunnel with the default route of the host
	secrets  []Secret
	notes    []Note
	noted    map[Note]bool
}

// udpPort is a port where the kernel decapsulates.
type udpPort struct {
	port, protocol int // protocol 0: GUE
}

// place is a line of an input.
type place struct {
	file string
	line int // from 1; 0: none in particular
	text string
}

// route is a route, with a next hop or without.
type route struct {
	place
	prefix netip.Prefix
	via    netip.Addr
}

// routeTo returns a route that a line of the input has.
func (h *Host) routeTo(prefix netip.Prefix, line int) route {
	return route{place: h.at(line), prefix: prefix}
}

// skipRoute records why a route is not in the result.
func (h *Host) skipRoute(r route, reason string) { h.note(Note{r.file, r.line, r.text, reason}) }

// setting is a key of the result with its value as it is written in TOML.
type setting struct{ key, value string }

type settings []setting

// set sets a key to a value. A second value replaces the first.
func (s *settings) set(key, value string) {
	for i := range *s {
		if (*s)[i].key == key {
			(*s)[i].value = value
			return
		}
	}
	*s = append(*s, setting{key, value})
}

func (s settings) get(key string) string {
	for _, k := range s {
		if k.key == key {
			return k.value
		}
	}
	return ""
}

// Link is a tunnel interface as Linux has it, or a session of another program.
type Link struct {
	place    // where it begins
	Name     string
	Kind     string // of Linux: sit, ipip, ip6tnl, …; or a mode with a session
	mode     string // of Linux, such as ipip6 of an ip6tnl
	Local    string // "": any
	remote   string // "": any
	address  []netip.Prefix
	routes   []route
	keys     settings // of the tunnel, that need no conversion
	header   settings // of the outer header
	gre, udp settings
	sixrd    sixrd
	routers  []string // of ISATAP
}

// sixrd are the parameters of 6rd, and the relay of 6to4.
type sixrd struct {
	prefix, common netip.Prefix
	relay          string
}

// add adds a link, and replaces one of the same name.
func (h *Host) add(name, kind string, line int) *Link {
	l := &Link{place: h.at(line), Name: name, Kind: kind}
	if old := h.links[name]; old != nil {
		h.remove(name)
	}
	h.links[name] = l
	h.order = append(h.order, l)
	return l
}

func (h *Host) remove(name string) {
	h.order = slices.DeleteFunc(h.order, func(l *Link) bool { return l.Name == name })
	delete(h.links, name)
}

// Skip records why a line, or a part of it, is not in the result.
func (h *Host) Skip(line int, reason string) {
	at := h.at(line)
	h.note(Note{at.file, at.line, at.text, reason})
}

// at returns a line of the file that is being read.
func (h *Host) at(line int) place {
	at := place{file: h.file, line: line}
	if line >= 1 && line <= len(h.lines) {
		at.text = withoutSecrets(strings.TrimSpace(h.lines[line-1]))
	}
	return at
}

// maxNotes limits the comments of a result.
const maxNotes = 20_000

func (h *Host) note(n Note) {
	if !h.noted[n] && len(h.notes) < maxNotes {
		h.noted[n] = true
		h.notes = append(h.notes, n)
	}
}

// about records a reason that concerns a link as a whole.
func (h *Host) about(l *Link, reason string) {
	h.note(Note{l.file, l.line, l.text, l.Name + ": " + reason})
}

// sortNotes brings notes into the order of the input.
func (h *Host) sortNotes() {
	files := map[string]int{}
	for _, n := range h.notes {
		if _, ok := files[n.File]; !ok {
			files[n.File] = len(files)
		}
	}
	slices.SortStableFunc(h.notes, func(a, b Note) int {
		return cmp.Or(cmp.Compare(files[a.File], files[b.File]), cmp.Compare(a.Line, b.Line))
	})
}

// New returns a host without tunnels.
func New() *Host { return &Host{links: map[string]*Link{}, noted: map[Note]bool{}} }

// Begin makes an input the one that is being read: lines refer to it.
func (h *Host) Begin(name string, data []byte) {
	h.file, h.lines = name, strings.Split(string(data), "\n")
}

// Lines returns the lines of the input that is being read.
func (h *Host) Lines() []string { return h.lines }

// Resume returns a function that makes the input that is being read now the one that is
// being read again.
func (h *Host) Resume() func() {
	file, lines := h.file, h.lines
	return func() { h.file, h.lines = file, lines }
}

// Find returns the link of a name, or nil.
func (h *Host) Find(name string) *Link { return h.links[name] }

// Links returns all links in the order in which they were made. The caller must not change
// them.
func (h *Host) Links() []*Link { return h.order }

// Commands returns how many commands of iproute2 were read.
func (h *Host) Commands() int { return h.commands }

// Add reads a command of iproute2 that makes a link, and returns this; nil: it makes none.
func (h *Host) Add(line int, args ...string) *Link {
	before := len(h.order)
	h.ReadIP(args, line)
	if len(h.order) <= before {
		return nil
	}
	return h.order[len(h.order)-1]
}

// Set reads parameters of ip link add for a link.
func (h *Host) Set(l *Link, line int, parameters ...string) {
	c := &command{h: h, line: line, args: parameters}
	c.parameters(l)
}

// AddSession adds a tunnel of a mode that gets its addresses from a server, or finds them.
func (h *Host) AddSession(name, mode string, line int) *Link { return h.add(name, mode, line) }

// AddSecret adds a file with a secret that the result names.
func (h *Host) AddSecret(s Secret) { h.secrets = append(h.secrets, s) }

// SetKey sets a key of the tunnel to a number, a text, an array of texts, or what is TOML
// already.
func (l *Link) SetKey(key string, value any) {
	switch value := value.(type) {
	case int:
		l.keys.set(key, strconv.Itoa(value))
	case string:
		l.keys.set(key, quote(value))
	case []string:
		l.keys.set(key, list(value, func(s string) string { return s }))
	case TOML:
		l.keys.set(key, string(value))
	}
}

// TOML is a value as a configuration has it.
type TOML string

// SetRelay sets the relay of a link of 6to4 or 6rd.
func (l *Link) SetRelay(address string) { l.sixrd.relay = address }

// Supported reports whether the result can have tunnels of the kind of a link.
func (l *Link) Supported() bool { return unsupported[l.Kind] == "" }

// Secrets, and user names and passwords in URLs.
var (
	secretWord = regexp.MustCompile(`(?i)((?:pass(?:word|wd|phrase)?|secret|(?:update|private|preshared|auth)[-_]?key)\b["']?[ \t=:]+).*`)
	userOption = regexp.MustCompile(`((?:[ \t]-u|--user)[= \t]+)\S+`)
	userOfURL  = regexp.MustCompile(`(://)[^/@ ]*@`)
)

// withoutSecrets removes from a line what must not be in a comment.
func withoutSecrets(line string) string {
	line = userOption.ReplaceAllString(secretWord.ReplaceAllString(line, "$1…"), "$1…")
	return userOfURL.ReplaceAllString(line, "$1…@")
}

// quote returns a text as TOML.
func quote(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r < ' ' || r == 0x7f:
			b.WriteString(`\u` + strings.Repeat("0", 4-len(strconv.FormatInt(int64(r), 16))) + strconv.FormatInt(int64(r), 16))
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}

// list returns texts as an array in TOML.
func list[T any](items []T, text func(T) string) string {
	quoted := make([]string, len(items))
	for i, item := range items {
		quoted[i] = quote(text(item))
	}
	return "[" + strings.Join(quoted, ", ") + "]"
}
