package sessions

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	negotiation "sixfour/encap/tsp"
	"sixfour/internal/config"
	"sixfour/transport"
	"sixfour/transport/jsontun"
	"sixfour/transport/tsp"
)

// What servers grant, as the configuration has it.
func TestGrants(t *testing.T) {
	a, p := netip.MustParseAddr, netip.MustParsePrefix
	for _, c := range []struct {
		name string
		got  config.Grant
		want config.Grant
	}{
		{"both ends in one network", ofTSP(tsp.Grant{Type: negotiation.V6UDPV4, Inner: a("2001:db8:f::2"), ServerInner: a("2001:db8:f::1"), Prefix: p("2001:db8:100::/56"), Keepalive: 30 * time.Second}),
			config.Grant{Address: p("2001:db8:f::2/64"), Remote: a("2001:db8:f::1"), Routed: []netip.Prefix{p("2001:db8:100::/56")}, Every: 30 * time.Second}},
		{"in different networks", ofTSP(tsp.Grant{Type: negotiation.V6UDPV4, Inner: a("2001:db8:f::2"), ServerInner: a("2001:db8:e::1"), KeepaliveTo: a("2001:db8:e::9")}),
			config.Grant{Address: p("2001:db8:f::2/128"), Remote: a("2001:db8:e::9")}},
		{"protocol 41", ofTSP(tsp.Grant{Type: negotiation.V6V4, Inner: a("2001:db8:f::2"), Remote: a("192.0.2.9")}),
			config.Grant{Address: p("2001:db8:f::2/128"), Path: &config.Path{Encap: "none", Remote: config.Host{Addr: a("192.0.2.9")}}}},
	} {
		if !reflect.DeepEqual(c.got, c.want) {
			t.Errorf("%s: %+v, want %+v", c.name, c.got, c.want)
		}
	}
	for prefix, want := range map[string]string{"2001:db8:77:5::/64": "2001:db8:77:5::1/64", "2001:db8:100::/48": "2001:db8:100::1/64"} {
		if got := firstOf(p(prefix)); got != p(want) {
			t.Errorf("our address in %s is %v", prefix, got)
		}
	}
}

// recorder is a config.Reports.
type recorder struct {
	granted []config.Grant
	ended   []error
}

func (r *recorder) Granted(g config.Grant)                         { r.granted = append(r.granted, g) }
func (r *recorder) Connected(_ netip.AddrPort, why error)          { r.ended = append(r.ended, why) }
func (r *recorder) Said(string)                                    {}
func (r *recorder) path(of config.JSON) interface{ Session() any } { of.Reports = r; return with{of} }

// with is the ID of a peer of a port.
type with struct{ session any }

func (w with) Session() any { return w.session }

// The session and the owner of the path both get to know about connections.
func TestReported(t *testing.T) {
	r, calls := new(recorder), 0
	s := Sockets{Connected: func(any, netip.AddrPort, error) { calls++ }}
	away := errors.New("away")
	s.reported(r.path(config.JSON{}), netip.AddrPort{}, away)
	s.reported(with{config.JSON{}}, netip.AddrPort{}, away) // nobody is told of this one
	if calls != 2 || len(r.ended) != 1 || r.ended[0] != away {
		t.Errorf("%d calls, %v", calls, r.ended)
	}
}

// Settings have the values of the configuration, or an error names the file that is wrong.
func TestClientSettings(t *testing.T) {
	r := new(recorder)
	tunnel := &config.Tunnel{}
	tunnel.Client.Server.Name = "b.example"
	settings := func(s any) (any, error) { return Settings(tunnel, nil, &config.Path{Session: s}) }
	of := config.JSON{ID: "a", TLS: true, Reports: r, Secret: config.Secret{File: "/s"}.With("secret")}
	got, err := settings(of)
	if err != nil {
		t.Fatal(err)
	}
	j := got.(*jsontun.Settings)
	if j.ID != "a" || string(j.Secret) != "secret" || j.TLS.ServerName != "b.example" {
		t.Errorf("%+v", j)
	}
	j.Granted(jsontun.Grant{Prefix: netip.MustParsePrefix("2001:db8:9::/64")})
	if len(r.granted) != 1 || r.granted[0].Address != netip.MustParsePrefix("2001:db8:9::1/64") {
		t.Errorf("granted: %+v", r.granted)
	}
	none := filepath.Join(t.TempDir(), "ca")
	if err := os.WriteFile(none, []byte("nothing"), 0o600); err != nil {
		t.Fatal(err)
	}
	unread := config.Secret{File: "/p"}
	for _, c := range []struct {
		of   any
		want string
	}{
		{config.JSON{Secret: unread}, "secret_file /p: it could not be read"},
		{config.JSON{TLS: true, CA: none}, "there is no certificate in it"},
		{config.JSON{TLS: true, CA: none + "x"}, "ca: "},
		{config.AYIYA{Hash: "sha1", Password: unread}, "password_file /p: it could not be read"},
		{config.TSP{Auth: "auto", Want: "any", User: "a", Password: unread}, "password_file /p: it could not be read"},
	} {
		if got, err := settings(c.of); err == nil || got != nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, %v", c.of, got, err)
		}
	}
	got, err = settings(config.TSP{Auth: "digest-md5", Want: "v6udpv4", Prefix: 56})
	if s := got.(*tsp.Settings); err != nil || s.Auth != negotiation.DigestMD5 || s.Want != negotiation.V6UDPV4 || s.PrefixLength != 56 {
		t.Errorf("%+v, %v", got, err)
	}
}

var _ transport.Connected = Sockets{}.reported
