package section

import (
	"cmp"
	"crypto/tls"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"

	"sixfour/encap"
	"sixfour/internal/config"
	"sixfour/internal/config/keys"
	"sixfour/internal/config/problem"
	"sixfour/internal/config/tree"
	"sixfour/internal/config/value"
)

// Default values of [broker].
const (
	defaultBrokerInterface = "six0"
	defaultBrokerStore     = "/var/lib/sixfour/broker.db"
	defaultBrokerMTU       = int64(encap.MinTunnelMTU6)
	// maxBrokerMTU is what AYIYA carries over Ethernet: 1500 less 20 for IPv4, 8 for UDP and 44
	// for AYIYA.
	maxBrokerMTU        = 1428
	defaultPrefixLength = 64
	leastPrefixLength   = 48
	mostPrefixLength    = 120
)

// brokerDraft is a [broker] that is being read.
type brokerDraft struct {
	config.Broker
	poolAt []problem.Pos
	state  tree.State
	full   bool // the files are read, too
}

var brokerKeys = []tree.Key[*brokerDraft]{
	{Name: "interface", Read: func(r *problem.Report, e tree.Entry, b *brokerDraft) {
		if name, ok := readInterface(r, e); ok {
			b.Interface = name
		}
	}},
	{Name: "name", Read: func(r *problem.Report, e tree.Entry, b *brokerDraft) {
		const want = "a name of letters, digits, '-' and '.', which no other server with the same store has"
		if s, ok := value.String(r, e, want); ok {
			if !value.IsDNSName(s) {
				value.Refuse(r, e, want)
				return
			}
			b.Name = s
		}
	}},
	{Name: "store", Read: readStore},
	{Name: "store_ca", Read: fileOf(func(b *brokerDraft) *string { return &b.Store.CA })},
	{Name: "store_cert", Read: fileOf(func(b *brokerDraft) *string { return &b.Store.Cert })},
	{Name: "store_key", Read: fileOf(func(b *brokerDraft) *string { return &b.Store.Key })},
	{Name: "store_prefix", Read: func(r *problem.Report, e tree.Entry, b *brokerDraft) {
		const want = `the beginning of all keys, such as "/sixfour/broker/"`
		if s, ok := value.String(r, e, want); ok {
			if s == "" || strings.ContainsRune(s, 0) {
				value.Refuse(r, e, want)
				return
			}
			b.Store.Prefix = s
		}
	}},
	{Name: "pool", Read: readPool},
	{Name: "ndp_proxy", Read: func(r *problem.Report, e tree.Entry, b *brokerDraft) {
		if e.Kind == tree.String && e.Text == "" {
			return
		}
		if name, ok := readInterface(r, e); ok {
			b.NDPProxy = name
		}
	}},
	{Name: "prefix_length", Read: lengthOf(func(b *brokerDraft) *int { return &b.PrefixLength })},
	{Name: "max_prefix_length", Read: lengthOf(func(b *brokerDraft) *int { return &b.MaxPrefixLength })},
	{Name: "endpoints", Read: value.Prefix(6, func(b *brokerDraft) *netip.Prefix { return &b.Endpoints })},
	{Name: "mtu", Read: func(r *problem.Report, e tree.Entry, b *brokerDraft) {
		if n, _, ok := value.Number(r, e, defaultBrokerMTU, maxBrokerMTU); ok {
			b.MTU = encap.TunnelMTU(n)
		}
	}},
	{Name: "open", Read: func(r *problem.Report, e tree.Entry, b *brokerDraft) { b.Open, _ = value.Bool(r, e) }},
	{Name: "listen", Read: readListeners},
}

// readInterface reads the name of an interface.
func readInterface(r *problem.Report, e tree.Entry) (string, bool) {
	const want = "the name of an interface, of at most 15 bytes without white space, '/', ':' and '%'"
	s, ok := value.String(r, e, want)
	if !ok {
		return "", false
	}
	if s == "" || s == "." || s == ".." || s == "lo" || s == "all" || s == "default" || len(s) > value.MaxName || !value.ValidName(s) {
		value.Refuse(r, e, want)
		return "", false
	}
	return s, true
}

