package importing

import (
	"cmp"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// host collects what inputs say of a host.
type host struct {
	options Options
	file    string   // that is being read
	lines   []string // of it
	later   []func() // what is read when all links are known
	uci     []*uciSection

	commands int              // of iproute2 that were read
	links    map[string]*link // by name
	order    []*link
	ports    []udpPort
	routes   []route // without an interface
	gateway  string  // tunnel with the default route of the host
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
func (h *host) routeTo(prefix netip.Prefix, line int) route {
	return route{place: h.at(line), prefix: prefix}
}

// skipRoute records why a route is not in the result.
func (h *host) skipRoute(r route, reason string) { h.note(Note{r.file, r.line, r.text, reason}) }

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

// link is a tunnel interface as Linux has it, or a session of another program.
type link struct {
	place         // where it begins
	name          string
	kind          string // of Linux: sit, ipip, ip6tnl, …; or a mode with a session
	mode          string // of Linux, such as ipip6 of an ip6tnl
	local, remote string // "": any
	address       []netip.Prefix
	routes        []route
	keys          settings // of the tunnel, that need no conversion
	header        settings // of the outer header
	gre, udp      settings
	sixrd         sixrd
	routers       []string // of ISATAP
}

// sixrd are the parameters of 6rd, and the relay of 6to4.
type sixrd struct {
	prefix, common netip.Prefix
	relay          string
}

// add adds a link, and replaces one of the same name.
func (h *host) add(name, kind string, line int) *link {
	l := &link{place: h.at(line), name: name, kind: kind}
	if old := h.links[name]; old != nil {
		h.remove(name)
	}
	h.links[name] = l
	h.order = append(h.order, l)
	return l
}

func (h *host) remove(name string) {
	h.order = slices.DeleteFunc(h.order, func(l *link) bool { return l.name == name })
	delete(h.links, name)
}

// skip records why a line, or a part of it, is not in the result.
func (h *host) skip(line int, reason string) {
	at := h.at(line)
	h.note(Note{at.file, at.line, at.text, reason})
}

// at returns a line of the file that is being read.
func (h *host) at(line int) place {
	at := place{file: h.file, line: line}
	if line >= 1 && line <= len(h.lines) {
		at.text = withoutSecrets(strings.TrimSpace(h.lines[line-1]))
	}
	return at
}

// maxNotes limits the comments of a result.
const maxNotes = 20_000

func (h *host) note(n Note) {
	if !h.noted[n] && len(h.notes) < maxNotes {
		h.noted[n] = true
		h.notes = append(h.notes, n)
	}
}

// about records a reason that concerns a link as a whole.
func (h *host) about(l *link, reason string) {
	h.note(Note{l.file, l.line, l.text, l.name + ": " + reason})
}

// sortNotes brings notes into the order of the input.
func (h *host) sortNotes() {
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

// begin makes a file the one that is being read.
func (h *host) begin(f File) { h.file, h.lines = f.Name, strings.Split(string(f.Data), "\n") }

// afterwards reads something when the links of all files are known.
func (h *host) afterwards(read func()) {
	file, lines := h.file, h.lines
	h.later = append(h.later, func() {
		h.file, h.lines = file, lines
		read()
	})
}

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
