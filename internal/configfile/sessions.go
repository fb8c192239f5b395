package configfile

import (
	"net/url"
	"strconv"
	"strings"

	"sixfour/internal/config"
	"sixfour/internal/config/keys"
	"sixfour/internal/config/problem"
	"sixfour/internal/config/tree"
	"sixfour/internal/config/value"
)

// leastSecret is the length of the shortest secret, in bytes: the output of openssl rand
// -base64 12, with 96 bits.
const leastSecret = 16

// sessionKeys returns the keys for the settings S of connections.
func sessionKeys[S any](rows []tree.Key[*S]) (all []tree.Key[*pathDraft]) {
	for _, k := range rows {
		all = append(all, tree.Key[*pathDraft]{Name: k.Name, Read: func(r *problem.Report, e tree.Entry, p *pathDraft) {
			s := p.Session.(S)
			k.Read(r, e, &s)
			p.Session = s
		}})
	}
	return encapKeys(keys.Has[S], all)
}

var httpsKeys = []tree.Key[*config.HTTPS]{
	{Name: "over", Read: func(r *problem.Report, e tree.Entry, h *config.HTTPS) {
		if w, ok := value.Word(r, e, "auto", "udp", "tcp"); ok {
			h.Over = w
		}
	}},
	{Name: "url", Read: readURL},
	{Name: "proxy", Read: readProxy},
	{Name: "certificate", Read: fileKey(func(h *config.HTTPS) *string { return &h.Certificate })},
	{Name: "key", Read: fileKey(func(h *config.HTTPS) *string { return &h.Key })},
	{Name: "ca", Read: fileKey(func(h *config.HTTPS) *string { return &h.CA })},
}

var wireGuardKeys = []tree.Key[*config.WireGuard]{
	{Name: "private_key_file", Read: wireGuardSecret(func(w *config.WireGuard) *config.Secret { return &w.Private })},
	{Name: "preshared_key_file", Read: wireGuardSecret(func(w *config.WireGuard) *config.Secret { return &w.Preshared })},
	{Name: "public_key", Read: func(r *problem.Report, e tree.Entry, w *config.WireGuard) {
		const want = "the peer's public key, 44 characters of base64, as wg pubkey prints it"
		if s, ok := value.String(r, e, want); ok {
			k, err := config.ParseWireGuardKey(s)
			if err != nil || k == (config.WireGuardKey{}) {
				value.Refuse(r, e, want)
				return
			}
			w.Public = k
		}
	}},
}

func fileKey[S any](field func(*S) *string) func(*problem.Report, tree.Entry, *S) {
	return func(r *problem.Report, e tree.Entry, s *S) {
		if path, ok := value.File(r, e); ok {
			*field(s) = path
		}
	}
}

// wireGuardSecret reads a file with a key of WireGuard.
func wireGuardSecret(field func(*config.WireGuard) *config.Secret) func(*problem.Report, tree.Entry, *config.WireGuard) {
	return func(r *problem.Report, e tree.Entry, w *config.WireGuard) {
		s, ok := value.Secret(r, e, 0)
		if !ok {
			return
		}
		if v := s.Value(); v != "" {
			if _, err := config.ParseWireGuardKey(v); err != nil {
				r.Doubt(e.At, "%s is %s: its content is no key of WireGuard: write one with wg genkey", e.Name, problem.Quote(s.File))
				return
			}
		}
		*field(w) = s
	}
}

// readURL reads the URL of CONNECT-IP, or only its path.
func readURL(r *problem.Report, e tree.Entry, h *config.HTTPS) {
	const want = `a URL such as "https://gw.example" or "https://gw.example/tunnel", or only its path, such as "/tunnel"`
	s, ok := value.String(r, e, want)
	if !ok {
		return
	}
	u, err := url.Parse(s)
	if err == nil && u.Host != "" && u.Path == "" && u.RawQuery == "" && u.Fragment == "" {
		s += config.HTTPSURL
		u.Path = config.HTTPSURL
	}
	if err != nil || u.User != nil || u.RawQuery != "" || u.Fragment != "" || !strings.HasPrefix(u.Path, "/") ||
		u.Scheme != "https" && (u.Scheme != "" || u.Host != "") || u.Scheme == "https" && u.Hostname() == "" {
		value.Refuse(r, e, want)
		return
	}
	h.URL = s
}

// readProxy reads the URL of an HTTP proxy.
func readProxy(r *problem.Report, e tree.Entry, h *config.HTTPS) {
	const want = `the URL of an HTTP proxy, such as "http://192.0.2.1:3128"`
	s, ok := value.String(r, e, want)
	if !ok {
		return
	}
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "http" || u.Hostname() == "" || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" {
		r.Add(e.At, "%s must be %s", e.Name, want) // it may have a password in it
		return
	}
	if port, err := strconv.Atoi(u.Port()); u.Port() != "" && (err != nil || port < 1 || port > 65535) {
		r.Add(e.At, "%s must be %s", e.Name, want)
		return
	}
	h.Proxy = s
}