func fileOf(field func(*brokerDraft) *string) func(*problem.Report, tree.Entry, *brokerDraft) {
	return func(r *problem.Report, e tree.Entry, b *brokerDraft) {
		if path, ok := value.File(r, e); ok {
			*field(b) = path
		}
	}
}

// readStore reads the path of a database, or the URLs of a cluster.
func readStore(r *problem.Report, e tree.Entry, b *brokerDraft) {
	const want = `the absolute path of a file, or the URLs of an etcd cluster, such as ["https://etcd1:2379", "https://etcd2:2379"]`
	if e.Kind == tree.String && !strings.Contains(e.Text, "://") {
		if path, ok := value.File(r, e); ok {
			b.Store.File = path
		}
		return
	}
	b.Store.File = ""
	for _, s := range value.Strings(r, e, want) {
		u, err := url.Parse(s.Text)
		if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Hostname() == "" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" {
			value.Refuse(r, s, want)
			continue
		}
		if port, err := strconv.ParseUint(cmp.Or(u.Port(), "2379"), 10, 16); err != nil || port == 0 {
			value.Refuse(r, s, want)
			continue
		}
		b.Store.URLs = append(b.Store.URLs, strings.TrimSuffix(s.Text, "/"))
	}
}

// readPool reads the prefixes from which those of clients are taken.
func readPool(r *problem.Report, e tree.Entry, b *brokerDraft) {
	read := value.Prefixes(6, func(b *brokerDraft) *[]netip.Prefix { return &b.Pool })
	items := []*tree.Value{e.Value}
	if e.Kind == tree.Array && len(e.Items) > 0 {
		items = e.Items
	}
	for _, item := range items {
		before := len(b.Pool)
		read(r, tree.Entry{Name: e.Name, KeyAt: e.KeyAt, Value: item}, b)
		for range b.Pool[before:] {
			b.poolAt = append(b.poolAt, item.At)
		}
	}
}

func lengthOf(field func(*brokerDraft) *int) func(*problem.Report, tree.Entry, *brokerDraft) {
	return func(r *problem.Report, e tree.Entry, b *brokerDraft) {
		most := int64(defaultPrefixLength)
		if b.NDPProxy != "" { // the network on the link is a /64
			most = mostPrefixLength
		}
		if n, _, ok := value.Number(r, e, leastPrefixLength, most); ok {
			*field(b) = int(n)
		}
	}
}

// readBroker reads [broker], after the tunnels were read.
func readBroker(r *problem.Report, e tree.Entry, c *config.Config) {
	if !isTable(r, e) {
		return
	}
	b := &brokerDraft{full: r.ReadSecret != nil}
	b.Interface, b.MTU, b.PrefixLength = defaultBrokerInterface, encap.TunnelMTU(defaultBrokerMTU), defaultPrefixLength
	b.Store = config.BrokerStore{File: defaultBrokerStore}
	b.Source = config.Source{File: r.File, Header: e.KeyAt, Keys: map[string]problem.Pos{}}
	for name, of := range e.Table {
		b.Source.Keys[name] = of.At
	}
	b.state = keys.Read(r, keys.TableBroker, e.Value, brokerKeys, b)
	if !b.state.Set["max_prefix_length"] {
		b.MaxPrefixLength = b.PrefixLength
	}
	b.check(r, c.Tunnels)
	c.Broker = b.Broker
}

