package e2e

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"sixfour/internal/api"
	"sixfour/internal/control/client"
)

// broker is a server of dynamic DNS on b, at port 443. The daemon on a reaches it by name, and
// finds its certificate, which is valid for broker.example.com.
type broker struct {
	hosts
	hostsFile, authority, key string // files
	answer                    func(http.ResponseWriter)

	mu    sync.Mutex
	asked []string // source address, user, key and host of each request
}

func newBroker(t *testing.T, answer func(http.ResponseWriter)) *broker {
	t.Helper()
	b := &broker{hosts: newHosts(t, 1500), answer: answer}
	s := httptest.NewUnstartedServer(b)
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.Listener.Close()
	must(t, b.b.Do(func() (err error) {
		s.Listener, err = net.Listen("tcp", netip.AddrPortFrom(outerB, 443).String())
		return err
	}))
	s.StartTLS()
	t.Cleanup(s.Close)
	dir := t.TempDir()
	b.hostsFile, b.authority, b.key = filepath.Join(dir, "hosts"), filepath.Join(dir, "authority.pem"), filepath.Join(dir, "key")
	must(t, os.WriteFile(b.hostsFile, fmt.Appendf(nil, "%v broker.example.com broker.test\n", outerB), 0o644))
	must(t, os.WriteFile(b.authority, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}), 0o644))
	return b
}

func (b *broker) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	user, key, _ := r.BasicAuth()
	from, _, _ := net.SplitHostPort(r.RemoteAddr)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.asked = append(b.asked, fmt.Sprintf("%s %s %s %s", from, user, key, r.URL))
	b.answer(w)
}

// requests returns the requests until now.
func (b *broker) requests() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return strings.Join(b.asked, "\n")
}

// tells sets the answer to the next requests.
func (b *broker) tells(answer func(http.ResponseWriter)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.answer = answer
}

// says answers a text.
func says(text string) func(http.ResponseWriter) {
	return func(w http.ResponseWriter) { io.WriteString(w, text) }
}

// config returns the configuration of a, with the key in a file.
func (b *broker) config(t *testing.T, host, key string) string {
	t.Helper()
	must(t, os.WriteFile(b.key, []byte(key+"\n"), 0o600))
	return strings.Replace(plainA(), `local = "203.0.113.10"`, `local = "auto"`, 1) +
		fmt.Sprintf("update_url = \"https://%s/nic/update\"\nupdate_user = \"anna\"\nupdate_host = \"4711\"\nupdate_key_file = %q\n", host, b.key)
}

// start starts a daemon on a that trusts an authority.
func (b *broker) start(t *testing.T, config, authority string) *daemon {
	t.Helper()
	d := launchWith(t, b.a, config, map[string]string{"/etc/hosts": b.hostsFile}, "SSL_CERT_FILE="+authority)
	d.wait(t, "ready")
	return d
}

// updated waits until a report of the address has a state and a text in its answer or error.
func (d *daemon) updated(t *testing.T, state, text string) (u api.AddressUpdate) {
	t.Helper()
	eventually(t, "the report is "+state+" because of "+text, func() error {
		_, s := d.status(t)
		if s.AddressUpdate == nil {
			return errors.New("there is none")
		}
		u = *s.AddressUpdate
		if u.State != state || !strings.Contains(u.Answer+u.Error, text) {
			return fmt.Errorf("%+v", u)
		}
		return nil
	})
	return u
}

