package tsp

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"strings"
)

// Limits of a document. Entities and document types are errors.
const (
	maxDepth    = 8
	maxElements = 64
	maxText     = 256 // of an element
	maxList     = 8   // addresses of a kind
)

// The actions of documents.
const (
	Create = "create"
	Accept = "accept"
	Reject = "reject"
	Delete = "delete"
	Info   = "info"
)

// Tunnel is a document: what a client asks for, or what a server grants.
type Tunnel struct {
	Action   string // in lower case
	Type     Type   // in lower case
	Lifetime int    // minutes, in the text of the protocol; 0: none
	MTU      int    // in bytes; 0: not given
	Server   End
	Client   End
	Brokers  []Broker // others to ask
}

// End is what a document says about one end of the tunnel. Zero values are not given.
type End struct {
	IPv4, IPv6 netip.Addr
	Name       string // domain name
	DNS        []netip.Addr

	Router       bool // whether a prefix is asked for or granted
	Prefix       netip.Prefix
	PrefixLength int // of the prefix that is asked for; 0: any

	Keepalive   int // seconds; 0: none
	KeepaliveTo netip.Addr
}

// Broker is another broker: an address or a name.
type Broker struct {
	Addr netip.Addr
	Name string
}

// ErrDocument is the error of a document that cannot be read. Errors wrap it.
var ErrDocument = errors.New("invalid document")

// ParseTunnel reads a document. Elements and attributes that it does not know are ignored.
func ParseTunnel(doc []byte) (*Tunnel, error) {
	if len(doc) > MaxMessage {
		return nil, fmt.Errorf("%w: longer than %d bytes", ErrDocument, MaxMessage)
	}
	d := xml.NewDecoder(bytes.NewReader(bytes.TrimRight(doc, "\x00\r\n\t ")))
	d.Strict = true
	p := parser{tunnel: &Tunnel{}}
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil {
			err = p.take(token)
		}
		if err != nil {
			return nil, fmt.Errorf("%w: %v", ErrDocument, err)
		}
	}
	if !p.closed {
		return nil, fmt.Errorf("%w: there is no tunnel element", ErrDocument)
	}
	return p.tunnel, nil
}

// parser reads the tokens of a document.
type parser struct {
	tunnel   *Tunnel
	open     []element
	elements int
	closed   bool // the root element has ended
}

// element is an element that has not ended.
type element struct {
	name, kind string // kind: attribute type of an address
	length     string // attribute length of a prefix
	text       []byte
}

func (p *parser) take(token xml.Token) error {
	switch t := token.(type) {
	case xml.StartElement:
		return p.start(t)
	case xml.CharData:
		return p.data(t)
	case xml.EndElement:
		e := p.open[len(p.open)-1]
		p.open = p.open[:len(p.open)-1]
		p.closed = len(p.open) == 0
		return p.end(e)
	case xml.Directive:
		return errors.New("it has a document type or another declaration")
	case xml.ProcInst:
		if t.Target != "xml" || p.elements > 0 {
			return errors.New("it has a processing instruction")
		}
	}
	return nil
}

func (p *parser) start(t xml.StartElement) error {
	p.elements++
	switch {
	case p.closed:
		return errors.New("there is something behind the tunnel element")
	case len(p.open) == 0 && t.Name.Local != "tunnel":
		return errors.New("there is no tunnel element")
	case len(p.open) == maxDepth || p.elements > maxElements || len(t.Attr) > maxElements:
		return errors.New("it has too many elements")
	}
	e := element{name: t.Name.Local}
	for _, a := range t.Attr {
		if err := p.attribute(&e, a.Name.Local, strings.TrimSpace(a.Value)); err != nil {
			return err
		}
	}
	switch p.path(e.name) {
	case "tunnel/client/router":
		p.tunnel.Client.Router = true
	case "tunnel/server/router":
		p.tunnel.Server.Router = true
	}
	p.open = append(p.open, e)
	return nil
}

// path returns the names of the open elements and another one.
func (p *parser) path(name string) string {
	var b strings.Builder
	for i := range p.open {
		b.WriteString(p.open[i].name)
		b.WriteByte('/')
	}
	return b.String() + name
}

