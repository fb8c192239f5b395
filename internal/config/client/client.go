// Package client has the keys of tunnels that deal with a tunnel broker: those of the modes whose
// other end is a server with which the tunnel keeps a session, and of reporting the outer address.
package client

import (
	"net/netip"
	"slices"

	"sixfour/internal/config"
	"sixfour/internal/config/problem"
	"sixfour/internal/config/tree"
	"sixfour/internal/config/value"
)

// Row is a mode: its keys, and how they are read.
type Row struct {
	Mode  string
	Keys  []string
	Begin func() Reading
}

// Reading holds the keys of one tunnel's session while they are read.
type Reading struct {
	Read func(name string, r *problem.Report, e tree.Entry)
	// Finish checks the values against each other.
	Finish func(r *problem.Report, t *Tunnel) config.Client
}

// Tunnel is what is known of a tunnel when its keys are read.
type Tunnel struct {
	State  tree.State
	Header problem.Pos            // of the table
	Values map[string]problem.Pos // of the keys in the table
}

// need reports that the tunnel does not have a key.
func (t *Tunnel) need(r *problem.Report, name, set string) { t.State.Need(r, t.Header, name, set) }

// at returns the position of a key's value, or of the table if the key is misspelt.
func (t *Tunnel) at(name string) problem.Pos {
	if at, ok := t.Values[name]; ok {
		return at
	}
	return t.Header
}

// ByMode returns the row of a mode; nil: the mode has no session.
func ByMode(mode string) *Row {
	for i := range Rows {
		if Rows[i].Mode == mode {
			return &Rows[i]
		}
	}
	return nil
}

// With returns the modes that have a key.
func With(key string) (modes []string) {
	for _, m := range Rows {
		if slices.Contains(m.Keys, key) {
			modes = append(modes, m.Mode)
		}
	}
	return modes
}

// Rows are the modes with a session. A new one needs a row here and one in encap.Modes. The row
// has preset values, the keys that set fields in them, and a function that checks these.
var Rows = []Row{
	row("ayiya", config.AYIYAPortNumber, config.AYIYA{Hash: "sha1"}, []tree.Key[*config.AYIYA]{
		{Name: "identity", Read: identity(func(s *config.AYIYA) *netip.Addr { return &s.Identity })},
		{Name: "password_file", Read: secret(1, func(s *config.AYIYA) *config.Secret { return &s.Password })},
		{Name: "hash", Read: word(func(s *config.AYIYA) *string { return &s.Hash }, "sha1", "sha256", "md5")},
	}, func(_ *config.AYIYA, r *problem.Report, t *Tunnel) { t.needIdentity(r) }),
	row("heartbeat", config.HeartbeatPortNumber, config.Heartbeat{}, []tree.Key[*config.Heartbeat]{
		{Name: "identity", Read: identity(func(s *config.Heartbeat) *netip.Addr { return &s.Identity })},
		{Name: "password_file", Read: secret(1, func(s *config.Heartbeat) *config.Secret { return &s.Password })},
	}, func(_ *config.Heartbeat, r *problem.Report, t *Tunnel) { t.needIdentity(r) }),
	row("tic", config.TICPortNumber, config.TIC{StartTLS: "auto"}, []tree.Key[*config.TIC]{
		{Name: "user", Read: text(userText, func(s *config.TIC) *string { return &s.User })},
		{Name: "password_file", Read: secret(1, func(s *config.TIC) *config.Secret { return &s.Password })},
		{Name: "tunnel_id", Read: text(`the number of the tunnel at the server, such as "T1234"`, func(s *config.TIC) *string { return &s.TunnelID })},
		{Name: "starttls", Read: word(func(s *config.TIC) *string { return &s.StartTLS }, "auto", "require", "off")},
		{Name: "ca", Read: file(func(s *config.TIC) *string { return &s.CA })},
	}, checkTIC),
	row("tsp", config.TSPPortNumber, config.TSP{Auth: "auto", Want: "any"}, []tree.Key[*config.TSP]{
		{Name: "user", Read: text(userText, func(s *config.TSP) *string { return &s.User })},
		{Name: "password_file", Read: secret(1, func(s *config.TSP) *config.Secret { return &s.Password })},
		{Name: "auth", Read: word(func(s *config.TSP) *string { return &s.Auth }, "auto", "anonymous", "plain", "digest-md5")},
		{Name: "want", Read: word(func(s *config.TSP) *string { return &s.Want }, "any", "v6v4", "v6udpv4")},
		{Name: "prefix_length", Read: func(r *problem.Report, e tree.Entry, s *config.TSP) {
			if n, _, ok := value.Number(r, e, 48, 64); ok {
				s.Prefix = int(n)
			}
		}},
	}, checkTSP),
	row("json", config.JSONPortNumber, config.JSON{}, []tree.Key[*config.JSON]{
		{Name: "id", Read: text("the name by which the server knows this client, such as its MAC address", func(s *config.JSON) *string { return &s.ID })},
		{Name: "secret_file", Read: secret(leastSecret, func(s *config.JSON) *config.Secret { return &s.Secret })},
		{Name: "tls", Read: func(r *problem.Report, e tree.Entry, s *config.JSON) {
			if w, ok := value.Word(r, e, "off", "on"); ok {
				s.TLS = w == "on"
			}
		}},
		{Name: "ca", Read: file(func(s *config.JSON) *string { return &s.CA })},
	}, checkJSON),
}