// check checks the values against each other and against the tunnels.
func (b *brokerDraft) check(r *problem.Report, tunnels []config.Tunnel) {
	header := b.Source.Header
	at := func(key string) problem.Pos { return cmp.Or(b.Source.Keys[key], header) }
	b.state.Need(r, header, "pool", `the IPv6 prefixes that clients are given parts of, such as ["2001:db8:100::/40"]`)
	if !b.state.Set["listen"] {
		r.Add(header, "no client can come, because there is no listener: add one for each protocol, which begins with [[broker.listen]]")
	}
	b.checkStore(r, at)
	if b.state.Bad["pool"] || b.state.Bad["prefix_length"] || b.state.Bad["max_prefix_length"] || b.state.Bad["endpoints"] {
		return
	}
	if b.MaxPrefixLength > b.PrefixLength {
		r.Add(at("max_prefix_length"), "max_prefix_length is %d, and prefix_length is %d: the shortest prefix that a client may ask for cannot be longer than that which others get: write at most %d", b.MaxPrefixLength, b.PrefixLength, b.PrefixLength)
	}
	for i, p := range b.Pool {
		if p.Bits() > b.PrefixLength {
			r.Add(b.poolAt[i], "pool has %v, in which there is no /%d: write a shorter prefix, or a greater prefix_length", p, b.PrefixLength)
		}
		for _, o := range b.Pool[:i] {
			if o.Overlaps(p) {
				r.Add(b.poolAt[i], "pool has %v, which overlaps %v: leave one out", p, o)
			}
		}
		b.checkNetwork(r, "pool", p, b.poolAt[i], tunnels)
	}
	if p := b.Endpoints; p.IsValid() {
		if p.Bits() > 64 {
			r.Add(at("endpoints"), "endpoints is %v, and each client needs a /64 of it: write a prefix of at most 64 bits", p)
		}
		for _, o := range b.Pool {
			if o.Overlaps(p) {
				r.Add(at("endpoints"), "endpoints is %v, which overlaps %v in pool: clients would be given the ends of others: choose another prefix", p, o)
			}
		}
		b.checkNetwork(r, "endpoints", p, at("endpoints"), tunnels)
	} else if i := slices.IndexFunc(b.Listen, func(l config.BrokerListener) bool {
		p, _ := config.BrokerProtocolByName(l.Protocol)
		return p.Endpoint
	}); i >= 0 && !b.state.Set["endpoints"] {
		r.Add(header, "endpoints is missing, and clients of %s need an address of their own outside their prefixes: set it to a prefix with a /64 for each client, such as \"2001:db8:ff::/48\"", problem.Quote(b.Listen[i].Protocol))
	}
	if i := slices.IndexFunc(tunnels, func(t config.Tunnel) bool { return t.Name == b.Interface }); i >= 0 {
		r.Add(at("interface"), "interface is %s, which is the tunnel of line %d: give the broker another one", problem.Quote(b.Interface), tunnels[i].Source.Header.Line)
	}
	if b.NDPProxy != "" && b.NDPProxy == b.Interface {
		r.Add(at("ndp_proxy"), "ndp_proxy is the broker's own interface: name the one on which the hoster's router asks, such as \"eth0\"")
	}
}

// checkNetwork reports a network for clients that a tunnel has.
func (b *brokerDraft) checkNetwork(r *problem.Report, key string, p netip.Prefix, at problem.Pos, tunnels []config.Tunnel) {
	for i := range tunnels {
		t := &tunnels[i]
		if t.Netns != "" {
			continue
		}
		for _, o := range slices.Concat(t.Address, t.Routes) {
			// A route that is shorter is for what no other one is for.
			if o.Overlaps(p) && (slices.Contains(t.Address, o) && o.Bits() != 0 || o.Bits() >= p.Bits()) {
				r.Add(at, "%s has %v, which overlaps %v of tunnel %s (line %d): packets for clients would take that tunnel: choose another prefix", key, p, o, problem.Quote(t.Name), t.Source.Header.Line)
				return
			}
		}
	}
}