func (p *parser) attribute(e *element, name, value string) (err error) {
	switch p.path(e.name) + " " + name {
	case "tunnel action":
		p.tunnel.Action = strings.ToLower(value)
	case "tunnel type":
		p.tunnel.Type = Type(strings.ToLower(value))
	case "tunnel lifetime":
		p.tunnel.Lifetime, err = number(name, value, maxLifetime)
	case "tunnel mtu":
		p.tunnel.MTU, err = number(name, value, 65535)
	case "tunnel/client/keepalive interval":
		p.tunnel.Client.Keepalive, err = number(name, value, maxKeepalive)
	case "tunnel/client/router/prefix length":
		e.length = value
	default:
		if name == "type" {
			e.kind = strings.ToLower(value)
		}
	}
	return err
}

// Largest numbers in documents; larger ones count as these. A lifetime is a year at most.
const (
	maxLifetime  = 366 * 24 * 60
	maxKeepalive = 24 * 60 * 60
)

func number(name, value string, most int) (int, error) {
	n, err := strconv.ParseUint(value, 10, 32)
	if err != nil {
		return 0, fmt.Errorf("%s is not a number", name)
	}
	return min(int(n), most), nil
}

func (p *parser) data(t []byte) error {
	if len(p.open) == 0 {
		if len(bytes.Trim(t, "\x00\r\n\t ")) > 0 {
			return errors.New("there is text outside the tunnel element")
		}
		return nil
	}
	e := &p.open[len(p.open)-1]
	if len(e.text)+len(t) > maxText {
		return fmt.Errorf("the text of %s is too long", e.name)
	}
	e.text = append(e.text, t...)
	return nil
}

// end uses the content of an element that has ended.
func (p *parser) end(e element) error {
	text := strings.TrimSpace(string(e.text))
	c := &p.tunnel.Client
	switch p.path(e.name) {
	case "tunnel/client/address":
		return c.address(e.kind, text)
	case "tunnel/server/address":
		return p.tunnel.Server.address(e.kind, text)
	case "tunnel/client/dns_server/address":
		return p.resolver(e.kind, text)
	case "tunnel/client/keepalive/address":
		a, err := addr(e.kind, text)
		if err != nil || a.IsUnspecified() {
			return err // clients in the field ask with ::
		}
		c.KeepaliveTo = a
	case "tunnel/client/router/prefix":
		return c.prefix(e.length, text)
	case "tunnel/broker/address":
		return p.broker(e.kind, text)
	}
	return nil
}

// addr reads an address of a kind.
func addr(kind, text string) (a netip.Addr, err error) {
	a, err = netip.ParseAddr(text)
	if err != nil || a.Zone() != "" || kind == "ipv4" && !a.Is4() || kind == "ipv6" && !a.Is6() {
		return netip.Addr{}, fmt.Errorf("an address is not of the type %q", kind)
	}
	return a, nil
}

func (e *End) address(kind, text string) (err error) {
	switch kind {
	case "ipv4":
		e.IPv4, err = addr(kind, text)
	case "ipv6":
		e.IPv6, err = addr(kind, text)
	case "dn":
		e.Name = printable(text)
	}
	return err
}

func (p *parser) resolver(kind, text string) error {
	if kind != "ipv4" && kind != "ipv6" || len(p.tunnel.Client.DNS) == maxList {
		return nil
	}
	a, err := addr(kind, text)
	if err != nil || a.IsUnspecified() {
		return err
	}
	p.tunnel.Client.DNS = append(p.tunnel.Client.DNS, a)
	return nil
}

// prefix reads the prefix of a router: its length alone is a request.
func (e *End) prefix(length, text string) (err error) {
	if length != "" {
		if e.PrefixLength, err = number("length", length, 255); err != nil {
			return err
		}
	}
	if text == "" {
		return nil
	}
	a, err := addr("ipv6", text)
	if err != nil {
		return err
	}
	if e.Prefix, err = a.Prefix(e.PrefixLength); err != nil {
		return errors.New("a prefix has an invalid length")
	}
	return nil
}

func (p *parser) broker(kind, text string) error {
	if len(p.tunnel.Brokers) == maxList || text == "" {
		return nil
	}
	if kind == "dn" {
		p.tunnel.Brokers = append(p.tunnel.Brokers, Broker{Name: printable(text)})
		return nil
	}
	a, err := addr(kind, text)
	if err == nil {
		p.tunnel.Brokers = append(p.tunnel.Brokers, Broker{Addr: a})
	}
	return err
}
