package tic

import (
	"bytes"
	"container/list"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	wire "sixfour/encap/tic"
	"sixfour/transport/access"
)

// maxMistakes is how many commands of a connection may be refused.
const maxMistakes = 10

// maxAttempts is how many passwords a connection may try.
const maxAttempts = 3

// session is the dialogue with one client.
type session struct {
	server  *Server
	from    netip.AddrPort
	raw     net.Conn // the TCP connection
	conn    net.Conn // that, or TLS over it
	reader  *wire.Reader
	out     bytes.Buffer // of the answer to one command
	until   time.Time    // the connection ends
	ended   bool
	prompt  bool
	counts  struct{ mistakes, attempts int }
	user    string // as the client says
	method  wire.Method
	secret  string // the challenge
	account access.Account
	place   *list.Element // among the strangers; the Server's lock protects it
}

func newSession(s *Server, conn net.Conn, from netip.AddrPort) *session {
	return &session{server: s, from: from, raw: conn, conn: conn, reader: wire.NewReader(conn)}
}

// run speaks with the client until it has gone, or a limit is reached.
func (x *session) run() {
	limits := x.server.config.Limits
	x.until = time.Now().Add(limits.Dialogue)
	x.say("200 SixXS TIC Service on %s ready (sixfour)", x.server.config.Name)
	for lines := 0; !x.ended; lines++ {
		line, ok := x.exchange()
		switch {
		case !ok:
			return
		case lines == limits.Lines:
			x.end("400 Too many commands")
		default:
			x.handle(wire.ParseCommand(line))
		}
	}
	x.flush()
}

// exchange sends what there is to say, and reads the next line.
func (x *session) exchange() (line string, ok bool) {
	if x.prompt {
		x.out.WriteString("tic> ")
	}
	if !x.flush() {
		return "", false
	}
	line, err := x.reader.Line()
	if errors.Is(err, wire.ErrLine) {
		x.refuse(access.BadMessage, "a line is too long")
		x.end("400 Line too long")
		x.flush()
	}
	return line, err == nil
}

// flush sends what there is to say, and gives the client time for the next line.
func (x *session) flush() bool {
	deadline := time.Now().Add(x.server.config.Limits.Idle)
	if x.until.Before(deadline) {
		deadline = x.until
	}
	if x.conn.SetDeadline(deadline) != nil {
		return false
	}
	_, err := x.conn.Write(x.out.Bytes())
	x.out.Reset()
	return err == nil
}

// say answers with a line.
func (x *session) say(format string, args ...any) {
	fmt.Fprintf(&x.out, format, args...)
	x.out.WriteByte('\n')
}

// end answers with a line, the last one.
func (x *session) end(format string, args ...any) {
	x.say(format, args...)
	x.ended = true
}

// sorry refuses a command.
func (x *session) sorry(format string, args ...any) {
	x.say("400 "+format, args...)
	if x.counts.mistakes++; x.counts.mistakes == maxMistakes {
		x.ended = true
	}
}

// refuse counts the client as refused.
func (x *session) refuse(why access.Reason, format string, args ...any) {
	x.server.config.Authority.Refuse(protocol, x.from, x.account.Name, access.Refuse(why, format, args...))
}

// handle answers a command.
func (x *session) handle(c wire.Command) {
	switch c.Name {
	case "client":
		x.say("200 Client Identity accepted")
	case "get unixtime":
		x.say("200 %d", x.server.config.Now().Unix())
	case "set prompt":
		x.setPrompt(c.Args)
	case "help":
		x.list("201 Commands", help, "202 Done")
	case "quit", "exit":
		x.end("200 Goodbye")
	case "starttls":
		x.startTLS()
	case "username":
		x.username(c.Args)
	case "challenge":
		x.challenge(c.Args)
	case "authenticate":
		x.authenticate(c)
	default:
		x.member(c)
	}
}

var help = []string{
	"client TIC/<version> <name>/<version> <system>/<version>",
	"get unixtime",
	"set prompt enabled|disabled",
	"starttls",
	"username <user>",
	"challenge md5|sha256|clear",
	"authenticate <method> <answer>",
	"tunnel list",
	"tunnel show <tunnel_id>",
	"route list",
	"pop list",
	"pop show <pop_name>",
	"quit",
}

// list answers with lines between a first and a last one. All of them together are not longer
// than what old clients read at once.
func (x *session) list(first string, lines []string, last string) {
	x.say("%s", first)
	for _, l := range lines {
		if x.out.Len()+len(l)+len(last)+2 <= wire.MaxAnswer {
			x.say("%s", l)
		}
	}
	x.say("%s", last)
}

