package tsp

import (
	"bytes"
	"crypto/hmac"
	"slices"
)

// Offer is what a server offers to all clients.
type Offer struct {
	Capability
	Realm string // of DIGEST-MD5
}

// Backend decides about clients for a Dialogue.
type Backend interface {
	// Secret returns the secret of a user. An unknown user is asked for a password as a known
	// one.
	Secret(user string) (secret string, known bool)
	// Failed says that a client has not proved to be the user.
	Failed(user string)
	// Serve serves the request of a client that is authenticated; the user is "" if it is
	// anonymous. Without success the document is nil.
	Serve(user string, request *Tunnel) (info *Tunnel, result Status)
}

// Dialogue is a server's end of one dialogue.
type Dialogue struct {
	offer  *Offer
	nonce  func() string
	stream bool

	step      step
	user      string
	challenge Challenge
}

// step is what a server expects next.
type step uint8

const (
	version step = iota
	authenticate
	plain
	digest
	proved // the client takes note of the server's proof
	request
)

// NewDialogue begins a dialogue. Nonce returns a new random word of letters and digits. Stream
// says that it runs over TCP, where messages without a text do not exist.
func NewDialogue(o *Offer, nonce func() string, stream bool) *Dialogue {
	return &Dialogue{offer: o, nonce: nonce, stream: stream}
}

// Answer is what a server answers to one message.
type Answer struct {
	Text  []byte // may be empty: over UDP, the answer is a header alone
	Then  []byte // a message of its own that follows
	Quiet bool   // there is no answer, not even a header
	End   bool   // the dialogue has failed: the next message begins another one
}

// Begins reports whether a text begins a dialogue.
func Begins(text []byte) bool {
	_, ok := ParseVersion(text)
	return ok
}

// Started reports whether the client has begun.
func (d *Dialogue) Started() bool { return d.step != version }

// Authenticated reports whether the client has proved who it is.
func (d *Dialogue) Authenticated() bool { return d.step == request }

// Receive takes the next message of the client. The text is not retained.
func (d *Dialogue) Receive(text []byte, b Backend) Answer {
	switch d.step {
	case version:
		return d.version(text)
	case authenticate:
		return d.authenticate(text)
	case plain:
		return d.plain(text, b)
	case digest:
		return d.digest(text, b)
	case proved:
		d.step = request
		if len(bytes.Trim(text, "\x00\r\n\t ")) == 0 {
			return result(Success)
		}
	}
	return d.request(text, b)
}

// result is an answer that is a result alone.
func result(code int) Answer {
	return Answer{Text: StatusOf(code).Append(nil), End: code != Success}
}

func (d *Dialogue) version(text []byte) Answer {
	v, ok := ParseVersion(text)
	if !ok {
		if _, auth := ParseAuthenticate(text); auth || hasPrefixFold(string(text[:min(len(text), len(contentLength))]), contentLength) {
			return result(ServerError) // of a dialogue that was forgotten: the client begins again
		}
		return Answer{Quiet: true, End: true}
	}
	if !slices.Contains(Versions, v) {
		return result(BadVersion)
	}
	d.step = authenticate
	return Answer{Text: d.offer.Capability.Append(nil)}
}

func (d *Dialogue) authenticate(text []byte) Answer {
	a, ok := ParseAuthenticate(text)
	if !ok || !slices.Contains(d.offer.Auths, a) {
		return result(AuthFailed)
	}
	switch a {
	case Anonymous:
		d.step, d.user = request, ""
		return result(Success)
	case Plain:
		d.step = plain
		return Answer{}
	case DigestMD5:
		d.step = digest
		d.challenge = Challenge{Realm: d.offer.Realm, Nonce: d.nonce(), Charset: "utf-8"}
		return Answer{Text: d.challenge.Append(nil)}
	}
	return result(AuthFailed)
}

// plain checks the credentials of PLAIN. Over TCP the password may follow in a line of its own.
func (d *Dialogue) plain(text []byte, b Backend) Answer {
	if d.user != "" {
		text = append(append([]byte(d.user), 0), bytes.Trim(text, "\x00\r\n")...)
		d.user = ""
	}
	user, password, ok := ParsePlain(text)
	if !ok && d.stream && user != "" {
		d.user = user
		return Answer{}
	}
	if !ok || user == "" {
		b.Failed(user)
		return result(AuthFailed)
	}
	secret, known := b.Secret(user)
	if !sameSecret(password, secret) || !known {
		b.Failed(user)
		return result(AuthFailed)
	}
	d.step, d.user = request, user
	return result(Success)
}

// digest checks a client's answer to the challenge, which is used once.
func (d *Dialogue) digest(text []byte, b Backend) Answer {
	challenge := d.challenge
	d.challenge = Challenge{}
	r, err := ParseDigest(text)
	if err != nil || challenge.Nonce == "" {
		b.Failed("")
		return result(AuthFailed)
	}
	secret, known := b.Secret(r.User)
	proof, ok := r.Check(challenge, secret)
	if !ok || !known {
		b.Failed(r.User)
		return result(AuthFailed)
	}
	d.step, d.user = proved, r.User
	a := Answer{Text: AppendProof(nil, proof)}
	if d.stream {
		d.step, a.Then = request, StatusOf(Success).Append(nil)
	}
	return a
}

// request serves a document.
func (d *Dialogue) request(text []byte, b Backend) Answer {
	body, ok, err := Document(text)
	if err != nil || !ok {
		return document(StatusOf(BadRequest), nil)
	}
	t, err := ParseTunnel(body)
	if err != nil {
		return document(StatusOf(BadRequest), nil)
	}
	info, s := b.Serve(d.user, t)
	if s.Code == Success && (t.Action == Accept || t.Action == Reject) {
		return Answer{} // the dialogue has no answer to these
	}
	return document(s, info)
}

// document is an answer with a Content-length.
func document(s Status, info *Tunnel) Answer {
	body := s.Append(nil)
	if info != nil {
		body = info.AppendInfo(body)
	}
	return Answer{Text: AppendDocument(nil, body)}
}

// sameSecret compares two secrets in constant time.
func sameSecret(a, b string) bool { return hmac.Equal([]byte(a), []byte(b)) }

// Quick reports whether the next call of Receive asks no Backend.
func (d *Dialogue) Quick() bool { return d.step < plain }
