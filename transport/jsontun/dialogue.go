package jsontun

import (
	"context"
	"errors"
	"net/netip"

	"sixfour/encap/jsontun"
	"sixfour/transport/access"
)

// protocol is the name of the protocol in calls of an Authority.
const protocol = "json"

// dialogue is what is known of a client that has no lease yet.
type dialogue struct {
	server   *Server
	from, at netip.AddrPort
	secure   bool // with TLS
	id       string
	account  access.Account
	nonce    string // that we have sent; "": none
	refused  bool   // the Authority knows
}

// parse reads the next message of a client. N is 0 if it is not complete.
func parse(b []byte) (m jsontun.Message, n int, why *access.Refusal) {
	m, n, err := jsontun.Parse(b)
	if err != nil {
		return m, 0, access.Refuse(access.BadMessage, "%v", err)
	}
	return m, n, nil
}

// decide decides about a message: the reply asks for a proof, or has the prefix of the client
// that is attached. It waits for the Authority.
func (d *dialogue) decide(m *jsontun.Message, link access.Link) (reply jsontun.Message, c access.Client, why *access.Refusal) {
	ctx, cancel := context.WithTimeout(d.server.ctx, d.server.times.decision)
	defer cancel()
	authority := d.server.config.Authority
	bits := 0
	if d.nonce == "" {
		if err := jsontun.CheckID(m.ID); err != nil {
			return reply, nil, access.Refuse(access.BadMessage, "%v", err)
		}
		if !d.secure && !authority.Allow(d.from.Addr()) {
			return reply, nil, tooOften
		}
		d.id = m.ID
		var err error
		if d.account, err = authority.Named(m.ID); err != nil {
			return reply, nil, refusal(err)
		}
		if d.account.Secret != "" {
			d.nonce = jsontun.NewNonce()
			return jsontun.Message{Nonce: d.nonce}, nil, nil
		}
		bits = 64 // the original program knows no other length
	} else if why := d.prove(m); why != nil {
		return reply, nil, why
	}
	c, err := authority.Attach(ctx, d.account, access.Attachment{Protocol: protocol, From: d.from, At: d.at, Bits: bits, Link: link})
	if err != nil {
		return reply, nil, refusal(err)
	}
	prefix := c.Lease().Prefix
	if bits == 64 && prefix.Bits() < 64 {
		prefix = netip.PrefixFrom(prefix.Addr(), 64)
	}
	return jsontun.Message{Prefix: prefix.String()}, c, nil
}

var tooOften = access.Refuse(access.TooMany, "too many attempts from this address: wait a while")

// prove reports why a message does not prove that the client knows the secret.
func (d *dialogue) prove(m *jsontun.Message) *access.Refusal {
	switch {
	case m.ID != "" && m.ID != d.id:
		return access.Refuse(access.BadMessage, "the message with the proof has another Id")
	case m.Auth == "":
		return access.Refuse(access.WrongSecret, "this Id has a secret, and the client did not prove that it knows it (Auth)")
	case !m.Proves([]byte(d.account.Secret), d.id, d.nonce):
		return access.Refuse(access.WrongSecret, "the secret is wrong")
	}
	return nil
}

// refusal returns the refusal that an error of the Authority is.
func refusal(err error) *access.Refusal {
	var why *access.Refusal
	if errors.As(err, &why) {
		return why
	}
	return access.Refuse(access.Unavailable, "the server cannot give a prefix at the moment")
}

// refuse reports a refusal to the Authority, and returns the message for the client.
func (d *dialogue) refuse(why *access.Refusal) jsontun.Message {
	d.refused = true
	d.server.config.Authority.Refuse(protocol, d.from, d.account.Name, why)
	if why.Reason == access.NoPrefix {
		return jsontun.Message{Error: "out of prefixes"}
	}
	return jsontun.Message{Error: why.Text}
}

// skip removes what may stand between the dialogue and the first packet: white space, and the
// same hello again, which clients of the original program send if they connect again while the
// first connection is not complete. Something else that begins with { is an error, or not
// complete.
func (d *dialogue) skip(b []byte) ([]byte, error) {
	for {
		b = jsontun.TrimSpace(b)
		if len(b) == 0 || b[0] != '{' {
			return b, nil
		}
		m, n, err := jsontun.Parse(b)
		switch {
		case err != nil:
			return nil, err
		case n == 0:
			return b, nil
		case m.ID != d.id:
			return nil, errors.New("the client sends another message instead of a packet")
		}
		b = b[n:]
	}
}
