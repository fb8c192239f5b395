package section

import (
	"cmp"
	"net/netip"
	"slices"

	"sixfour/internal/config"
	"sixfour/internal/config/keys"
	"sixfour/internal/config/problem"
	"sixfour/internal/config/tree"
	"sixfour/internal/config/value"
)

const defaultLISPStore = "/var/lib/sixfour/lisp.db"

// lispDraft is a [lisp] that is being read.
type lispDraft struct {
	config.LISP
	names map[string]int // lines of sites
	eids  map[lispEID]*config.LISPSite
}

// lispEID is a prefix of an instance.
type lispEID struct {
	instance uint32
	prefix   netip.Prefix
}

var lispKeys = []tree.Key[*lispDraft]{
	{Name: "listen", Read: readLISPListen},
	{Name: "store", Read: func(r *problem.Report, e tree.Entry, l *lispDraft) {
		if path, ok := value.File(r, e); ok {
			l.Store = path
		}
	}},
	{Name: "site", Read: readLISPSites},
}

// readLISPListen reads the addresses at which a map server receives.
func readLISPListen(r *problem.Report, e tree.Entry, l *lispDraft) {
	const want = "an address of this host, which routers send to and see as the source of answers"
	for _, s := range value.Strings(r, e, want) {
		a, err := netip.ParseAddr(s.Text)
		if err != nil || a.Zone() != "" || a.Is4In6() || a.IsUnspecified() || a.IsMulticast() || a.IsLinkLocalUnicast() || a == config.Broadcast {
			value.Refuse(r, s, want)
			continue
		}
		if i := slices.IndexFunc(l.Listen, func(o netip.Addr) bool { return o.Is4() == a.Is4() }); i >= 0 {
			r.Add(s.At, "listen has %v and %v, and answers must come from one of them: write one address of each IP version", l.Listen[i], a)
			continue
		}
		l.Listen = append(l.Listen, a)
	}
}

// readLISP reads [lisp], after the tunnels and [broker] were read.
func readLISP(r *problem.Report, e tree.Entry, c *config.Config) {
	if !isTable(r, e) {
		return
	}
	l := &lispDraft{names: map[string]int{}, eids: map[lispEID]*config.LISPSite{}}
	l.Store = defaultLISPStore
	l.Source = config.Source{File: r.File, Header: e.KeyAt, Keys: map[string]problem.Pos{}}
	for name, of := range e.Table {
		l.Source.Keys[name] = of.At
	}
	found := r.Found
	state := keys.Read(r, keys.TableLISP, e.Value, lispKeys, l)
	state.Need(r, e.KeyAt, "listen", "the address of this host at which routers register and ask, such as \"203.0.113.53\"")
	if !state.Set["site"] {
		r.Add(e.KeyAt, "no router can register, because there is no site: add one for each key, which begins with [[lisp.site]]")
	}
	if r.Found == found {
		l.check(r, c)
	}
	c.LISP = l.LISP
}

// check checks the values against the rest of the file.
func (l *lispDraft) check(r *problem.Report, c *config.Config) {
	at := func(key string) problem.Pos { return cmp.Or(l.Source.Keys[key], l.Source.Header) }
	if l.Store == c.Broker.Store.File {
		r.Add(at("store"), "store is %s, which is that of [broker], too: name another file", problem.Quote(l.Store))
	}
	for i := range c.Tunnels {
		t := &c.Tunnels[i]
		for _, path := range t.AllPaths() {
			if t.Mode.Name == "lisp" && t.Netns == "" && slices.Contains(l.Listen, path.Local) {
				r.Add(at("listen"), "listen has %v, at which tunnel %s (line %d) receives control messages of LISP: give one of them another address of this host", path.Local, problem.Quote(t.Name), t.Source.Header.Line)
			}
		}
	}
	for i := range l.Sites {
		s := &l.Sites[i]
		for _, a := range l.Listen {
			if j := slices.IndexFunc(s.EID, func(p netip.Prefix) bool { return p.Contains(a) }); j >= 0 && s.Instance == 0 {
				r.Add(s.At, "eid has %v, in which is this server's own address %v: routers would need its answer to reach it: use an address outside of all sites", s.EID[j], a)
			}
		}
	}
}

