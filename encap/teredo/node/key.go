package node

import (
	"fmt"

	"sixfour/encap/teredo"
)

// Key is what a server and its clients have in common, so that the server serves no others (RFC
// 4380 section 5.2.2). With the zero value, anyone is served.
type Key struct {
	User   string // the client identifier
	File   string // from which the secret is
	secret string
}

// NewKey returns a key with a secret from a file. The secret may be empty, while the file
// cannot be read: then nobody is served.
func NewKey(user, file, secret string) Key { return Key{user, file, secret} }

// String keeps the secret out of texts.
func (k Key) String() string { return k.File }

// GoString keeps the secret out of %#v.
func (k Key) GoString() string { return fmt.Sprintf("node.Key{%q, %q}", k.User, k.File) }

// sign writes the authentication value of a message with an authentication header.
func (k *Key) sign(m *teredo.Message) {
	if k.File != "" {
		m.Auth.ID = []byte(k.User)
		m.Sign([]byte(k.secret))
	}
}

// accepts reports whether a message was made with the key.
func (k *Key) accepts(m *teredo.Message) bool {
	return k.File == "" || k.secret != "" && m.Verify([]byte(k.secret)) && string(m.Auth.ID) == k.User
}

// keyed is embedded in the mechanisms that can have a key.
type keyed struct{ Key Key }

// SecretFile returns the file of the key; "": there is none.
func (k keyed) SecretFile() string { return k.Key.File }
