package tsp

import (
	"bytes"
	"crypto/hmac"
	"crypto/md5"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// ErrDigest is the error of a message of DIGEST-MD5 (RFC 2831) that cannot be read.
var ErrDigest = errors.New("invalid message of DIGEST-MD5")

// Challenge is what a server of DIGEST-MD5 asks.
type Challenge struct {
	Realm, Nonce string
	Charset      string // "" if it is not given: ISO 8859-1
}

// Append appends the message. A client in the field needs all of its fields, in lower case, and
// no comma in a value.
func (c Challenge) Append(b []byte) []byte {
	return appendBase64(b, fmt.Sprintf(`realm=%s,nonce=%s,qop=auth,algorithm=md5-sess,charset=%s`, quote(c.Realm), quote(c.Nonce), c.Charset))
}

// ParseChallenge reads the message of a server.
func ParseChallenge(text []byte) (c Challenge, err error) {
	fields, err := parseFields(text)
	if err != nil {
		return c, err
	}
	if a, ok := fields["algorithm"]; ok && !strings.EqualFold(a, "md5-sess") {
		return c, fmt.Errorf("%w: algorithm %q", ErrDigest, printable(a))
	}
	if q, ok := fields["qop"]; ok && !containsToken(q, "auth") {
		return c, fmt.Errorf("%w: quality of protection %q", ErrDigest, printable(q))
	}
	c = Challenge{Realm: fields["realm"], Nonce: fields["nonce"], Charset: fields["charset"]}
	if c.Nonce == "" {
		return c, fmt.Errorf("%w: there is no nonce", ErrDigest)
	}
	return c, nil
}

// containsToken reports whether a list with commas has a word.
func containsToken(list, word string) bool {
	for w := range strings.SplitSeq(list, ",") {
		if strings.EqualFold(strings.TrimSpace(w), word) {
			return true
		}
	}
	return false
}

// Digest is a client's answer to a challenge.
type Digest struct {
	User, Realm, Nonce, Cnonce string
	URI                        string
	Charset                    string // as in the challenge
	Authzid                    string // "": none
	Response                   string // 32 hexadecimal digits
}

// nonceCount is the only one: a nonce is used once.
const nonceCount = "00000001"

// Answer returns the answer of a client to a challenge, for a server with a name, which it was
// told or connected to.
func (c Challenge) Answer(user, password, host, cnonce string) Digest {
	d := Digest{User: user, Realm: c.Realm, Nonce: c.Nonce, Cnonce: cnonce, URI: "tsp/" + host, Charset: c.Charset}
	d.Response = d.hash(d.secret(password, narrows(c.Charset)), "AUTHENTICATE:")
	return d
}

// narrows reports whether a charset asks for the conversion of RFC 2831 section 2.1.2.1. Ends
// in the field write "utf8" and hash what they have.
func narrows(charset string) bool { return strings.EqualFold(charset, "utf-8") }

// Append appends the message.
func (d *Digest) Append(b []byte) []byte {
	var s strings.Builder
	if d.Charset != "" {
		fmt.Fprintf(&s, "charset=%s,", d.Charset)
	}
	fmt.Fprintf(&s, `username=%s,realm=%s,nonce=%s,nc=%s,cnonce=%s,digest-uri=%s,response=%s,qop=auth`,
		quote(d.User), quote(d.Realm), quote(d.Nonce), nonceCount, quote(d.Cnonce), quote(d.URI), d.Response)
	return appendBase64(b, s.String())
}

// ParseDigest reads the message of a client.
func ParseDigest(text []byte) (d Digest, err error) {
	fields, err := parseFields(text)
	if err != nil {
		return d, err
	}
	if q, ok := fields["qop"]; ok && !strings.EqualFold(q, "auth") {
		return d, fmt.Errorf("%w: quality of protection %q", ErrDigest, printable(q))
	}
	if fields["nc"] != nonceCount {
		return d, fmt.Errorf("%w: the nonce was used before", ErrDigest)
	}
	d = Digest{
		User: fields["username"], Realm: fields["realm"], Nonce: fields["nonce"], Cnonce: fields["cnonce"], URI: fields["digest-uri"],
		Charset: fields["charset"], Authzid: fields["authzid"], Response: strings.ToLower(fields["response"]),
	}
	if d.User == "" || d.Cnonce == "" || len(d.Response) != 2*md5.Size || !hasPrefixFold(d.URI, "tsp/") {
		return d, fmt.Errorf("%w: a field is missing", ErrDigest)
	}
	return d, nil
}

func hasPrefixFold(s, prefix string) bool {
	_, ok := cutPrefixFold(s, prefix)
	return ok
}

// Check reports whether the answer proves the password for a challenge, and returns the
// server's proof. It takes as long for a wrong password as for the right one.
func (d *Digest) Check(c Challenge, password string) (proof string, ok bool) {
	wide, narrow := d.secret(password, false), d.secret(password, true)
	right := hmac.Equal([]byte(d.hash(wide, "AUTHENTICATE:")), []byte(d.Response))
	rightNarrow := hmac.Equal([]byte(d.hash(narrow, "AUTHENTICATE:")), []byte(d.Response))
	if rightNarrow && !right {
		wide = narrow
	}
	asked := hmac.Equal([]byte(d.Nonce), []byte(c.Nonce)) && d.Realm == c.Realm
	return d.hash(wide, ":"), asked && (right || rightNarrow)
}

// Proof returns the proof that a server owes to a client's own answer.
func (d *Digest) Proof(password string) string {
	return d.hash(d.secret(password, narrows(d.Charset)), ":")
}

// AppendProof appends the message with a server's proof.
func AppendProof(b []byte, proof string) []byte { return appendBase64(b, "rspauth="+proof) }

// ParseProof reads the message with a server's proof.
func ParseProof(text []byte) (proof string, err error) {
	fields, err := parseFields(text)
	if err != nil {
		return "", err
	}
	return strings.ToLower(fields["rspauth"]), nil
}

// SameProof compares two proofs.
func SameProof(a, b string) bool { return hmac.Equal([]byte(a), []byte(b)) }

// secret returns H(A1) of RFC 2831 section 2.1.2.1, in hexadecimal digits. With narrow, names and
// password that ISO 8859-1 can write are hashed in it.
func (d *Digest) secret(password string, narrow bool) string {
	convert := func(s string) string { return s }
	if narrow {
		convert = latin1
	}
	user := md5.Sum([]byte(convert(d.User) + ":" + convert(d.Realm) + ":" + convert(password)))
	a1 := append(user[:], ":"+d.Nonce+":"+d.Cnonce...)
	if d.Authzid != "" {
		a1 = append(a1, ":"+d.Authzid...)
	}
	sum := md5.Sum(a1)
	return hex.EncodeToString(sum[:])
}

// hash returns the response or, with a method without name, the proof.
func (d *Digest) hash(secret, method string) string {
	a2 := md5.Sum([]byte(method + d.URI))
	sum := md5.Sum([]byte(secret + ":" + d.Nonce + ":" + nonceCount + ":" + d.Cnonce + ":auth:" + hex.EncodeToString(a2[:])))
	return hex.EncodeToString(sum[:])
}

// latin1 converts a text to ISO 8859-1, if it can be written in it.
func latin1(s string) string {
	if !utf8.ValidString(s) {
		return s
	}
	b := make([]byte, 0, len(s))
	for _, r := range s {
		if r > 0xff {
			return s
		}
		b = append(b, byte(r))
	}
	return string(b)
}

// quote writes a quoted string (RFC 2831 section 7.2).
func quote(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}

func appendBase64(b []byte, s string) []byte {
	return append(base64.StdEncoding.AppendEncode(b, []byte(s)), "\r\n"...)
}

// Limits of a message of DIGEST-MD5 (RFC 2831 section 2.1).
const (
	maxDigest = 4096
	maxFields = 32
)

// parseFields decodes a message and divides it into its fields, by their names in lower case. A
// field that is given twice is an error.
func parseFields(text []byte) (map[string]string, error) {
	text = bytes.Trim(text, "\x00\r\n\t ")
	if len(text) > base64.StdEncoding.EncodedLen(maxDigest) {
		return nil, fmt.Errorf("%w: it is too long", ErrDigest)
	}
	b, err := base64.StdEncoding.DecodeString(string(text))
	if err != nil {
		return nil, fmt.Errorf("%w: it is not base64", ErrDigest)
	}
	rest := string(bytes.TrimRight(b, "\x00"))
	fields := make(map[string]string)
	for {
		rest = strings.TrimLeft(rest, ", \t\r\n")
		if rest == "" {
			return fields, nil
		}
		name, after, ok := strings.Cut(rest, "=")
		if !ok || len(fields) == maxFields {
			return nil, fmt.Errorf("%w: a field has no value, or there are too many", ErrDigest)
		}
		name = strings.ToLower(strings.TrimSpace(name))
		value, next, ok := fieldValue(strings.TrimLeft(after, " \t"))
		if !ok {
			return nil, fmt.Errorf("%w: a value does not end", ErrDigest)
		}
		if _, twice := fields[name]; twice && name != "realm" { // a server may offer several realms
			return nil, fmt.Errorf("%w: a field is there twice", ErrDigest)
		} else if !twice {
			fields[name] = value
		}
		rest = next
	}
}

// fieldValue takes a value, which may be quoted, from the beginning of s.
func fieldValue(s string) (value, rest string, ok bool) {
	if !strings.HasPrefix(s, `"`) {
		i := strings.IndexByte(s, ',')
		if i < 0 {
			i = len(s)
		}
		return strings.TrimSpace(s[:i]), s[i:], true
	}
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '"':
			return b.String(), s[i+1:], true
		case '\\':
			if i++; i == len(s) {
				return "", "", false
			}
		}
		b.WriteByte(s[i])
	}
	return "", "", false
}
