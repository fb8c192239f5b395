package connectip

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"time"

	"sixfour/transport"
)

// keepalive returns Keepalive or its preset.
func (s *Settings) keepalive() time.Duration {
	if s.Keepalive > 0 {
		return s.Keepalive
	}
	return 10 * time.Second
}

// check reports what is wrong with a list of peers.
func (p *Port) check(peers []transport.SessionPeer) error {
	ids := make(map[any]bool, len(peers))
	remotes := make(map[netip.AddrPort]any)
	identities := make(map[[sha256.Size]byte]any)
	for _, s := range peers {
		settings, ok := s.Settings.(*Settings)
		switch {
		case !ok || settings == nil:
			return fmt.Errorf("peer %v: its settings are of type %T", s.ID, s.Settings)
		case ids[s.ID]:
			return fmt.Errorf("peer %v is in the list twice", s.ID)
		}
		ids[s.ID] = true
		if err := settings.check(); err != nil {
			return fmt.Errorf("peer %v: %w", s.ID, err)
		}
		if s.Remote.IsValid() {
			if other, ok := remotes[s.Remote]; ok {
				return fmt.Errorf("peers %v and %v are both at %v: give them ports of their own", other, s.ID, s.Remote)
			}
			remotes[s.Remote] = s.ID
			if a := p.local.Addr(); a.IsValid() && a.Is4() != s.Remote.Addr().Is4() {
				return fmt.Errorf("peer %v: %v cannot be reached from %v", s.ID, s.Remote, a)
			}
			continue
		}
		if p.server == nil {
			return fmt.Errorf("peer %v: it has no address to connect to, and the port does not listen", s.ID)
		}
		i := p.door.identity(pathOf(settings.Path), settings.Secret)
		if other, ok := identities[i]; ok {
			return fmt.Errorf("peers %v and %v have the same path and secret", other, s.ID)
		}
		identities[i] = s.ID
	}
	return nil
}

// check reports what is wrong with the settings of a peer. It does not contain the secret.
func (s *Settings) check() error {
	u, err := url.ParseRequestURI(s.Path)
	switch {
	case err != nil || !strings.HasPrefix(s.Path, "/") || !visible(s.Path) || u.Host != "":
		return fmt.Errorf("path %q: it begins with / and consists of visible ASCII characters", s.Path)
	case len(s.Secret) == 0 || !visible(string(s.Secret)):
		return errors.New("the secret must consist of visible ASCII characters, without spaces")
	case !visible(s.Host) || !visible(s.ServerName) || strings.ContainsAny(s.Host, "/?#@"):
		return fmt.Errorf("host %q, server name %q: they are names, of visible ASCII characters", s.Host, s.ServerName)
	case s.Over != "" && s.Over != Auto && s.Over != UDP && s.Over != TCP:
		return fmt.Errorf("over %q: it is auto, udp or tcp", s.Over)
	case s.Proxy != nil && s.Over == UDP:
		return errors.New("an HTTP proxy passes TCP only, and over is udp")
	case s.Proxy != nil && (s.Proxy.Scheme != "http" || s.Proxy.Hostname() == ""):
		return fmt.Errorf("proxy %q: it is like http://host:port", s.Proxy.Redacted())
	case s.Keepalive < 0:
		return fmt.Errorf("keepalive %v: it is positive", s.Keepalive)
	}
	for _, list := range [][]netip.Prefix{s.Assign, s.Routes, s.Request} {
		for i, p := range list {
			if !p.IsValid() || p != p.Masked() {
				return fmt.Errorf("%v is not a prefix: the bits behind its length are 0", p)
			}
			for _, other := range list[:i] {
				if other.Overlaps(p) && !p.Addr().IsUnspecified() {
					return fmt.Errorf("%v and %v overlap", other, p)
				}
			}
		}
	}
	return nil
}

// visible reports whether all bytes are visible ASCII characters.
func visible(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' })
}

// pathOf returns the path of a request's target with its query, so that "*" and "%2A" are the
// same.
func pathOf(target string) string {
	u, err := url.ParseRequestURI(target)
	if err != nil {
		return target
	}
	return path(u)
}

func path(u *url.URL) string {
	if u.RawQuery == "" {
		return u.Path
	}
	query, err := url.QueryUnescape(u.RawQuery)
	if err != nil {
		query = u.RawQuery
	}
	return u.Path + "?" + query
}

// door finds the peer of a request. What it compares are keyed hashes: how long that takes
// says nothing about a secret.
type door struct {
	key [32]byte // random

	mu    sync.RWMutex
	peers map[[sha256.Size]byte]*peer
	paths map[string]bool
}

func newDoor() *door {
	d := new(door)
	rand.Read(d.key[:]) // never fails
	return d
}

// identity returns the hash of a path and a secret.
func (d *door) identity(path string, secret []byte) (sum [sha256.Size]byte) {
	h := hmac.New(sha256.New, d.key[:])
	h.Write([]byte(path))
	h.Write([]byte{0})
	h.Write(secret)
	h.Sum(sum[:0])
	return sum
}

// set replaces the peers; only those that connect to us count.
func (d *door) set(all map[any]*peer) {
	peers, paths := make(map[[sha256.Size]byte]*peer), make(map[string]bool)
	for _, p := range all {
		if !p.Remote.IsValid() {
			at := pathOf(p.settings.Path)
			peers[d.identity(at, p.settings.Secret)], paths[at] = p, true
		}
	}
	d.mu.Lock()
	d.peers, d.paths = peers, paths
	d.mu.Unlock()
}

// admit returns the peer of a request, or the error and the status to answer.
func (d *door) admit(r *http.Request) (*peer, int, error) {
	at := path(r.URL)
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		token = ""
	}
	token = strings.TrimSpace(token)
	want := d.identity(at, []byte(token))
	d.mu.RLock()
	defer d.mu.RUnlock()
	if !d.paths[at] {
		return nil, http.StatusNotFound, ErrPath
	}
	p := d.peers[want]
	if p == nil || subtle.ConstantTimeCompare([]byte(token), p.settings.Secret) != 1 {
		return nil, http.StatusUnauthorized, ErrSecret
	}
	return p, http.StatusOK, nil
}