// checkStore checks the keys about the store.
func (b *brokerDraft) checkStore(r *problem.Report, at func(string) problem.Pos) {
	if b.state.Bad["store"] {
		return
	}
	if b.Store.File != "" {
		for _, key := range []string{"store_ca", "store_cert", "store_key", "store_prefix", "name"} {
			if b.state.Set[key] {
				r.Add(at(key), "%s is for a store of several servers, and store is a file: leave it out, or set store to the URLs of an etcd cluster", key)
			}
		}
		return
	}
	secure := 0
	for _, u := range b.Store.URLs {
		if strings.HasPrefix(u, "https:") {
			secure++
		}
	}
	switch {
	case secure > 0 && secure < len(b.Store.URLs):
		r.Add(at("store"), "store has URLs with https and with http: write all with https")
	case secure > 0 && !b.state.Set["store_ca"]:
		r.Add(at("store"), "store_ca is missing, by which the servers of the store are known: set it to the file with the certificate of their authority")
	case secure == 0 && len(b.Store.URLs) > 0 && !onlyLoopback(b.Store.URLs):
		r.Add(at("store"), "store has URLs with http, and everybody on the way could read all secrets: write them with https")
	}
	if b.state.Set["store_cert"] != b.state.Set["store_key"] {
		r.Add(at("store"), "store_cert and store_key belong together: set both, or none")
	}
}

// onlyLoopback reports whether all URLs are of this host.
func onlyLoopback(urls []string) bool {
	return !slices.ContainsFunc(urls, func(s string) bool {
		u, err := url.Parse(s)
		if err != nil {
			return true
		}
		a, err := netip.ParseAddr(u.Hostname())
		return u.Hostname() != "localhost" && (err != nil || !a.IsLoopback())
	})
}

// listenerDraft is a [[broker.listen]] that is being read.
type listenerDraft struct {
	config.BrokerListener
	protocol config.BrokerProtocol
}

var listenerKeys = []tree.Key[*listenerDraft]{
	{Name: "protocol", Read: func(r *problem.Report, e tree.Entry, l *listenerDraft) {
		if w, ok := value.Word(r, e, protocolNames()...); ok {
			l.protocol, _ = config.BrokerProtocolByName(w)
			l.Protocol = w
		}
	}},
	{Name: "address", Read: func(r *problem.Report, e tree.Entry, l *listenerDraft) {
		const want = "an address of this host, or \"0.0.0.0\" or \"::\" for any"
		s, ok := value.String(r, e, want)
		if !ok {
			return
		}
		a, err := netip.ParseAddr(s)
		if err != nil || a.Zone() != "" || a.Is4In6() || a.IsMulticast() || a == config.Broadcast {
			value.Refuse(r, e, want)
			return
		}
		if l.protocol.Address != nil {
			if wrong := l.protocol.Address(a); wrong != "" {
				r.Add(e.At, "address is %v with protocol %s: %s", a, problem.Quote(l.Protocol), wrong)
				return
			}
		}
		l.Address = a
	}},
	{Name: "port", Read: func(r *problem.Report, e tree.Entry, l *listenerDraft) {
		if n, _, ok := value.Number(r, e, 1, 65535); ok {
			l.Port = uint16(n)
		}
	}},
	{Name: "tls_certificate", Read: listenerFile(func(l *listenerDraft) *string { return &l.Certificate })},
	{Name: "tls_key", Read: listenerFile(func(l *listenerDraft) *string { return &l.Key })},
	{Name: "required", Read: func(r *problem.Report, e tree.Entry, l *listenerDraft) { l.Required, _ = value.Bool(r, e) }},
	{Name: "sha256", Read: func(r *problem.Report, e tree.Entry, l *listenerDraft) {
		if l.Protocol != "" && !l.protocol.SHA256 {
			r.Add(e.KeyAt, "sha256 contradicts protocol %s, which has no hash to choose: leave it out", problem.Quote(l.Protocol))
			return
		}
		l.SHA256, _ = value.Bool(r, e)
	}},
}

func protocolNames() (names []string) {
	for _, p := range config.BrokerProtocols {
		names = append(names, p.Name)
	}
	return names
}

// listenerFile reads the path of a file for TLS.
func listenerFile(field func(*listenerDraft) *string) func(*problem.Report, tree.Entry, *listenerDraft) {
	return func(r *problem.Report, e tree.Entry, l *listenerDraft) {
		if l.Protocol != "" && !l.protocol.TLS {
			r.Add(e.KeyAt, "%s contradicts protocol %s, which has no TLS: leave it out", e.Name, problem.Quote(l.Protocol))
			return
		}
		if path, ok := value.File(r, e); ok {
			*field(l) = path
		}
	}
}

