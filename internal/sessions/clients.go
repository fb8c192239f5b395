package sessions

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"

	wire "sixfour/encap/ayiya"
	negotiation "sixfour/encap/tsp"
	"sixfour/internal/config"
	"sixfour/transport/ayiya"
	"sixfour/transport/jsontun"
	"sixfour/transport/tsp"
)

// reportsOf returns what is told of the session at a path; nil: nothing is. The id is that of a
// transport.SessionPeer.
func reportsOf(id any) config.Reports {
	if path, ok := id.(interface{ Session() any }); ok {
		return config.ReportsOf(path.Session())
	}
	return nil
}

// reported is Connected for ports of clients: it tells the session, too.
func (s Sockets) reported(id any, at netip.AddrPort, why error) {
	if r := reportsOf(id); r != nil && (at.IsValid() || why != nil) {
		r.Connected(at, why)
	}
	if s.Connected != nil {
		s.Connected(id, at, why)
	}
}

// said tells the session what its server says.
func said(id any, text string) {
	if r := reportsOf(id); r != nil {
		r.Said(text)
	}
}

// read returns the value of a secret.
func read(key string, secret config.Secret) (string, error) {
	if secret.Value() == "" {
		return "", fmt.Errorf("%s %s: it could not be read: correct it, and reload", key, secret)
	}
	return secret.Value(), nil
}

func ayiyaSettings(t *config.Tunnel, of config.AYIYA) (*ayiya.Settings, error) {
	hash, err := wire.ParseHash(of.Hash)
	if err != nil {
		return nil, err
	}
	s := &ayiya.Settings{Client: of.Identity, Hash: hash}
	s.Secret, err = read("password_file", of.Password)
	if k := t.Keepalive; k > 0 && k < ayiya.MaxHeartbeat {
		s.Heartbeat = k
	}
	return s, err
}

func jsonSettings(t *config.Tunnel, of config.JSON) (*jsontun.Settings, error) {
	s := &jsontun.Settings{ID: of.ID}
	if of.Secret.File != "" {
		secret, err := read("secret_file", of.Secret)
		if err != nil {
			return nil, err
		}
		s.Secret = []byte(secret)
	}
	if of.TLS {
		s.TLS = &tls.Config{MinVersion: tls.VersionTLS12, ServerName: t.Client.Server.Name}
		if s.TLS.ServerName == "" {
			s.TLS.ServerName = t.Client.Server.Addr.String()
		}
		if of.CA != "" {
			pem, err := os.ReadFile(of.CA)
			if err != nil {
				return nil, fmt.Errorf("ca: %w", err)
			}
			if s.TLS.RootCAs = x509.NewCertPool(); !s.TLS.RootCAs.AppendCertsFromPEM(pem) {
				return nil, fmt.Errorf("ca %s: there is no certificate in it", of.CA)
			}
		}
	}
	if r := of.Reports; r != nil {
		s.Granted = func(g jsontun.Grant) {
			r.Granted(config.Grant{Address: firstOf(g.Prefix), Routed: []netip.Prefix{g.Prefix}})
		}
	}
	return s, nil
}

// firstOf returns the first address of a prefix, in the first network of /64 or, if the prefix is
// longer, of its own length.
func firstOf(p netip.Prefix) netip.Prefix {
	return netip.PrefixFrom(p.Masked().Addr().Next(), max(p.Bits(), 64))
}

func tspSettings(t *config.Tunnel, of config.TSP) (*tsp.Settings, error) {
	s := &tsp.Settings{User: of.User, PrefixLength: of.Prefix, Keepalive: t.Keepalive}
	if of.Auth != "auto" {
		s.Auth = negotiation.Auth(strings.ToUpper(of.Auth))
	}
	if of.Want != "any" {
		s.Want = negotiation.Type(of.Want)
	}
	if of.User != "" {
		var err error
		if s.Password, err = read("password_file", of.Password); err != nil {
			return nil, err
		}
	}
	s.Lookup = func(ctx context.Context, name string) ([]netip.Addr, error) {
		return net.DefaultResolver.LookupNetIP(ctx, "ip4", name)
	}
	if r := of.Reports; r != nil {
		s.Failed = func(err error) { r.Connected(netip.AddrPort{}, err) }
		s.Granted = func(g tsp.Grant) { r.Granted(ofTSP(g)) }
	}
	return s, nil
}

// ofTSP returns what a server of TSP has granted.
func ofTSP(g tsp.Grant) config.Grant {
	granted := config.Grant{Address: netip.PrefixFrom(g.Inner, g.Inner.BitLen()), Remote: g.ServerInner, Every: g.Keepalive}
	if network := netip.PrefixFrom(g.Inner, 64).Masked(); g.ServerInner.IsValid() && network.Contains(g.ServerInner) {
		granted.Address = netip.PrefixFrom(g.Inner, 64)
	}
	if g.KeepaliveTo.IsValid() {
		granted.Remote = g.KeepaliveTo
	}
	if g.Prefix.IsValid() {
		granted.Routed = []netip.Prefix{g.Prefix}
	}
	if g.Type == negotiation.V6V4 {
		granted.Path = &config.Path{Encap: config.NoEncapsulation, Remote: config.Host{Addr: g.Remote}}
	}
	return granted
}
