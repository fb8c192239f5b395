package tic

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"strconv"
	"strings"
	"time"

	wire "sixfour/encap/tic"
)

// StartTLS is whether a client uses TLS.
type StartTLS byte

// The values.
const (
	Auto    StartTLS = iota // if the server has it
	Require                 // the password is not used without it
	Off
)

// ClientConfig is what Learn needs.
type ClientConfig struct {
	Server   string // name or address, and port
	User     string
	Password string
	TunnelID string // "": the only one
	StartTLS StartTLS
	// Name is that in the server's certificate; "": that in Server.
	Name string
	// CA are the authorities that sign it; nil: those of the system.
	CA *x509.CertPool
	// SHA256 asks for the challenge sha256 first. A server that refuses one of md5 and sha256
	// is asked for the other.
	SHA256 bool
	// Dial connects to Server; nil: a net.Dialer does.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Timeout is how long the dialogue may take; 0: 30 seconds.
	Timeout time.Duration
	// Now returns the time; nil: time.Now does.
	Now func() time.Time
}

const (
	defaultTimeout = 30 * time.Second
	maxOff         = 2 * time.Minute // between the clocks: servers of heartbeat and AYIYA refuse more
	maxTunnels     = 1000            // in a list
	maxFields      = 200             // of a tunnel
	farewell       = 100 * time.Millisecond
)

// identity is how the client introduces itself.
const identity = "client TIC/draft-00 sixfour/1 Linux/any"

// Learn asks a server how a tunnel is configured. Its errors are for people: they say what is
// wrong, and what to do.
func Learn(ctx context.Context, c ClientConfig) (wire.Tunnel, error) {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Dial == nil {
		c.Dial = new(net.Dialer).DialContext
	}
	for what, s := range map[string]string{"user": c.User, "tunnel_id": c.TunnelID} {
		if strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r == 0x7f }) || s == "" && what == "user" {
			return wire.Tunnel{}, fmt.Errorf("%s %q cannot be sent to a TIC server: it is empty, or has spaces or control characters", what, s)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, cmp.Or(c.Timeout, defaultTimeout))
	defer cancel()
	conn, err := c.Dial(ctx, "tcp", c.Server)
	if err != nil {
		return wire.Tunnel{}, fmt.Errorf("TIC server %s: %w", c.Server, err)
	}
	d := &dialogue{config: c, raw: conn, conn: conn, reader: wire.NewReader(conn)}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	t, err := d.learn(ctx)
	if stop() {
		_ = conn.SetWriteDeadline(time.Now().Add(farewell))
		_, _ = io.WriteString(d.conn, "QUIT\n") // the server closes the connection, too
		conn.Close()
	}
	if err != nil && ctx.Err() != nil {
		err = fmt.Errorf("it did not finish the dialogue in time: %w", ctx.Err())
	}
	if err != nil {
		return wire.Tunnel{}, fmt.Errorf("TIC server %s: %w", c.Server, err)
	}
	return t, nil
}

// dialogue is a connection to a server.
type dialogue struct {
	config ClientConfig
	raw    net.Conn // the TCP connection
	conn   net.Conn // that, or TLS over it
	reader *wire.Reader
}

// learn goes through the dialogue, in the order of AICCU.
func (d *dialogue) learn(ctx context.Context) (t wire.Tunnel, err error) {
	if _, err = d.good("is not available"); err != nil {
		return t, err
	}
	if _, err = d.ask("does not serve this program", identity); err != nil {
		return t, err
	}
	if err = d.checkClock(); err != nil {
		return t, err
	}
	if err = d.startTLS(ctx); err != nil {
		return t, err
	}
	if err = d.logIn(); err != nil {
		return t, err
	}
	id := d.config.TunnelID
	if id == "" {
		if id, err = d.only(); err != nil {
			return t, err
		}
	}
	return d.show(id)
}