// readListeners reads all [[broker.listen]] tables.
func readListeners(r *problem.Report, e tree.Entry, b *brokerDraft) {
	const want = "an array of tables, each of which begins with [[broker.listen]]"
	if e.Kind != tree.Array || len(e.Items) == 0 {
		value.RefuseType(r, e, want)
		return
	}
	for _, item := range e.Items {
		if item.Kind != tree.Table {
			r.Add(item.At, "listen has %s in it: it must be %s", tree.KindNames[item.Kind], want)
			continue
		}
		found := r.Found
		l := &listenerDraft{BrokerListener: config.BrokerListener{At: item.At}}
		s := keys.Read(r, keys.TableBrokerListen, item, listenerKeys, l)
		s.Need(r, item.At, "protocol", problem.Alternatives(problem.QuoteAll(protocolNames())))
		s.Need(r, item.At, "address", "the address of this host at which clients arrive")
		if r.Found != found {
			continue
		}
		l.Port = cmp.Or(l.Port, l.protocol.Port)
		l.checkTLS(r, item, s, b.full)
		b.addListener(r, l.BrokerListener)
	}
}

// checkTLS checks the files of a listener.
func (l *listenerDraft) checkTLS(r *problem.Report, item *tree.Value, s tree.State, full bool) {
	if l.protocol.Tells && !s.Set["required"] {
		l.Required = true
	}
	switch {
	case s.Set["tls_certificate"] != s.Set["tls_key"]:
		r.Add(item.At, "tls_certificate and tls_key belong together: set both, or none")
	case l.Required && l.Certificate == "" && l.protocol.Tells && !s.Set["required"]:
		r.Add(item.At, "protocol %s tells passwords, and there is no certificate: set tls_certificate and tls_key, or required = false, which allows that without TLS", problem.Quote(l.Protocol))
	case l.Required && l.Certificate == "" && l.protocol.TLS:
		r.Add(item.Table["required"].At, "required is true, and there is no certificate: set tls_certificate and tls_key, or leave it out")
	case l.Required && !l.protocol.TLS:
		r.Add(item.Table["required"].At, "required contradicts protocol %s, which has no TLS: leave it out", problem.Quote(l.Protocol))
	case full && l.Certificate != "":
		chain, err := os.ReadFile(l.Certificate)
		if err != nil {
			r.Doubt(item.Table["tls_certificate"].At, "tls_certificate is %s: %v", problem.Quote(l.Certificate), err)
			return
		}
		key, err := r.ReadSecret(l.Key)
		if err != nil {
			r.Doubt(item.Table["tls_key"].At, "tls_key is %s: %v", problem.Quote(l.Key), err)
			return
		}
		if _, err := tls.X509KeyPair(chain, []byte(key)); err != nil {
			r.Doubt(item.Table["tls_certificate"].At, "tls_certificate %s and tls_key %s: %v", problem.Quote(l.Certificate), problem.Quote(l.Key), err)
		}
	}
}

// addListener adds a listener, unless another one receives at the same port.
func (b *brokerDraft) addListener(r *problem.Report, l config.BrokerListener) {
	p, _ := config.BrokerProtocolByName(l.Protocol)
	for _, o := range b.Listen {
		of, _ := config.BrokerProtocolByName(o.Protocol)
		same := o.Address == l.Address || o.Address.IsUnspecified() && (o.Address.Is6() || l.Address.Is4()) || l.Address.IsUnspecified() && (l.Address.Is6() || o.Address.Is4())
		if same && o.Port == l.Port && (p.UDP && of.UDP || p.TCP && of.TCP) {
			r.Add(l.At, "%s listens at %v, as %s of line %d does: give one of them another address or port", l.Protocol, netip.AddrPortFrom(l.Address, l.Port), o.Protocol, o.At.Line)
			return
		}
	}
	b.Listen = append(b.Listen, l)
}
