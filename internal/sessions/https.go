package sessions

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"os"
	"sync"
	"time"

	"go.uber.org/zap"

	"sixfour/internal/config"
	"sixfour/internal/ports"
	"sixfour/internal/trusted"
	"sixfour/transport"
	"sixfour/transport/connectip"
)

func (s Sockets) listenHTTPS(of config.HTTPSPort, k ports.Key, o transport.Options) (transport.Port, error) {
	c := connectip.Config{Local: k.Local, Over: connectip.Over(of.Over)}
	if s.Connected != nil {
		c.Connected = func(id any, at netip.AddrPort, why error) { s.Connected(id, at, advise(why)) }
	}
	c.Using = func(id any, over connectip.Over) {
		s.Log.Info("connected", zap.Any("path", id), zap.String("over", versions[over]))
	}
	switch {
	case !of.Listen:
	case of.Certificate == "":
		c.Plain = true
	default:
		get, err := Certificate(of.Certificate, of.Key, s.Log)
		if err != nil {
			return nil, err
		}
		c.Certificate = get
	}
	limit := limiter{log: s.Log.With(zap.Stringer("local", k.Local))}
	c.Refused = limit.refused
	return port(connectip.Listen(c, o))
}

// versions are the versions of HTTP by what they run over.
var versions = map[connectip.Over]string{connectip.UDP: "UDP, by HTTP/3", connectip.TCP: "TCP, by HTTP/1.1"}

// advise adds to an error of a connection what can be done about it, in terms of the
// configuration.
func advise(why error) error {
	var (
		unknown x509.UnknownAuthorityError
		name    x509.HostnameError
		invalid x509.CertificateInvalidError
	)
	advice := ""
	switch {
	case errors.As(why, &unknown):
		advice = "name the file with the certificate of its authority in ca"
	case errors.As(why, &name):
		advice = "give url a name that the certificate is for, or the server a certificate for this name"
	case errors.As(why, &invalid) && invalid.Reason == x509.Expired:
		advice = "renew the server's certificate, or set this host's clock"
	}
	if advice == "" {
		return why
	}
	return fmt.Errorf("%w: %s", why, advice)
}

// limiter logs connections that were refused, at most one each second.
type limiter struct {
	log  *zap.Logger
	mu   sync.Mutex
	next time.Time
	more int // not logged since
}

func (l *limiter) refused(from netip.AddrPort, why error) {
	l.mu.Lock()
	now, more := time.Now(), l.more
	if now.Before(l.next) {
		l.more++
		l.mu.Unlock()
		return
	}
	l.next, l.more = now.Add(time.Second), 0
	l.mu.Unlock()
	l.log.Info("a connection was refused", zap.Stringer("from", from), zap.Error(why), zap.Int("others", more))
}

// Certificate returns what tls.Config.GetCertificate needs: a certificate with its key, in files
// that are read again when they change. If the files are not valid any more, it is the former
// one.
func Certificate(chain, key string, log *zap.Logger) (func(*tls.ClientHelloInfo) (*tls.Certificate, error), error) {
	c := &certificate{chain: chain, key: key, log: log}
	if _, err := c.get(nil); err != nil {
		return nil, err
	}
	return c.get, nil
}

// certificate is a certificate with its key, in files.
type certificate struct {
	chain, key string // files
	log        *zap.Logger

	mu      sync.Mutex
	pair    *tls.Certificate
	changed [2]time.Time // when the files were changed that pair is from
	looked  time.Time
}

// lookAgain is how long the files are taken for unchanged.
const lookAgain = 5 * time.Second

// get returns the certificate. If the files are not valid any more, it is the former one.
func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	if c.pair != nil && now.Sub(c.looked) < lookAgain {
		return c.pair, nil
	}
	c.looked = now
	var changed [2]time.Time
	for i, path := range [...]string{c.chain, c.key} {
		if info, err := os.Stat(path); err == nil {
			changed[i] = info.ModTime()
		}
	}
	if c.pair != nil && changed == c.changed {
		return c.pair, nil
	}
	c.changed = changed
	pair, err := c.read()
	switch {
	case err == nil:
		c.pair = pair
		if leaf := pair.Leaf; leaf != nil && now.After(leaf.NotAfter) {
			c.log.Warn("the certificate has expired: peers refuse it: renew it", zap.String("certificate", c.chain), zap.Time("since", leaf.NotAfter))
		}
	case c.pair == nil:
		return nil, err
	default:
		c.log.Error("the new certificate is not used", zap.Error(err))
	}
	return c.pair, nil
}

func (c *certificate) read() (*tls.Certificate, error) {
	chain, err := os.ReadFile(c.chain)
	if err != nil {
		return nil, fmt.Errorf("certificate: %w", err)
	}
	key, err := trusted.ReadSecret(c.key)
	if err != nil {
		return nil, fmt.Errorf("key %s: %w", c.key, err)
	}
	pair, err := tls.X509KeyPair(chain, []byte(key))
	if err != nil {
		return nil, fmt.Errorf("certificate %s and key %s: %w", c.chain, c.key, err)
	}
	return &pair, nil
}

func httpsSettings(t *config.Tunnel, path *config.Path, of config.HTTPS) (*connectip.Settings, error) {
	if path.Secret.Value() == "" {
		return nil, fmt.Errorf("secret_file %s: it could not be read", path.Secret)
	}
	u, err := url.Parse(of.URL)
	if err != nil {
		return nil, err
	}
	s := &connectip.Settings{Path: u.Path, Secret: []byte(path.Secret.Value()), Over: connectip.Over(of.Over), Keepalive: t.Keepalive}
	if path.Listen {
		return s, nil
	}
	s.ServerName, s.Host = u.Hostname(), u.Host
	if s.Host == "" {
		s.ServerName, s.Host = path.Remote.Name, path.Remote.Name
	}
	if of.Proxy != "" {
		if s.Proxy, err = url.Parse(of.Proxy); err != nil {
			return nil, fmt.Errorf("proxy: it is no URL") // it may have a password in it
		}
	}
	if of.CA != "" {
		pem, err := os.ReadFile(of.CA)
		if err != nil {
			return nil, fmt.Errorf("ca: %w", err)
		}
		s.Roots = x509.NewCertPool()
		if !s.Roots.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("ca %s: there is no certificate in it", of.CA)
		}
	}
	return s, nil
}
