package ddns

import (
	"context"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"sixfour/internal/config"
)

var account = config.AddressUpdate{User: "anna", Key: config.Secret{File: "/k"}.With("a key"), Host: "123456"}

// serve starts a server with TLS, and returns its URL and a client that knows its
// certificate.
func serve(t *testing.T, h http.HandlerFunc) (string, *http.Client) {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	t.Cleanup(s.Close)
	transport := transportFrom(netip.MustParseAddr("127.0.0.1"), 0, net.DefaultResolver)
	transport.TLSClientConfig.RootCAs = x509.NewCertPool()
	transport.TLSClientConfig.RootCAs.AddCert(s.Certificate())
	return s.URL, &http.Client{Transport: transport, Timeout: 10 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

func TestAnswers(t *testing.T) {
	for _, c := range []struct {
		status  int
		body    string
		verdict verdict
		text    string
		problem string // how it begins
	}{
		{200, "good 203.0.113.10", accepted, "good 203.0.113.10", ""},
		{200, "good 203.0.113.10\r\n", accepted, "good 203.0.113.10", ""},
		{200, "\n nochg 203.0.113.10\nmore\n", accepted, "nochg 203.0.113.10", ""},
		{200, "nochg", accepted, "nochg", ""},
		{200, "Good 2001:db8::1", accepted, "Good 2001:db8::1", ""},
		{200, "good 127.0.0.1", refused, "good 127.0.0.1", "it ignores this program"},
		{200, "badauth", refused, "badauth", "it does not accept update_user"},
		{401, "badauth", refused, "badauth", "it does not accept update_user"},
		{401, "<html>", refused, "401 Unauthorized", "it does not accept update_user"},
		{403, "", refused, "403 Forbidden", "it does not accept update_user"},
		{200, "nohost", refused, "nohost", "it does not know update_host"},
		{200, "notfqdn", refused, "notfqdn", "it does not accept update_host"},
		{200, "numhost", refused, "numhost", "update_host is too many hosts"},
		{200, "!yours", refused, "!yours", "update_host belongs to another user"},
		{200, "!donator", refused, "!donator", "the account does not include"},
		{200, "badagent", refused, "badagent", "it does not serve this program"},
		{200, "abuse", abuse, "abuse", "it has blocked update_host"},
		{429, "slow down", abuse, "429 Too Many Requests", "it has blocked update_host"},
		{200, "911", trouble, "911", "it has a problem or is being maintained"},
		{500, "911", trouble, "911", "it has a problem or is being maintained"},
		{200, "dnserr", trouble, "dnserr", "it has a problem with its name servers"},
		{502, "Bad gateway", failed, "502 Bad Gateway", "it answers 502 Bad Gateway"},
		{404, "good 203.0.113.10", refused, "404 Not Found", "it answers 404 Not Found: correct update_url"},
		{200, "", trouble, "", `it answers "", which is none`},
		{200, "<html>\x1b[31m\n", trouble, "<html>?[31m", `it answers "<html>?[31m", which is none`},
		{200, strings.Repeat("x", 4096), trouble, strings.Repeat("x", 200) + "…", `it answers "xxx`},
		{200, strings.Repeat("x", 4097), trouble, "", "its answer is longer than 4096 bytes"},
		{200, "good 203.0.113.10\n" + strings.Repeat("x", 1<<20), trouble, "", "its answer is longer than 4096 bytes"},
	} {
		address, client := serve(t, func(w http.ResponseWriter, r *http.Request) {
			user, key, ok := r.BasicAuth()
			if r.Method != "GET" || r.URL.Path != "/nic/update" || r.URL.RawQuery != "hostname=123456&x=1" || !ok || user != "anna" || key != "a key" || !strings.HasPrefix(r.UserAgent(), "sixfour/") {
				t.Errorf("%s %v, %q", r.Method, r.URL, r.Header)
			}
			w.WriteHeader(c.status)
			io.WriteString(w, c.body)
		})
		account := account
		account.URL = address + "/nic/update?x=1"
		a := ask(t.Context(), client, account)
		if a.verdict != c.verdict || a.text != c.text || !strings.HasPrefix(a.problem, c.problem) || (a.problem == "") != (c.problem == "") {
			t.Errorf("%d %.20q: %+v", c.status, c.body, a)
		}
	}
}

// A redirection is not followed, to whatever server: it would get the key.
func TestRedirect(t *testing.T) {
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("it was followed") }))
	defer other.Close()
	for _, to := range []string{other.URL + "/nic/update", "https://elsewhere.example/", "/here"} {
		address, client := serve(t, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, to, http.StatusFound) })
		account := account
		account.URL = address
		if a := ask(t.Context(), client, account); a.verdict != refused || a.problem != "it redirects to "+to+", where the key is not sent: correct update_url" {
			t.Errorf("%+v", a)
		}
	}
}