// line reads a line.
func (d *dialogue) line() (string, error) {
	line, err := d.reader.Line()
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return "", errors.New("it has closed the connection in the middle of the dialogue")
	}
	return line, err
}

// reply reads an answer.
func (d *dialogue) reply() (wire.Reply, error) {
	line, err := d.line()
	if err != nil {
		return wire.Reply{}, err
	}
	r, err := wire.ParseReply(line)
	if err != nil {
		return wire.Reply{}, fmt.Errorf("%w: %q", err, wire.Printable(line))
	}
	return r, nil
}

// send sends a command.
func (d *dialogue) send(command string) error {
	_, err := io.WriteString(d.conn, command+"\n")
	return err
}

// good reads an answer, which must be a good one; otherwise the error is what it means and what the
// server says.
func (d *dialogue) good(otherwise string) (wire.Reply, error) {
	r, err := d.reply()
	if err == nil && !r.Good() {
		err = saying(otherwise, r)
	}
	return r, err
}

// saying returns an error with what a server says.
func saying(what string, r wire.Reply) error {
	return fmt.Errorf("it %s: it says %q", what, wire.Printable(strings.TrimSpace(strconv.Itoa(r.Code)+" "+r.Text)))
}

// ask sends a command and reads a good answer.
func (d *dialogue) ask(otherwise, command string) (wire.Reply, error) {
	if err := d.send(command); err != nil {
		return wire.Reply{}, err
	}
	return d.good(otherwise)
}

// checkClock compares the clocks.
func (d *dialogue) checkClock() error {
	r, err := d.ask("does not say what time it is", "get unixtime")
	if err != nil {
		return err
	}
	seconds, err := strconv.ParseInt(r.Text, 10, 64)
	if err == nil && seconds < 0 && seconds >= math.MinInt32 {
		seconds += 1 << 32 // of a server with 32 bits, from 2038 on
	}
	if err != nil || seconds < 0 || seconds > 1<<40 {
		return fmt.Errorf("it says that the time is %q, which is not a number of seconds", wire.Printable(r.Text))
	}
	off := seconds - d.config.Now().Unix()
	most := int64(maxOff / time.Second)
	switch {
	case off > most:
		return fmt.Errorf("the clock of this host is %d s behind that of the server, and at most %d s are possible: set the clock (NTP)", off, most)
	case off < -most:
		return fmt.Errorf("the clock of this host is %d s ahead of that of the server, and at most %d s are possible: set the clock (NTP)", -off, most)
	}
	return nil
}

// startTLS goes on in TLS, as the configuration says.
func (d *dialogue) startTLS(ctx context.Context) error {
	if d.config.StartTLS == Off {
		return nil
	}
	if err := d.send("starttls"); err != nil {
		return err
	}
	r, err := d.reply()
	switch {
	case err != nil:
		return err
	case !r.Good() && d.config.StartTLS == Auto:
		return nil
	case !r.Good():
		return saying("has no TLS, and starttls = \"require\" is set", r)
	case d.reader.Buffered() > 0:
		return errors.New("it sends something between starttls and the TLS handshake: somebody may have put it there")
	}
	name := d.config.Name
	if name == "" {
		name = d.config.Server
		if host, _, err := net.SplitHostPort(name); err == nil {
			name = host
		}
	}
	conn := tls.Client(d.raw, &tls.Config{ServerName: name, RootCAs: d.config.CA})
	if err := conn.HandshakeContext(ctx); err != nil {
		var invalid *tls.CertificateVerificationError
		if errors.As(err, &invalid) {
			return fmt.Errorf("its certificate is not accepted for the name %s: %w: set ca to the file of the authority that has signed it, or server to the name in it", name, invalid.Err)
		}
		return fmt.Errorf("the TLS handshake failed: %w", err)
	}
	d.conn, d.reader = conn, wire.NewReader(conn)
	return nil
}