var lispSiteKeys = []tree.Key[*config.LISPSite]{
	{Name: "name", Read: func(r *problem.Report, e tree.Entry, s *config.LISPSite) {
		const want = "a name of at most 63 bytes without white space and '/'"
		if name, ok := value.String(r, e, want); ok {
			if name == "" || len(name) > 63 || !value.ValidName(name) {
				value.Refuse(r, e, want)
				return
			}
			s.Name = name
		}
	}},
	{Name: "key_file", Read: func(r *problem.Report, e tree.Entry, s *config.LISPSite) {
		if key, ok := value.Secret(r, e, 1); ok {
			s.Key = key
		}
	}},
	{Name: "eid", Read: func(r *problem.Report, e tree.Entry, s *config.LISPSite) {
		for _, item := range value.Strings(r, e, `an IPv6 or IPv4 prefix such as "2001:db8:e1::/48"`) {
			version := 6
			if p, err := netip.ParsePrefix(item.Text); err == nil && p.Addr().Is4() {
				version = 4
			}
			value.Prefixes(version, func(s *config.LISPSite) *[]netip.Prefix { return &s.EID })(r, item, s)
		}
	}},
	{Name: "instance", Read: func(r *problem.Report, e tree.Entry, s *config.LISPSite) {
		if n, _, ok := value.Number(r, e, 0, 1<<24-1); ok {
			s.Instance = uint32(n)
		}
	}},
	{Name: "nonces", Read: func(r *problem.Report, e tree.Entry, s *config.LISPSite) {
		if w, ok := value.Word(r, e, "growing", "any"); ok {
			s.AnyNonce = w == "any"
		}
	}},
}

// maxLISPSites is more than one server has in practice.
const maxLISPSites = 100_000

// readLISPSites reads the [[lisp.site]] tables.
func readLISPSites(r *problem.Report, e tree.Entry, l *lispDraft) {
	const want = "an array of tables, each of which begins with [[lisp.site]]"
	if e.Kind != tree.Array {
		value.RefuseType(r, e, want)
		return
	}
	if n := len(e.Items); n > maxLISPSites {
		r.Add(e.Items[maxLISPSites].At, "there are %d sites: at most %d are possible", n, maxLISPSites)
		return
	}
	l.Sites = make([]config.LISPSite, 0, len(e.Items)) // l.eids points into it
	for _, item := range e.Items {
		if r.Full(item.At) {
			return
		}
		if item.Kind != tree.Table {
			r.Add(item.At, "site has %s in it: it must be %s", tree.KindNames[item.Kind], want)
			continue
		}
		found := r.Found
		s := config.LISPSite{At: item.At}
		state := keys.Read(r, keys.TableLISPSite, item, lispSiteKeys, &s)
		state.Need(r, item.At, "name", "a name for this site in status and log")
		state.Need(r, item.At, "key_file", "the file with the key that its routers have, too")
		state.Need(r, item.At, "eid", "the prefixes that its routers may register")
		if r.Found == found {
			l.addSite(r, s)
		}
	}
}

// addSite adds a site, unless another one has its name or one of its prefixes.
func (l *lispDraft) addSite(r *problem.Report, s config.LISPSite) {
	if line, twice := l.names[s.Name]; twice {
		r.Add(s.At, "name is %s, as that of the site of line %d: give each site a name of its own", problem.Quote(s.Name), line)
		return
	}
	l.names[s.Name] = s.At.Line
	l.Sites = append(l.Sites, s)
	at := &l.Sites[len(l.Sites)-1]
	for _, p := range s.EID {
		key := lispEID{s.Instance, p}
		if o := l.eids[key]; o != nil {
			r.Add(s.At, "eid has %v, which site %s (line %d) has, too: one of them must leave it out, because the prefix says which key is right", p, problem.Quote(o.Name), o.At.Line)
			return
		}
		l.eids[key] = at
	}
}
