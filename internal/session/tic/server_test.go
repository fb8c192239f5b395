package tic

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	wire "sixfour/encap/tic"
	"sixfour/transport/access"
)

// TestAICCU replays the lines that AICCU 2007.01.15 sent. The server says what that of the
// recording said, byte by byte, except for what is its own: the name of the service, the
// challenge, the name of the person, and that one secret serves for everything.
func TestAICCU(t *testing.T) {
	text, err := os.ReadFile("../../../encap/tic/testdata/aiccu.txt")
	if err != nil {
		t.Fatal(err)
	}
	b := newBench(t, nil)
	c := b.call(t)
	own := strings.NewReplacer("(http://www.sixxs.net)", "(sixfour)", " (A B Tester) from 192.0.2.45", " from 127.0.0.1",
		"Tunnel Name: My Tunnel", "Tunnel Name: ABC1-SIXXS", "Password: f3d47c2de40fb698e1ab15d757a09bfc", "Password: secret")
	challenge, lines := "", 0
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if sent, ok := strings.CutPrefix(line, "C: "); ok {
			if strings.HasPrefix(sent, "authenticate") {
				sent = "authenticate md5 " + wire.MD5.Answer(challenge, "secret")
			}
			fmt.Fprintf(c, "%s\n", sent)
			lines++
		}
		if want, ok := strings.CutPrefix(line, "S: "); ok {
			got := c.line()
			if want == "200 0123456789abcdef0123456789abcdef" {
				challenge = strings.TrimPrefix(got, "200 ")
				want = "200 " + challenge
				if !regexp.MustCompile("^[0-9a-f]{32}$").MatchString(challenge) {
					t.Errorf("challenge %q", challenge)
				}
			}
			if want := own.Replace(want); got != want {
				t.Errorf("the server says %q, want %q", got, want)
			}
			lines++
		}
	}
	c.expect("200 Goodbye", "")
	if lines < 30 {
		t.Errorf("the recording has %d lines", lines)
	}
	if r := b.authority.reasons(); r != "[]" {
		t.Errorf("refused for %s", r)
	}
}

// Every command that the pages of SixXS name.
func TestCommands(t *testing.T) {
	b := newBench(t, func(c *Config) {
		c.Prefix = func(account string) netip.Prefix { return netip.MustParsePrefix("2001:db8:100::/56") }
	})
	c := b.call(t)
	c.logIn()
	c.say("tunnel list", "201 Listing tunnels", "T5072 2001:db8:2ff:1::2 ayiya chtst01", "202 <tunnel_id> <ipv6_endpoint> <ipv4_endpoint> <pop_name>")
	for _, id := range []string{"t5072", "5072"} {
		c.say("TUNNEL SHOW "+id, "201 Showing tunnel information for T5072")
		for c.line() != "202 Done" {
		}
	}
	c.say("tunnel show T5073", "400 No such tunnel: yours is T5072")
	c.say("tunnel show", "400 No such tunnel: yours is T5072")
	c.say("tunnel set T5072 endpoint current", "400 The endpoint is where the last heartbeat *")
	c.say("tunnel set T5072 state disabled", "400 The operator *")
	c.say("route list", "201 Listing routes", "R5072 T5072 2001:db8:100::/56", "202 <route_id> <tunnel_id> <route_prefix>")
	c.say("route show R5072", "201 Showing route information for R5072", "RouteId: R5072", "TunnelId: T5072", "IPv6 Prefix: 2001:db8:100::/56", "202 Done")
	c.say("pop list", "201 Listing PoPs", "chtst01", "202 <pop_name>")
	c.say("pop show CHTST01", "201 Showing PoP information for chtst01", "POPId: chtst01", "City: Testville")
	for c.line() != "202 Done" {
	}
	c.say("pop show other", "400 No such PoP: this is chtst01")
	c.say("help", "201 Commands")
	for c.line() != "202 Done" {
	}
	c.say("set prompt enabled\r", "200 Prompt enabled")
	c.say("get unixtime", "tic> 200 1796032883")
	c.say("set prompt disabled", "tic> 200 Prompt disabled")
	c.say("set prompt maybe", "400 Say *")
	c.say("exit", "200 Goodbye", "")
}

