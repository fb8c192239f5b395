package tsp_test

import (
	"encoding/base64"
	"errors"
	"strings"
	"testing"

	"sixfour/encap/tsp"
)

// Examples: that of RFC 2831 section 4, figure 12 of RFC 5572 (whose password is "password"), and
// the recorded dialogue TSP-8 to TSP-10.
func TestDigestExamples(t *testing.T) {
	for _, test := range []struct {
		d               tsp.Digest
		password, proof string
	}{
		{
			tsp.Digest{
				User: "chris", Realm: "elwood.innosoft.com", Nonce: "OA6MG9tEQGm2hh", Cnonce: "OA6MHXh6VqTrRk",
				URI: "imap/elwood.innosoft.com", Charset: "utf-8", Response: "d388dad90d4bbd760a152321f2143af7",
			}, "secret", "ea40f60335c427b5527b84dbabcdfffd",
		},
		{
			tsp.Digest{
				User: "username1", Realm: "hexos", Nonce: "1113908968", Cnonce: "1113923311",
				URI: "tsp/hexos", Response: "f8e42b3c50c59771853f6274fcffd1ca",
			}, "password", "70d5cabc9235568be380ba2c907381fe",
		},
		{
			tsp.Digest{
				User: "alice", Realm: "cdpatsps", Nonce: "64E411A8", Cnonce: "1796033421",
				URI: "tsp/198.51.100.2", Charset: "utf8", Response: "90979be7f074b0b7d95591b4e5948012",
			}, "wonder", "b2f9577b7d5e5b835cf6f67c5bbbeff5",
		},
	} {
		c := tsp.Challenge{Realm: test.d.Realm, Nonce: test.d.Nonce, Charset: test.d.Charset}
		if proof, ok := test.d.Check(c, test.password); !ok || proof != test.proof {
			t.Errorf("%s: %v, and the proof is %s, not %s", test.d.User, ok, proof, test.proof)
		}
		if test.d.Proof(test.password) != test.proof {
			t.Errorf("%s: the expected proof is %s", test.d.User, test.d.Proof(test.password))
		}
		if _, ok := test.d.Check(c, test.password+"x"); ok {
			t.Errorf("%s: a wrong password is right", test.d.User)
		}
		c.Nonce += "x"
		if _, ok := test.d.Check(c, test.password); ok {
			t.Errorf("%s: another nonce is right", test.d.User)
		}
	}
}

// What a client in the field has sent (TSP-9) is read, and written again byte by byte.
func TestDigestRecorded(t *testing.T) {
	text := udp(t, "TSP-9")[8:]
	d, err := tsp.ParseDigest(text)
	if err != nil {
		t.Fatal(err)
	}
	if got := d.Append(nil); string(got) != string(text) {
		t.Errorf("written again it is %q, not %q", got, text)
	}
	c, err := tsp.ParseChallenge(udp(t, "TSP-8")[8:])
	if err != nil || c != (tsp.Challenge{Realm: "cdpatsps", Nonce: "64E411A8", Charset: "utf8"}) {
		t.Errorf("the challenge is %+v, %v", c, err)
	}
	if proof, err := tsp.ParseProof(udp(t, "TSP-10")[8:]); err != nil || proof != d.Proof("wonder") {
		t.Errorf("the proof is %s, %v", proof, err)
	}
	if again := c.Answer("alice", "wonder", "198.51.100.2", "1796033421"); again != d {
		t.Errorf("the answer is %+v, not %+v", again, d)
	}
}

// Names outside ASCII are hashed as ISO 8859-1 where they can be (RFC 2831 section 2.1.2.1), and
// by clients in the field as they are.
func TestDigestCharsets(t *testing.T) {
	for _, user := range []string{"zoë", "ζωή", "alice"} {
		for _, charset := range []string{"utf-8", "utf8", ""} {
			c := tsp.Challenge{Realm: "réalm", Nonce: "n", Charset: charset}
			d := c.Answer(user, "pässword", "host", "c")
			if proof, ok := d.Check(c, "pässword"); !ok || proof != d.Proof("pässword") {
				t.Errorf("%s with the charset %q: %v", user, charset, ok)
			}
		}
	}
}

func TestDigestRefuses(t *testing.T) {
	const good = `username="alice",realm="r",nonce="n",nc=00000001,cnonce="c",digest-uri="tsp/h",response=90979be7f074b0b7d95591b4e5948012,qop=auth`
	encode := func(s string) []byte { return []byte(base64.StdEncoding.EncodeToString([]byte(s)) + "\r\n") }
	if _, err := tsp.ParseDigest(encode(good)); err != nil {
		t.Fatal(err)
	}
	if d, err := tsp.ParseDigest(encode(strings.Replace(good, "alice", `a\"l\\i,c=e`, 1))); err != nil || d.User != `a"l\i,c=e` {
		t.Errorf("a quoted name is %q, %v", d.User, err)
	}
	for name, s := range map[string]string{
		"second use":    strings.Replace(good, "00000001", "00000002", 1),
		"no count":      strings.Replace(good, "nc=00000001,", "", 1),
		"integrity":     strings.Replace(good, "qop=auth", "qop=auth-int", 1),
		"other service": strings.Replace(good, "tsp/h", "imap/h", 1),
		"no user":       strings.Replace(good, `username="alice",`, "", 1),
		"no cnonce":     strings.Replace(good, `cnonce="c",`, "", 1),
		"short":         strings.Replace(good, "90979be7", "9097", 1),
		"twice":         good + `,nonce="m"`,
		"open quote":    good + `,x="y`,
		"open escape":   good + `,x="\`,
		"no value":      good + `,x`,
		"too many":      good + strings.Repeat(",", 10) + fields(40),
		"too long":      good + `,x="` + strings.Repeat("y", 8000) + `"`,
		"empty":         "",
	} {
		if _, err := tsp.ParseDigest(encode(s)); !errors.Is(err, tsp.ErrDigest) {
			t.Errorf("%s: the error is %v", name, err)
		}
	}
	if _, err := tsp.ParseDigest([]byte("not base64!\r\n")); !errors.Is(err, tsp.ErrDigest) {
		t.Errorf("the error is %v", err)
	}
	for name, s := range map[string]string{
		"no nonce":  `realm="r"`,
		"algorithm": `nonce="n",algorithm=sha`,
		"integrity": `nonce="n",qop="auth-int"`,
	} {
		if _, err := tsp.ParseChallenge(encode(s)); !errors.Is(err, tsp.ErrDigest) {
			t.Errorf("challenge, %s: the error is %v", name, err)
		}
	}
	if c, err := tsp.ParseChallenge(encode(`realm="a",realm="b",nonce="n",qop="auth,auth-int"`)); err != nil || c.Realm != "a" {
		t.Errorf("of two realms the first one is %q, %v", c.Realm, err)
	}
}

func fields(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(",f" + strings.Repeat("x", i) + "=1")
	}
	return b.String()
}