// The broker gets the address at the start and when it has changed, from that address, and not
// after it has refused the key until that is corrected. The daemon is in its sandbox.
func TestAddressIsReported(t *testing.T) {
	t.Parallel()
	b := newBroker(t, says("good 203.0.113.10"))
	config := b.config(t, "broker.example.com", "the first key")
	d := b.start(t, config, b.authority)
	if u := d.updated(t, api.UpdateDone, "good 203.0.113.10"); u.Local != "203.0.113.10" || u.Server != "broker.example.com" || u.Host != "4711" {
		t.Errorf("%+v", u)
	}
	d.wait(t, "the broker knows our address")
	d.mustReload(t, config+"ttl = 63\n") // is no reason to report again

	b.tells(says("badauth"))
	must(t, b.a.DelAddr("va", netip.PrefixFrom(outerA, 24)))
	must(t, b.a.AddAddr("va", netip.MustParsePrefix("203.0.113.99/24")))
	d.updated(t, api.UpdateStopped, "it does not accept update_user with the key in update_key_file: correct them")
	d.wait(t, "cannot report our address to the broker")

	b.tells(says("nochg 203.0.113.99"))
	d.mustReload(t, b.config(t, "broker.example.com", "the second key")+"ttl = 63\n")
	d.updated(t, api.UpdateDone, "nochg 203.0.113.99")
	want := `203.0.113.10 anna the first key /nic/update?hostname=4711
203.0.113.99 anna the first key /nic/update?hostname=4711
203.0.113.99 anna the second key /nic/update?hostname=4711`
	if got := b.requests(); got != want {
		t.Errorf("requests\n%s\nwant\n%s", got, want)
	}
	if text := d.log.String(); strings.Contains(text, "the first key") || strings.Contains(text, "the second key") {
		t.Errorf("the key is in the log:\n%s", text)
	}
	events := eventsOf(t, d)
	for _, kind := range []string{"address broker.example.com answers good 203.0.113.10", "error broker.example.com: it does not accept update_user", "address broker.example.com answers nochg 203.0.113.99"} {
		if !strings.Contains(events, kind) {
			t.Errorf("no event %q in\n%s", kind, events)
		}
	}
	d.mustReload(t, plainA())
	if _, s := d.status(t); s.AddressUpdate != nil {
		t.Errorf("%+v after update_url was taken out", s.AddressUpdate)
	}
}

// eventsOf returns the events of a daemon until now, one per line.
func eventsOf(t *testing.T, d *daemon) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	var b strings.Builder
	err := client.New(d.socket).Events(ctx, func(e api.Event) error {
		_, err := fmt.Fprintf(&b, "%s %s\n", e.Kind, e.Text)
		return err
	})
	if ctx.Err() == nil {
		t.Error(err)
	}
	return b.String()
}

// Without a certificate of the broker that is valid the key is not sent; other failures are
// repeated after a pause. The tunnel carries packets all the while.
func TestAddressIsNotReported(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, host string
		authority  string // "": that of the server
		answer     func(http.ResponseWriter)
		want       string
		asked      bool
		pause      time.Duration // at least
	}{
		{"a certificate for another name", "broker.test", "", says("good"), "its certificate is not valid: x509: certificate is valid for", false, 20 * time.Second},
		{"an authority that is not known", "broker.example.com", "/dev/null", says("good"), "its certificate is not valid: x509: certificate signed by unknown authority", false, 20 * time.Second},
		{"a name that is not known", "no.such.name.invalid", "", says("good"), "no.such.name.invalid", false, 20 * time.Second},
		{"an error of the server", "broker.example.com", "", func(w http.ResponseWriter) { w.WriteHeader(http.StatusBadGateway) }, "it answers 502 Bad Gateway", true, 20 * time.Second},
		{"maintenance", "broker.example.com", "", says("911"), "it has a problem or is being maintained", true, 29 * time.Minute},
		{"too many requests", "broker.example.com", "", says("abuse"), "it has blocked update_host after too many updates", true, 5 * time.Hour},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			b := newBroker(t, c.answer)
			far := start(t, b.b, plainB())
			if c.authority == "" {
				c.authority = b.authority
			}
			d := b.start(t, b.config(t, c.host, "the key"), c.authority)
			u := d.updated(t, api.UpdateRetrying, c.want)
			if pause := u.Next.Sub(u.At); pause < c.pause {
				t.Errorf("a pause of %v: %+v", pause, u)
			}
			if asked := b.requests() != ""; asked != c.asked {
				t.Errorf("requests: %q", b.requests())
			}
			reachable(t, b.a, in6B)
			if _, s := far.status(t); s.AddressUpdate != nil {
				t.Errorf("%+v without update_url", s.AddressUpdate)
			}
		})
	}
}