// Types of tunnels, as clients get them.
func TestTypes(t *testing.T) {
	fixed, end, served := netip.Addr{}, netip.Addr{}, map[string]bool{}
	b := newBench(t, func(c *Config) {
		c.POP.IPv4 = netip.Addr{}
		c.End = func(kind string) (netip.Addr, bool) { return end, served[kind] }
		c.Outer = func(string) netip.Addr { return fixed }
	})
	for _, k := range []struct {
		kind, fixed, end, served string
		want                     string // "": none can be offered
	}{
		{"ayiya", "", "", "ayiya 6in4-heartbeat", "ayiya ayiya 127.0.0.1"},
		{"ayiya", "", "198.51.100.9", "6in4-heartbeat", "6in4-heartbeat heartbeat 198.51.100.9"},
		{"heartbeat", "", "198.51.100.9", "ayiya 6in4-heartbeat", "6in4-heartbeat heartbeat 198.51.100.9"},
		{"heartbeat", "", "", "ayiya", "ayiya ayiya 127.0.0.1"},
		{"6in4", "", "", "ayiya 6in4-heartbeat", "6in4-heartbeat heartbeat 127.0.0.1"},
		{"6in4", "192.0.2.45", "", "6in4", "6in4 192.0.2.45 127.0.0.1"},
		{"ayiya", "", "", "", ""},
		{"ayiya", "", "2001:db8::1", "ayiya", ""},
	} {
		a := account()
		a.Type = k.kind
		b.authority.accounts[a.Name] = a
		fixed, _ = netip.ParseAddr(k.fixed)
		end, _ = netip.ParseAddr(k.end)
		clear(served)
		for _, s := range strings.Fields(k.served) {
			served[s] = true
		}
		c := b.call(t)
		c.logIn()
		if k.want == "" {
			c.say("tunnel list", "400 There is no tunnel that this server can offer *")
			c.say("tunnel show T5072", "400 There is no tunnel that this server can offer *")
			continue
		}
		c.say("tunnel show T5072", "201 *")
		said := map[string]string{}
		for l := c.line(); l != "202 Done"; l = c.line() {
			key, value, _ := strings.Cut(l, ": ")
			said[key] = value
		}
		if got := said["Type"] + " " + said["IPv4 Endpoint"] + " " + said["IPv4 POP"]; got != k.want {
			t.Errorf("%+v: %s", k, got)
		}
	}
}

// Answers stay within what AICCU reads at once, and lines have a value: it fails otherwise.
func TestShortAnswers(t *testing.T) {
	b := newBench(t, func(c *Config) { c.POP.Name = strings.Repeat("n", 900); c.POP.Website = "http://broker.example" })
	a := account()
	a.Name, a.Secret = strings.Repeat("a", 255), strings.Repeat("s", 255)
	b.authority.accounts[a.Name] = a
	c := b.call(t)
	c.expect(greeting)
	c.say("username "+a.Name, choose)
	c.say("authenticate md5 "+wire.MD5.Answer(c.challenge("md5"), a.Secret), "200 *")
	for command, lines := range map[string]int{"tunnel show T5072": 16, "tunnel list": 3, "pop list": 3, "pop show chtst01": 6, "help": 15} {
		n, size := 0, 0
		fmt.Fprintln(c, command)
		for l := ""; !strings.HasPrefix(l, "202"); n++ {
			l = c.line()
			size += len(l) + 1
			if strings.HasSuffix(l, ":") || strings.HasSuffix(l, ": ") || l == "" {
				t.Errorf("%s: %q", command, l)
			}
		}
		if size > wire.MaxAnswer || n != lines {
			t.Errorf("%s: %d bytes in %d lines, want %d", command, size, n, lines)
		}
	}
	if _, err := NewServer(Config{Authority: b.authority, Plain: true, Local: netip.MustParseAddrPort("127.0.0.1:0"), POP: wire.POP{ID: "a b"}}); err == nil {
		t.Error("a name with a space")
	}
}

// Each method, in both orders; no answer serves twice, or for another challenge.
func TestAuthenticate(t *testing.T) {
	b := newBench(t, func(c *Config) { c.SHA256 = true })
	c := b.call(t)
	c.expect(greeting)
	c.say("challenge md5", "400 Say *")
	c.say("authenticate md5 x", "400 Say *")
	for _, m := range []wire.Method{wire.MD5, wire.SHA256} {
		c.say("username ABC1-SIXXS", choose)
		challenge := c.challenge(string(m))
		answer := m.Answer(challenge, "secret")
		c.say("authenticate "+string(m)+" "+strings.ToUpper(answer), "200 Successfully logged in using "+string(m)+" *")
		c.say("authenticate "+string(m)+" "+answer, "400 Say *")
		c.challenge(string(m))
		c.say("tunnel list", "201 *", "T5072 *", "202 *") // still the same user
		c.say("username ABC1-SIXXS", choose)
		c.say("tunnel list", "400 Log in first*")
	}
	c.say("username ABC1-SIXXS", choose)
	c.say("challenge clear", "200 Send your password")
	c.say("authenticate clear secret", "200 *")
	c.say("challenge cookie", "400 This server has the challenges md5, sha256, clear")
	if b.authority.reasons() != "[]" {
		t.Error("refused")
	}
}