// logIn proves that we know the password. It is not sent itself.
func (d *dialogue) logIn() error {
	if _, err := d.ask("does not accept the user "+d.config.User, "username "+d.config.User); err != nil {
		return err
	}
	methods := []wire.Method{wire.MD5, wire.SHA256}
	if d.config.SHA256 {
		methods = []wire.Method{wire.SHA256, wire.MD5}
	}
	var refused error
	for _, m := range methods {
		if err := d.send("challenge " + string(m)); err != nil {
			return err
		}
		r, err := d.reply()
		if err != nil {
			return err
		}
		if !r.Good() {
			if refused == nil {
				refused = saying(d.withoutTLS("does not let anybody log in as this program can"), r)
			}
			continue
		}
		if r.Text == "" {
			return errors.New("it sends an empty challenge")
		}
		_, err = d.ask(d.withoutTLS("refuses the user "+d.config.User+": the user name or the password is wrong"), "authenticate "+string(m)+" "+m.Answer(r.Text, d.config.Password))
		return err
	}
	return refused
}

// withoutTLS adds, if there is no TLS, that this may be why.
func (d *dialogue) withoutTLS(what string) string {
	if d.conn == d.raw && d.config.StartTLS == Off {
		return what + ", or it needs TLS, which starttls = \"off\" forbids"
	}
	return what
}

// list asks for a list, and returns the lines between the first and the last one.
func (d *dialogue) list(command, otherwise string, most int) (lines []string, err error) {
	r, err := d.ask(otherwise, command)
	if err != nil || r.Code == wire.End {
		return nil, err
	}
	for {
		line, err := d.line()
		if err != nil {
			return nil, err
		}
		if r, err := wire.ParseReply(line); err == nil && r.Code == wire.End {
			return lines, nil
		} else if err == nil && r.Bad() {
			return nil, saying(otherwise, r)
		}
		if len(lines) == most {
			return nil, fmt.Errorf("its answer to %q has more than %d lines", command, most)
		}
		lines = append(lines, line)
	}
}

// only returns the user's tunnel, if there is one and no other.
func (d *dialogue) only() (string, error) {
	lines, err := d.list("tunnel list", "does not list the tunnels", maxTunnels)
	if err != nil {
		return "", err
	}
	var ids []string
	for _, l := range lines {
		if id, ok := wire.ParseListed(l); ok {
			ids = append(ids, id)
		}
	}
	switch n := len(ids); {
	case n == 0:
		return "", fmt.Errorf("it has no tunnel for the user %s", d.config.User)
	case n > 1:
		const most = 10
		more := ""
		if n > most {
			ids, more = ids[:most], fmt.Sprintf(" or one of %d more", n-most)
		}
		return "", fmt.Errorf("it has %d tunnels for the user %s: set tunnel_id to one of %s%s", n, d.config.User, strings.Join(ids, ", "), more)
	}
	return ids[0], nil
}

// show returns a tunnel that this program can have.
func (d *dialogue) show(id string) (t wire.Tunnel, err error) {
	lines, err := d.list("tunnel show "+id, "does not show the tunnel "+id, maxFields)
	if err != nil {
		return t, err
	}
	if t, err = wire.ParseShow(lines); err != nil {
		return t, fmt.Errorf("tunnel %s: %w", id, err)
	}
	if t.ID == "" {
		t.ID = id
	}
	switch {
	case t.Disabled != "":
		err = fmt.Errorf("tunnel %s is disabled by the %s", id, t.Disabled)
	case t.Type != wire.Type6in4 && t.Type != wire.TypeHeartbeat && t.Type != wire.TypeAYIYA:
		err = fmt.Errorf("tunnel %s has the type %q, and this program has 6in4, 6in4-heartbeat and ayiya", id, t.Type)
	case t.Password == "" && t.Type != wire.Type6in4:
		err = fmt.Errorf("tunnel %s has no password, without which %s is not possible", id, t.Type)
	}
	return t, err
}
