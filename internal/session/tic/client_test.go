package tic

import (
	"bufio"
	"bytes"
	"context"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	wire "sixfour/encap/tic"
)

// script is a server whose lines are given: "S: " is sent, "C: " is expected. Behind the last
// line the connection stays open, or is closed after "close".
func script(t *testing.T, lines string) (dial func(context.Context, string, string) (net.Conn, error)) {
	return serve(t, func(conn net.Conn) {
		r := bufio.NewReader(conn)
		for line := range strings.Lines(lines) {
			line = strings.TrimRight(line, "\n")
			if s, ok := strings.CutPrefix(line, "S: "); ok {
				if _, err := io.WriteString(conn, s+"\n"); err != nil {
					return
				}
			}
			if want, ok := strings.CutPrefix(line, "C: "); ok {
				got, err := r.ReadString('\n')
				if got = strings.TrimSuffix(got, "\n"); err != nil || got != want {
					t.Errorf("the client says %q (%v), want %q", got, err, want)
					return
				}
			}
			if line == "close" {
				return
			}
		}
		_, _ = io.Copy(io.Discard, r) // until the client has closed it
	})
}

// serve returns a function that connects to a server.
func serve(t *testing.T, server func(net.Conn)) func(context.Context, string, string) (net.Conn, error) {
	return func(context.Context, string, string) (net.Conn, error) {
		ours, theirs := net.Pipe()
		done := make(chan struct{})
		go func() { defer close(done); defer theirs.Close(); server(theirs) }()
		t.Cleanup(func() { ours.Close(); <-done })
		return ours, nil
	}
}

// config is that of the user of the recording.
func config(dial func(context.Context, string, string) (net.Conn, error)) ClientConfig {
	return ClientConfig{Server: "tic.example:3874", User: "ABC1-SIXXS", Password: "secret", Dial: dial, Timeout: 20 * time.Second,
		Now: func() time.Time { return time.Unix(1796032883, 0) }}
}

// TestRecording learns from the server of the recording, and says what AICCU said, except for
// its name and its farewell.
func TestRecording(t *testing.T) {
	text, err := os.ReadFile("../../../encap/tic/testdata/aiccu.txt")
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.NewReplacer("client TIC/draft-00 AICCU/2007.01.15-console-linux Linux/6.18.44-fc-v769", identity, "QUIT We just stopped breating", "QUIT").Replace(string(text))
	c := config(script(t, lines))
	c.TunnelID = "T5072"
	want := wire.Tunnel{ID: "T5072", Type: wire.TypeAYIYA, Client: netip.MustParseAddr("2001:db8:2ff:1::2"), Broker: netip.MustParseAddr("2001:db8:2ff:1::1"),
		Bits: 64, MTU: 1280, Name: "My Tunnel", POP: "chtst01", Server: netip.MustParseAddr("198.51.100.2"), Password: "f3d47c2de40fb698e1ab15d757a09bfc", Interval: time.Minute}
	if got, err := Learn(t.Context(), c); err != nil || got != want {
		t.Errorf("%+v, %v, want %+v", got, err, want)
	}
}

// before is what every server says until the user has logged in.
const before = `S: 200 ready
C: ` + identity + `
S: 200 hello
C: get unixtime
S: 200 1796032883
C: starttls
S: 400 TLS not supported
C: username ABC1-SIXXS
S: 200 Choose your authentication challenge please
C: challenge md5
S: 200 0123456789abcdef0123456789abcdef
C: authenticate md5 0b18c965ed880d8cf9c24b9f721fe793
S: 200 welcome
`

// shown is the shortest tunnel, as another server than SixXS' has said it.
const shown = `S: 200 Tunnel description follows
S: TunnelId: 17
S: Type: ayiya
S: IPv6 Endpoint: 2001:db8:2ff:1::2
S: IPv6 PoP: 2001:db8:2ff:1::1
S: IPv4 PoP: 198.51.100.2
S: Password: x
S: 202
C: QUIT
`