// userText says what the key user is.
const userText = "the user of the account at the server"

// needIdentity reports what AYIYA and heartbeats need.
func (t *Tunnel) needIdentity(r *problem.Report) {
	t.need(r, "identity", "the IPv6 address of this end of the tunnel, by which the server knows it")
	t.need(r, "password_file", "a file with the password of the tunnel")
}

func checkTIC(s *config.TIC, r *problem.Report, t *Tunnel) {
	t.need(r, "user", userText)
	t.need(r, "password_file", "a file with the password of the user")
	if s.StartTLS == "off" && t.State.Set["ca"] {
		r.Add(t.at("ca"), `ca has no effect with starttls = "off", which excludes certificates: leave one of them out`)
	}
}

func checkTSP(s *config.TSP, r *problem.Report, t *Tunnel) {
	named, secret := t.State.Set["user"], t.State.Set["password_file"]
	switch {
	case t.State.Bad["auth"]:
	case s.Auth == "anonymous" && named:
		r.Add(t.at("user"), `user contradicts auth = "anonymous": leave one of them out`)
	case s.Auth == "anonymous" && secret:
		r.Add(t.at("password_file"), `password_file contradicts auth = "anonymous": leave one of them out`)
	case s.Auth != "auto" && s.Auth != "anonymous" && !named:
		r.Add(t.at("auth"), `auth is %s, which needs a user: set user to %s, or auth to "anonymous"`, problem.Quote(s.Auth), userText)
	case named && !secret:
		r.Add(t.at("user"), "user needs password_file: set it to a file with the password of the user, or leave user out to be anonymous")
	case secret && !named:
		r.Add(t.at("password_file"), "password_file needs user: set it to %s, or leave password_file out to be anonymous", userText)
	}
}

func checkJSON(s *config.JSON, r *problem.Report, t *Tunnel) {
	t.need(r, "id", "the name by which the server knows this client, such as its MAC address")
	if !s.TLS && t.State.Set["ca"] && !t.State.Bad["tls"] {
		r.Add(t.at("ca"), `ca has no effect without TLS: set tls to "on", or leave ca out`)
	}
}

// row returns a mode whose settings, with preset values, are read into an S.
func row[S any](mode string, port uint16, preset S, keys []tree.Key[*S], check func(*S, *problem.Report, *Tunnel)) Row {
	m := Row{Mode: mode, Keys: []string{"server"}}
	for _, k := range keys {
		m.Keys = append(m.Keys, k.Name)
	}
	m.Begin = func() Reading {
		s, at := preset, config.Client{Port: port}
		return Reading{
			Read: func(name string, r *problem.Report, e tree.Entry) {
				if name == "server" {
					readServer(r, e, &at)
					return
				}
				keys[slices.Index(m.Keys, name)-1].Read(r, e, &s)
			},
			Finish: func(r *problem.Report, t *Tunnel) config.Client {
				t.need(r, "server", "the server's name or address")
				check(&s, r, t)
				at.Settings = s
				return at
			},
		}
	}
	return m
}