func TestSlow(t *testing.T) {
	for _, begun := range []bool{false, true} {
		release := make(chan struct{})
		address, client := serve(t, func(w http.ResponseWriter, r *http.Request) {
			if begun {
				io.WriteString(w, "good ")
				w.(http.Flusher).Flush()
			}
			<-release
		})
		client.Timeout = 50 * time.Millisecond
		account := account
		account.URL = address
		a := ask(t.Context(), client, account)
		close(release)
		if a.verdict != failed || !strings.HasPrefix(a.problem, "no answer within") {
			t.Errorf("%+v", a)
		}
	}
}

// Certificates are checked: one of an unknown authority, and one for another name.
func TestCertificate(t *testing.T) {
	asked := func(http.ResponseWriter, *http.Request) { t.Error("the request was sent") }
	address, client := serve(t, asked)
	account := account
	account.URL = address
	if a := request(t.Context(), net.DefaultResolver, account, 0, netip.MustParseAddr("127.0.0.1")); a.verdict != failed || !strings.HasPrefix(a.problem, "its certificate is not valid: ") {
		t.Errorf("%+v", a)
	}
	client.Transport.(*http.Transport).TLSClientConfig.ServerName = "other.test"
	if a := ask(t.Context(), client, account); a.verdict != failed || !strings.HasPrefix(a.problem, "its certificate is not valid: ") {
		t.Errorf("%+v", a)
	}
}

// A key that could not be read is not sent.
func TestNoKey(t *testing.T) {
	account := account
	account.URL, account.Key = "https://127.0.0.1:1/", config.Secret{File: "/k"}
	if a := ask(t.Context(), http.DefaultClient, account); a.verdict != refused || !strings.HasPrefix(a.problem, "update_key_file could not be read") {
		t.Errorf("%+v", a)
	}
}

func TestNotHTTPS(t *testing.T) {
	account := account
	for _, account.URL = range []string{"http://127.0.0.1:1/", "127.0.0.1", "https://\x00"} {
		if a := ask(t.Context(), http.DefaultClient, account); a.verdict != refused || !strings.HasPrefix(a.problem, "update_url ") {
			t.Errorf("%+v", a)
		}
	}
}

// The request leaves from the given address, over its IP version.
func TestFrom(t *testing.T) {
	address, client := serve(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprintf(w, "good %s", r.RemoteAddr) })
	tls := client.Transport.(*http.Transport).TLSClientConfig
	account := account
	account.URL = address
	transport := transportFrom(netip.MustParseAddr("127.0.0.7"), 0, net.DefaultResolver)
	transport.TLSClientConfig = tls
	if a := ask(t.Context(), &http.Client{Transport: transport}, account); !strings.HasPrefix(a.text, "good 127.0.0.7:") {
		t.Errorf("%+v", a)
	}
	transport = transportFrom(netip.MustParseAddr("::1"), 0, net.DefaultResolver)
	transport.TLSClientConfig = tls
	if a := ask(t.Context(), &http.Client{Transport: transport}, account); a.verdict != failed {
		t.Errorf("%+v", a)
	}
}

func TestCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	address, client := serve(t, func(http.ResponseWriter, *http.Request) {})
	account := account
	account.URL = address
	if a := ask(ctx, client, account); a.verdict != failed {
		t.Errorf("%+v", a)
	}
}