// Servers that do it a little differently.
func TestTolerance(t *testing.T) {
	for name, lines := range map[string]string{
		"lists that begin with 200": before + "C: tunnel list\nS: 200 tunnel list goes here\nS: T17 mine\nS: 202\nC: tunnel show T17\n" + shown,
		"CR LF":                     crlf(before + "C: tunnel list\nS: 201 x\nS: T17 a b c\nS: 202\nC: tunnel show T17\n" + shown),
		"codes without a text":      strings.NewReplacer("S: 200 hello", "S: 299", "S: 200 welcome", "S: 200").Replace(before) + "C: tunnel list\nS: 201\nS: T17 a b c\nS: 202\nC: tunnel show T17\n" + shown,
		"another code for no TLS":   strings.ReplaceAll(before, "400 TLS", "300 TLS") + "C: tunnel list\nS: 201\nS: T17 a b c\nS: 202\nC: tunnel show T17\n" + shown,
		"a server without md5": strings.NewReplacer("S: 200 0123456789abcdef0123456789abcdef\n", "S: 400 no\nC: challenge sha256\nS: 200 0123456789abcdef0123456789abcdef\n",
			"md5 0b18c965ed880d8cf9c24b9f721fe793", "sha256 "+wire.SHA256.Answer("0123456789abcdef0123456789abcdef", "secret")).Replace(before) + "C: tunnel list\nS: 201\nS: T17 a b c\nS: 202\nC: tunnel show T17\n" + shown,
	} {
		got, err := Learn(t.Context(), config(script(t, lines)))
		if err != nil || got.ID != "17" || got.Password != "x" || got.MTU != 1280 || got.Interval != time.Minute {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

// crlf ends the server's lines with CR LF.
func crlf(lines string) string {
	var b strings.Builder
	for l := range strings.Lines(lines) {
		if strings.HasPrefix(l, "S: ") {
			l = strings.TrimSuffix(l, "\n") + "\r\n"
		}
		b.WriteString(l)
	}
	return b.String()
}

// What goes wrong is said in words.
func TestErrors(t *testing.T) {
	list := before + "C: tunnel list\n"
	show := list + "S: 201\nS: T17 a b c\nS: 202\nC: tunnel show T17\n"
	end := "C: QUIT\n"
	off := func(seconds string) string {
		i := strings.Index(before, "C: starttls")
		return strings.Replace(before[:i], "1796032883", seconds, 1) + end
	}
	for lines, want := range map[string]string{
		"S: 400 overloaded\n" + end: `is not available: it says "400 overloaded"`,
		"S: hello\n" + end:          `not an answer of a TIC server`,
		"close":                     `closed the connection in the middle`,
		"S: 2\nclose":               `three digits`,
		"S: 200 ready\nC: " + identity + "\nS: 401 upgrade\x1b[2J\n" + end: `does not serve this program: it says "401 upgrade?[2J"`,
		off("1796033004"):          "the clock of this host is 121 s behind that of the server, and at most 120 s are possible: set the clock (NTP)",
		off("1796032583"):          "the clock of this host is 300 s ahead of that of the server",
		off("0"):                   "the clock of this host is 1796032883 s ahead",
		off("4294967296"):          "s behind",
		off("-1"):                  "the clock of this host is 2498934412 s behind",
		off("-9999999999"):         "which is not a number of seconds",
		off("soon"):                `the time is "soon"`,
		off("9223372036854775807"): `which is not a number of seconds`,
		strings.Replace(before[:strings.Index(before, "C: challenge")], "200 Choose", "400 Unknown", 1) + end:                                                                "does not accept the user ABC1-SIXXS",
		strings.Replace(before[:strings.Index(before, "C: authenticate")], "200 0123456789abcdef0123456789abcdef", "400 first\nC: challenge sha256\nS: 400 second", 1) + end: `log in as this program can: it says "400 first"`,
		strings.Replace(before[:strings.Index(before, "C: authenticate")], "200 0123456789abcdef0123456789abcdef", "200", 1) + end:                                           "empty challenge",
		strings.Replace(before, "200 welcome", "400 Login failed", 1) + end:                                                                                                  `the user name or the password is wrong: it says "400 Login failed"`,
		list + "S: 201\nS: 202\n" + end:                                                           "no tunnel for the user ABC1-SIXXS",
		list + "S: 202 none\n" + end:                                                              "no tunnel for the user ABC1-SIXXS",
		list + "S: 400 no\n" + end:                                                                `does not list the tunnels: it says "400 no"`,
		list + "S: 201\nS: T17 x\nS: 501 internal error\n" + end:                                  `does not list the tunnels: it says "501 internal error"`,
		list + "S: 201\nS: T17 a b c\nS: T18 a b c\nS: 202\n" + end:                               "it has 2 tunnels for the user ABC1-SIXXS: set tunnel_id to one of T17, T18",
		list + "S: 201\n" + strings.Repeat("S: T17 a b c\n", maxTunnels) + "S: 202\n" + end:       "or one of 990 more",
		list + "S: 201\n" + strings.Repeat("S: T17 a b c\n", maxTunnels+1):                        "more than 1000 lines",
		list + "S: 201\nS: T17" + strings.Repeat("x", 2000) + "\n":                                wire.ErrLine.Error(),
		show + "S: 402 No such tunnel\n" + end:                                                    "does not show the tunnel T17",
		show + "S: 201\nS: 202\n" + end:                                                           `tunnel T17: the server does not say "Type"`,
		show + strings.Replace(shown, "ayiya", "l2tp", 1):                                         `the type "l2tp", and this program has`,
		show + strings.Replace(shown, "Password: x", "Password:", 1):                              "no password",
		show + strings.Replace(shown, "198.51.100.2", "198.51.100.2\nS: UserState: requested", 1): "disabled by the user",
		show + strings.Replace(shown, "198.51.100.2", "198.51.100.2\nS: AdminState: disabled", 1): "disabled by the administrator",
		show + strings.Replace(shown, "198.51.100.2", "localhost", 1):                             `"IPv4 PoP": "localhost"`,
		show + "S: 201\n" + strings.Repeat("S: Type: ayiya\n", maxFields+1):                       "more than 200 lines",
		show + "S: 201\nS: Type: ayiya\nclose":                                                    "closed the connection in the middle",
	} {
		got, err := Learn(t.Context(), config(script(t, lines)))
		if err == nil || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), "TIC server tic.example:3874: ") {
			t.Errorf("%.60q…: %+v, %v, want %q", lines[max(0, len(lines)-60):], got, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("the password is in %q", err)
		}
	}
	for _, user := range []string{"", "a b", "a\nQUIT", "a\x00"} {
		c := config(nil)
		c.User = user
		if _, err := Learn(t.Context(), c); err == nil || !strings.Contains(err.Error(), "cannot be sent") {
			t.Errorf("user %q: %v", user, err)
		}
	}
	c := config(nil)
	c.Dial = func(context.Context, string, string) (net.Conn, error) { return nil, fmt.Errorf("refused") }
	if _, err := Learn(t.Context(), c); err == nil || err.Error() != "TIC server tic.example:3874: refused" {
		t.Error(err)
	}
}

// Servers that never end: a line, a list, silence.
func TestEndless(t *testing.T) {
	for name, server := range map[string]func(net.Conn){
		"a line": func(c net.Conn) {
			for zeros := bytes.Repeat([]byte("2"), 1000); ; {
				if _, err := c.Write(zeros); err != nil {
					return
				}
			}
		},
		"answers": func(c net.Conn) {
			go func() { _, _ = io.Copy(io.Discard, c) }()
			for {
				if _, err := io.WriteString(c, "200 1796032883\n"); err != nil {
					return
				}
			}
		},
	} {
		if got, err := Learn(t.Context(), config(serve(t, server))); err == nil {
			t.Errorf("%s: %+v", name, got)
		}
	}
	c := config(serve(t, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }))
	c.Timeout = 20 * time.Millisecond
	if _, err := Learn(t.Context(), c); err == nil || !strings.Contains(err.Error(), "in time") {
		t.Errorf("silence: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	c.Timeout = 0
	time.AfterFunc(10*time.Millisecond, cancel)
	if _, err := Learn(ctx, c); err == nil {
		t.Error("learnt after the end")
	}
}

// Both ends of ours, with and without TLS.
func TestBothEnds(t *testing.T) {
	tlsConfig, pool := certificate(t)
	_, other := certificate(t)
	for _, k := range []struct {
		name     string
		tls      bool // of the server
		plain    bool
		starttls StartTLS
		pool     *x509.CertPool
		server   string
		want     string // of the error; "": none
	}{
		{"auto with TLS", true, false, Auto, pool, host, ""},
		{"auto without TLS", false, true, Auto, nil, host, ""},
		{"require with TLS", true, false, Require, pool, host, ""},
		{"require without TLS", false, true, Require, pool, host, "has no TLS, and starttls = \"require\" is set: it says \"400 TLS not supported\""},
		{"off where plain is allowed", true, true, Off, nil, host, ""},
		{"off where TLS is required", true, false, Off, nil, host, "or it needs TLS, which starttls = \"off\" forbids: it says \"400 Passwords are accepted only after starttls"},
		{"another authority", true, false, Auto, other, host, "its certificate is not accepted for the name tic.example"},
		{"another name", true, false, Auto, pool, "other.example", "its certificate is not accepted for the name other.example"},
	} {
		b := newBench(t, func(c *Config) {
			c.Plain, c.SHA256 = k.plain, true
			if k.tls {
				c.TLS = tlsConfig
			}
		})
		for _, sha256 := range []bool{false, true} {
			c := config(func(ctx context.Context, network, address string) (net.Conn, error) {
				if address != k.server+":3874" {
					t.Errorf("dials %s", address)
				}
				return new(net.Dialer).DialContext(ctx, network, b.Addr().String())
			})
			c.Server, c.StartTLS, c.CA, c.SHA256 = k.server+":3874", k.starttls, k.pool, sha256
			got, err := Learn(t.Context(), c)
			if k.want != "" {
				if err == nil || !strings.Contains(err.Error(), k.want) {
					t.Errorf("%s: %v, want %q", k.name, err, k.want)
				}
				continue
			}
			want := wire.Tunnel{ID: "T5072", Type: wire.TypeAYIYA, Client: account().Endpoint.Client, Broker: account().Endpoint.Broker, Bits: 64, MTU: 1280,
				Name: "ABC1-SIXXS", POP: "chtst01", Server: netip.MustParseAddr("198.51.100.2"), Password: "secret", Interval: time.Minute}
			if err != nil || got != want {
				t.Errorf("%s: %+v, %v, want %+v", k.name, got, err, want)
			}
		}
		b.Close()
	}
}

// Something between starttls and the handshake is not taken for an answer in TLS.
func TestInjection(t *testing.T) {
	lines := strings.Replace(before[:strings.Index(before, "C: username")], "S: 400 TLS not supported", "S: 200 TLS", 1)
	c := config(serve(t, func(conn net.Conn) {
		r := bufio.NewReader(conn)
		for line := range strings.Lines(lines) {
			line = strings.TrimSpace(line)
			if strings.HasPrefix(line, "C: ") {
				if _, err := r.ReadString('\n'); err != nil {
					return
				}
			} else if line == "S: 200 TLS" {
				_, _ = io.WriteString(conn, "200 TLS\n200 injected\n")
			} else {
				_, _ = io.WriteString(conn, line[3:]+"\n")
			}
		}
		_, _ = io.Copy(io.Discard, r)
	}))
	if _, err := Learn(t.Context(), c); err == nil || !strings.Contains(err.Error(), "between starttls and the TLS handshake") {
		t.Error(err)
	}
}

// FuzzLearn passes any answers of a server.
func FuzzLearn(f *testing.F) {
	var said strings.Builder
	for l := range strings.Lines(before + "S: 201\nS: T17 a b c\nS: 202\n" + shown) {
		if s, ok := strings.CutPrefix(l, "S: "); ok {
			said.WriteString(s)
		}
	}
	f.Add(said.String())
	f.Fuzz(func(t *testing.T, answers string) {
		c := config(func(context.Context, string, string) (net.Conn, error) {
			return &tape{Reader: strings.NewReader(answers)}, nil
		})
		got, err := Learn(t.Context(), c)
		if err == nil && (!got.Client.Is6() || got.MTU < 1280 || got.Disabled != "") {
			t.Fatalf("%q: %+v", answers, got)
		}
		if answers == said.String() && err != nil {
			t.Fatal(err)
		}
	})
}

// tape is a connection whose other end does not listen.
type tape struct {
	net.Conn
	io.Reader
}

func (t *tape) Read(b []byte) (int, error)       { return t.Reader.Read(b) }
func (t *tape) Write(b []byte) (int, error)      { return len(b), nil }
func (t *tape) Close() error                     { return nil }
func (t *tape) SetWriteDeadline(time.Time) error { return nil }