// Unknown users, wrong passwords, accounts without a secret and disabled ones look the same.
func TestLoginFails(t *testing.T) {
	b := newBench(t, nil)
	open := account()
	open.Name, open.Secret = "open", ""
	b.authority.accounts["open"] = open
	const failed = "400 Login failed: the user name or the password is wrong"
	for _, method := range []string{"md5", "clear"} {
		for user, reason := range map[string]string{"ABC1-SIXXS": "wrong_secret", "nobody": "unknown_account", "open": "wrong_secret"} {
			c := b.call(t)
			c.expect(greeting)
			for i, password := range []string{"wrong", "", "secret "} {
				c.say("username "+user, choose)
				answer := "x" + password
				if method == "md5" {
					answer = wire.MD5.Answer(c.challenge(method), password)
				} else {
					c.say("challenge clear", "200 *")
				}
				c.say("authenticate "+method+" "+answer, failed)
				if i == 2 {
					c.expect("")
				}
			}
			if got, want := b.authority.reasons(), fmt.Sprintf("[%s %[1]s %[1]s]", reason); got != want {
				t.Errorf("%s: refused for %s, want %s", user, got, want)
			}
		}
	}
	c := b.call(t)
	c.expect(greeting)
	c.say("username open", choose)
	c.say("challenge clear", "200 *")
	c.say("authenticate clear ", "400 Say *")
	c.challenge("md5")
	b.authority.mu.Lock()
	b.authority.failure = access.Refuse(access.Disabled, "the account is disabled")
	b.authority.mu.Unlock()
	c.say("authenticate md5 "+strings.Repeat("0", 32), failed)
	b.authority.mu.Lock()
	b.authority.failure = errors.New("disk full")
	b.authority.mu.Unlock()
	c.challenge("md5")
	c.say("authenticate md5 "+strings.Repeat("0", 32), "400 The accounts are not available *", "")
	if got := b.authority.reasons(); got != "[disabled unavailable]" {
		t.Errorf("refused for %s", got)
	}
	c = b.call(t)
	b.authority.mu.Lock()
	b.authority.failure = nil
	b.authority.mu.Unlock()
	c.expect(greeting)
	c.say("username ABC1-SIXXS", choose)
	c.challenge("md5")
	b.authority.denied.Store(true)
	c.say("authenticate md5 "+strings.Repeat("0", 32), "400 Too many attempts*", "")
	b.call(t).expect("400 Not available: too many connections *", "")
	if got := b.authority.reasons(); got != "[too_many too_many]" {
		t.Errorf("refused for %s", got)
	}
}

// An account that is removed, or has another secret, ends what its user can see.
func TestChangedAccount(t *testing.T) {
	b := newBench(t, nil)
	c := b.call(t)
	c.logIn()
	c.say("tunnel list", "201 *", "T5072 *", "202 *")
	b.authority.mu.Lock()
	a := account()
	a.Secret = "a new one"
	b.authority.accounts[a.Name] = a
	b.authority.mu.Unlock()
	c.say("tunnel list", "400 The account has been changed, log in again", "")
}

// Without TLS nobody can log in where it is required; with it, everything said before counts
// for nothing.
func TestTLS(t *testing.T) {
	config, pool := certificate(t)
	b := newBench(t, func(c *Config) { c.Plain, c.TLS = false, config })
	c := b.call(t)
	c.expect(greeting)
	c.say("username ABC1-SIXXS", choose)
	for _, m := range []string{"md5", "clear"} {
		c.say("challenge "+m, "400 Passwords are accepted only after starttls*")
	}
	if got := b.authority.reasons(); got != "[unencrypted unencrypted]" {
		t.Errorf("refused for %s", got)
	}
	c.say("STARTTLS", "200 Start the TLS handshake")
	secure := tls.Client(c.Conn, &tls.Config{ServerName: host, RootCAs: pool})
	c.Conn, c.lines = secure, bufio.NewReader(secure)
	c.say("challenge md5", "400 Say \"username*")
	c.say("starttls", "400 TLS is in use already")
	c.say("username ABC1-SIXXS", choose)
	c.say("authenticate md5 "+wire.MD5.Answer(c.challenge("md5"), "secret"), "200 *")
	c.say("tunnel list", "201 *", "T5072 *", "202 *")

	// A command that was put behind starttls must not be taken for one in TLS.
	c = b.call(t)
	c.expect(greeting)
	c.say("starttls\nusername mallory", "400 Nothing may follow starttls before the TLS handshake", "")
	c = b.call(t)
	c.expect(greeting)
	c.say("starttls", "200 *")
	c.say("this is not TLS, but long enough for a record")
	for c.line() != "" {
	}
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if got := b.authority.reasons(); got != "[]" {
			if got != "[bad_message bad_message]" && got != "[bad_message]" {
				t.Errorf("refused for %s", got)
			}
			break
		}
	}
	if _, err := NewServer(Config{Authority: b.authority, Local: netip.MustParseAddrPort("127.0.0.1:0")}); err == nil {
		t.Error("a server at which nobody can log in")
	}
	plain := newBench(t, nil).call(t)
	plain.expect(greeting)
	plain.say("starttls", "400 TLS not supported")
}