func (x *session) setPrompt(args []string) {
	if len(args) != 1 || args[0] != "enabled" && args[0] != "disabled" {
		x.sorry("Say \"set prompt enabled\" or \"set prompt disabled\"")
		return
	}
	x.prompt = args[0] == "enabled"
	x.say("200 Prompt %s", args[0])
}

// startTLS goes on in TLS. What was said before it counts for nothing, because somebody on the
// path may have said it.
func (x *session) startTLS() {
	config := x.server.config.TLS
	switch {
	case config == nil:
		x.sorry("TLS not supported")
		return
	case x.encrypted():
		x.sorry("TLS is in use already")
		return
	case x.reader.Buffered() > 0:
		x.refuse(access.BadMessage, "commands follow starttls without TLS")
		x.end("400 Nothing may follow starttls before the TLS handshake")
		return
	}
	x.say("200 Start the TLS handshake")
	if !x.flush() {
		x.ended = true
		return
	}
	conn := tls.Server(x.raw, config)
	ctx, cancel := context.WithDeadline(context.Background(), x.until)
	defer cancel()
	if err := conn.HandshakeContext(ctx); err != nil { // within the deadline of flush
		x.refuse(access.BadMessage, "the TLS handshake failed: %s", wire.Printable(err.Error()))
		x.ended = true
		return
	}
	x.conn, x.reader = conn, wire.NewReader(conn)
	x.user, x.method, x.secret, x.account = "", "", "", access.Account{}
}

func (x *session) encrypted() bool { return x.conn != x.raw }

// username takes the name of a user. Whether there is such a user is not said.
func (x *session) username(args []string) {
	if len(args) != 1 {
		x.sorry("Say \"username <user>\"")
		return
	}
	x.user, x.method, x.account = args[0], "", access.Account{}
	x.say("200 Choose your authentication challenge please")
}

// challenge begins to authenticate the user.
func (x *session) challenge(args []string) {
	method := wire.Method("")
	if len(args) == 1 {
		method = wire.Method(strings.ToLower(args[0]))
	}
	switch {
	case x.user == "":
		x.sorry("Say \"username <user>\" first")
	case !x.encrypted() && !x.server.config.Plain:
		x.refuse(access.Unencrypted, "the user %s wants to log in without TLS", wire.Printable(x.user))
		x.sorry("Passwords are accepted only after starttls: this client needs TLS")
	case method != wire.MD5 && method != wire.Clear && (method != wire.SHA256 || !x.server.config.SHA256):
		x.sorry("This server has the challenges %s", strings.Join(x.methods(), ", "))
	case method == wire.Clear:
		x.method = method
		x.say("200 Send your password")
	default:
		x.method = method
		var b [16]byte
		_, _ = rand.Read(b[:]) // never fails
		x.secret = hex.EncodeToString(b[:])
		x.say("200 %s", x.secret)
	}
}

func (x *session) methods() []string {
	if x.server.config.SHA256 {
		return []string{"md5", "sha256", "clear"}
	}
	return []string{"md5", "clear"}
}

// authenticate logs the user in. An unknown user and a wrong password cannot be told apart,
// neither by the answer nor by the work that they cause.
func (x *session) authenticate(c wire.Command) {
	method := x.method
	x.method = "" // a challenge is for one answer
	if method == "" || len(c.Args) < 2 || wire.Method(strings.ToLower(c.Args[0])) != method {
		x.sorry("Say \"challenge <method>\" first, then \"authenticate\" with the same method and the answer")
		return
	}
	if !x.server.config.Authority.Allow(x.from.Addr()) {
		x.refuse(access.TooMany, "too many attempts to log in")
		x.end("400 Too many attempts, try again later")
		return
	}
	answer := strings.ToLower(c.Args[1])
	if method == wire.Clear {
		answer = c.Rest
	}
	a, err := x.server.config.Authority.Named(x.user)
	secret := a.Secret
	if err != nil || secret == "" {
		secret = x.server.nobody
	}
	right := method.Verify(answer, x.secret, secret)
	var why *access.Refusal
	switch {
	case err == nil && right && a.Secret != "":
		x.account = a
		x.server.loggedIn(x)
		x.say("200 Successfully logged in using %s as %s from %v", method, a.Name, x.from.Addr())
		return
	case err == nil:
		why = access.Refuse(access.WrongSecret, "the user %s has sent a wrong password", wire.Printable(x.user))
	case !errors.As(err, &why):
		why = access.Refuse(access.Unavailable, "%v", err)
	}
	x.server.config.Authority.Refuse(protocol, x.from, a.Name, why)
	if why.Reason == access.Unavailable {
		x.end("400 The accounts are not available at the moment, try again later")
		return
	}
	x.say("400 Login failed: the user name or the password is wrong")
	if x.counts.attempts++; x.counts.attempts == maxAttempts {
		x.ended = true
	}
}
