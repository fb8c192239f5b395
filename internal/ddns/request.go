package ddns

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"sixfour/internal/config"
	"sixfour/internal/version"
)

const (
	timeout   = 30 * time.Second // of a whole request
	maxAnswer = 4 << 10          // bytes
	maxHeader = 16 << 10         // bytes
	maxShown  = 200              // bytes of a text from the server
)

// verdict says what an answer means for the next request.
type verdict int

const (
	accepted verdict = iota
	failed           // there was no answer, or none of this protocol: try again soon
	trouble          // the server has a problem
	abuse            // there were too many requests
	refused          // another request would not help
)

// answer is the result of a request.
type answer struct {
	verdict
	text    string // the answer as it was received, for people; "": there was none
	problem string // why it was not accepted, and what to do
}

// words are the answers of the protocol, except for the accepted ones.
var words = map[string]answer{
	"badauth":  {refused, "", "it does not accept update_user with the key in update_key_file: correct them"},
	"nohost":   {refused, "", "it does not know update_host: correct it"},
	"notfqdn":  {refused, "", "it does not accept update_host as a name: correct it"},
	"numhost":  {refused, "", "update_host is too many hosts: name one"},
	"!yours":   {refused, "", "update_host belongs to another user: correct it, or update_user"},
	"!donator": {refused, "", "the account does not include this service: correct update_user, or extend the account"},
	"badagent": {refused, "", "it does not serve this program: use another way to tell it the address"},
	"abuse":    {abuse, "", "it has blocked update_host after too many updates: ask its operator, if it does not end"},
	"911":      {trouble, "", "it has a problem or is being maintained"},
	"dnserr":   {trouble, "", "it has a problem with its name servers"},
}

// request reports the address local, from which it sends the request.
func request(ctx context.Context, resolver *net.Resolver, account config.AddressUpdate, mark uint32, local netip.Addr) answer {
	client := &http.Client{
		Timeout:   timeout,
		Transport: transportFrom(local, mark, resolver),
		// The key must not go to another server.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	defer client.CloseIdleConnections()
	return ask(ctx, client, account)
}

// transportFrom returns a transport whose connections leave from an address.
func transportFrom(local netip.Addr, mark uint32, resolver *net.Resolver) *http.Transport {
	network := "tcp6"
	if local.Is4() {
		network = "tcp4"
	}
	dialer := net.Dialer{
		LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(local, 0)),
		Resolver:  resolver,
		Control: func(_, _ string, c syscall.RawConn) (err error) {
			if mark == 0 {
				return nil
			}
			if e := c.Control(func(fd uintptr) {
				err = os.NewSyscallError("setsockopt SO_MARK", unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, int(mark)))
			}); e != nil {
				return e
			}
			return err
		},
	}
	return &http.Transport{
		DialContext: func(ctx context.Context, _, addr string) (net.Conn, error) {
			return dialer.DialContext(ctx, network, addr)
		},
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12},
		DisableKeepAlives:      true,
		DisableCompression:     true,
		MaxResponseHeaderBytes: maxHeader,
	}
}

// ask sends a request, and reads the answer.
func ask(ctx context.Context, client *http.Client, account config.AddressUpdate) answer {
	u, err := url.Parse(account.URL)
	if err != nil || u.Scheme != "https" {
		return answer{refused, "", "update_url is not a URL with https: correct it"}
	}
	if account.Key.Value() == "" {
		return answer{refused, "", "update_key_file could not be read at the start: sixfourd -check says why: correct it"}
	}
	query := u.Query()
	query.Set("hostname", account.Host)
	u.RawQuery = query.Encode()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return answer{refused, "", "update_url: " + err.Error()}
	}
	r.SetBasicAuth(account.User, account.Key.Value())
	r.Header.Set("User-Agent", "sixfour/"+version.String())
	response, err := client.Do(r)
	if err != nil {
		return answer{failed, "", explain(err)}
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer+1))
	switch {
	case err != nil:
		return answer{failed, "", explain(err)}
	case len(body) > maxAnswer:
		return answer{trouble, "", fmt.Sprintf("its answer is longer than %d bytes, and so none of dynamic DNS: correct update_url", maxAnswer)}
	}
	return read(response, body)
}

// read returns the meaning of an answer.
func read(response *http.Response, body []byte) answer {
	line, _, _ := strings.Cut(strings.TrimSpace(string(body)), "\n")
	line = strings.TrimSpace(line)
	word, rest, _ := strings.Cut(line, " ")
	word = strings.ToLower(word)
	text := printable(line)
	if a, ok := words[word]; ok { // some servers send an error status with it
		a.text = text
		return a
	}
	status, why := response.StatusCode, printable(response.Status)
	switch {
	case status == http.StatusUnauthorized, status == http.StatusForbidden:
		a := words["badauth"]
		a.text = why
		return a
	case status == http.StatusTooManyRequests:
		a := words["abuse"]
		a.text = why
		return a
	case status >= 300 && status < 400:
		return answer{refused, why, "it redirects to " + printable(response.Header.Get("Location")) + ", where the key is not sent: correct update_url"}
	case status >= 500:
		return answer{failed, why, "it answers " + why}
	case status != http.StatusOK:
		return answer{refused, why, "it answers " + why + ": correct update_url"}
	case word == "good" || word == "nochg":
		// Servers that ignore a client answer with this address.
		if a, err := netip.ParseAddr(strings.TrimSpace(rest)); err == nil && a.IsLoopback() {
			return answer{refused, text, "it ignores this program: use another way to tell it the address"}
		}
		return answer{verdict: accepted, text: text}
	}
	return answer{trouble, text, fmt.Sprintf("it answers %q, which is none of dynamic DNS: correct update_url", text)}
}

// printable returns text from the network for logs and terminals: one line, shortened.
func printable(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, s)
	if len(s) > maxShown {
		s = s[:maxShown] + "…"
	}
	return s
}

// explain returns the text of an error without the URL, which the user knows.
func explain(err error) string {
	var of *url.Error
	if errors.As(err, &of) {
		err = of.Err
	}
	var bad *tls.CertificateVerificationError
	switch {
	case errors.As(err, &bad):
		return "its certificate is not valid: " + printable(bad.Err.Error())
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Sprintf("no answer within %v", timeout)
	}
	return printable(err.Error())
}