// Nonsense is refused, and ends the connection when there is too much of it.
func TestNonsense(t *testing.T) {
	b := newBench(t, func(c *Config) { c.Limits.Lines = 50 })
	c := b.call(t)
	c.expect(greeting)
	for range maxMistakes - 1 {
		c.say("GET / HTTP/1.1", "400 Unknown command, try help")
	}
	c.say("\x00\xff", "400 *", "")

	c = b.call(t)
	c.expect(greeting)
	c.say(strings.Repeat("x", wire.MaxLine+1), "400 Line too long", "")

	c = b.call(t)
	c.expect(greeting)
	for range 50 {
		c.say("get unixtime", "200 1796032883")
	}
	c.say("get unixtime", "400 Too many commands", "")

	// A stream without a line end is not read to its end.
	c = b.call(t)
	c.expect(greeting)
	zeros, n := make([]byte, 1<<16), 0
	for ; n < 1<<30; n += len(zeros) {
		if _, err := c.Write(zeros); err != nil {
			break
		}
	}
	if n >= 1<<30 {
		t.Error("the server reads a gigabyte")
	}
	if got := b.authority.reasons(); got != "[bad_message bad_message]" {
		t.Errorf("refused for %s", got)
	}
}

// Connections that say nothing are closed, and keep nobody out.
func TestSilence(t *testing.T) {
	b := newBench(t, func(c *Config) {
		c.Limits = Limits{Connections: 10, PerSource: 1000, Idle: 20 * time.Second, Dialogue: 20 * time.Second}
	})
	user := b.call(t)
	user.logIn()
	silent := []*caller{}
	for range 1000 {
		c := b.call(t)
		c.expect(greeting)
		silent = append(silent, c)
	}
	for _, c := range silent[:1000-9] {
		c.expect("")
	}
	user.say("tunnel list", "201 *", "T5072 *", "202 *")
	last := b.call(t)
	last.logIn()
	b.Server.mu.Lock()
	sessions, strangers := len(b.sessions), b.strangers.Len()
	b.Server.mu.Unlock()
	if sessions != 10 || strangers != 8 {
		t.Errorf("%d sessions, %d strangers", sessions, strangers)
	}
	if r := b.authority.reasons(); r != "[]" {
		t.Errorf("refused for %.100s", r)
	}
	// When all have logged in, there is no room.
	for range 8 {
		b.call(t).logIn()
	}
	b.call(t).expect("400 Not available: there are too many connections, try again later", "")

	// The limit of one source, and time that is over.
	b = newBench(t, func(c *Config) { c.Limits = Limits{PerSource: 2, Idle: 50 * time.Millisecond} })
	first, second := b.call(t), b.call(t)
	first.expect(greeting)
	second.expect(greeting)
	third := b.call(t)
	if l := third.line(); !strings.HasPrefix(l, "400 Not available: there are 2 connections from your address already") && !strings.HasPrefix(l, "200") {
		t.Errorf("a third connection: %q", l)
	}
	first.expect("")
	second.expect("")
	b = newBench(t, func(c *Config) { c.Limits.Dialogue = 50 * time.Millisecond })
	c := b.call(t)
	for c.line() != "" { // whatever is said
		fmt.Fprint(c, "get unixtime\n")
	}
}

// One source is an IPv4 address, or an IPv6 network.
func TestSource(t *testing.T) {
	for a, want := range map[string]string{"192.0.2.1": "192.0.2.1/32", "2001:db8:1:2:3::4": "2001:db8:1:2::/64"} {
		if got := source(netip.MustParseAddr(a)); got.String() != want {
			t.Errorf("%s: %v", a, got)
		}
	}
}

// Close ends connections in the middle of a dialogue.
func TestClose(t *testing.T) {
	b := newBench(t, nil)
	c := b.call(t)
	c.logIn()
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	c.expect("")
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	if len(b.sessions) != 0 || len(b.sources) != 0 || b.strangers.Len() != 0 {
		t.Errorf("left over: %v, %v, %d", b.sessions, b.sources, b.strangers.Len())
	}
}