func readListen(r *problem.Report, e tree.Entry, p *pathDraft) {
	if on, ok := value.Bool(r, e); ok {
		p.Listen = on
	}
}

// checkListen reports what contradicts listen or its secret, and what listen needs.
func (p *pathDraft) checkListen(r *problem.Report, s tree.State, header string) {
	if p.FlowPort && s.Set["secret_file"] {
		r.Add(p.keyAt("source_port"), "source_port = \"flow\" contradicts secret_file: by the secret one port is learnt, from which all packets must come: leave source_port out")
	}
	if s.Set["local_port"] && p.LocalPort == 0 && p.Session == nil && !s.Set["secret_file"] {
		r.Add(p.keyAt("local_port"), "local_port = 0 needs secret_file, and listen = true at the other end, which cannot learn our port otherwise: set local_port to the port that is configured there")
	}
	if !p.Listen {
		return
	}
	if s.Set["local_port"] && p.LocalPort == 0 {
		r.Add(p.keyAt("local_port"), "local_port = 0 contradicts listen: the peer must know to which port it comes: set it to one")
	}
	at := p.keyAt("listen")
	switch {
	case p.remote.key != "":
		r.Add(p.remote.at, "remote contradicts listen: with it the peer comes to us from any address: leave one of them out")
	case p.hub:
		r.Add(at, "listen in %s would be for all peers of the tunnel, which could not be told apart: write it in a [[tunnel.peer.path]] of each", header)
	case p.encapsulation.Secret && !s.Set["secret_file"]:
		r.Add(at, "listen needs secret_file: without a secret, anyone could take the place of the peer")
	case s.Set["port"]:
		r.Add(p.keyAt("port"), "port contradicts listen: the peer's port is learnt: leave it out, and set local_port to ours")
	}
}

// keyAt returns the position of a key of the path's table.
func (p *pathDraft) keyAt(name string) problem.Pos {
	if v, ok := p.table[name]; ok {
		return v.KeyAt
	}
	return p.header
}

// checkSession reports what the settings of connections lack.
func (p *pathDraft) checkSession(r *problem.Report, s tree.State, header string) {
	need := func(name, set string) {
		if !s.Set[name] {
			r.Add(p.header, "%s is missing in %s: set it to %s", name, header, set)
		}
	}
	switch own := p.Session.(type) {
	case config.HTTPS:
		if !p.Listen && s.Set["local_port"] {
			r.Add(p.keyAt("local_port"), "local_port has no effect at the end that connects, which uses any free port: leave it out, or set listen")
		}
		need("secret_file", "a file with a secret that both ends have")
		if strings.ContainsFunc(p.Secret.Value(), func(c rune) bool { return c <= ' ' || c > '~' }) {
			r.Add(p.keyAt("secret_file"), "secret_file has a secret with spaces, or with other characters than those of ASCII, which a request of HTTP cannot have: write one with openssl rand -base64 32")
		}
		if p.Listen && (own.Certificate != "" || own.Key != "" || !p.local.Addr.IsLoopback()) {
			need("certificate", "a file with this host's certificate, in PEM, and those of the authorities between it and the root")
			need("key", "a file with the private key of the certificate, in PEM")
		}
		for _, name := range []string{"certificate", "key"} {
			if !p.Listen && s.Set[name] {
				r.Add(p.keyAt(name), "%s has no effect at the end that connects, which proves itself by its secret: leave it out, or set listen", name)
			}
		}
		if p.Listen && s.Set["ca"] {
			r.Add(p.keyAt("ca"), "ca has no effect at the end that listens, where the peer proves itself by its secret: leave it out")
		}
		if p.Listen && own.Proxy != "" {
			r.Add(p.keyAt("proxy"), "proxy contradicts listen: the peer comes to us: leave one of them out")
		}
		if own.Proxy != "" && own.Over == "udp" {
			r.Add(p.keyAt("proxy"), `proxy contradicts over = "udp": an HTTP proxy passes TCP only: leave over out`)
		}
	case config.WireGuard:
		need("private_key_file", "a file with this end's private key, as wg genkey writes it")
		need("public_key", "the peer's public key, as wg pubkey prints it")
		if p.hub {
			r.Add(p.header, "encap \"wireguard\" in %s would be for all peers of the tunnel, which have different keys: write it in a [[tunnel.peer.path]] of each", header)
		}
	}
}
