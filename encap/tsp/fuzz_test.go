package tsp_test

import (
	"bytes"
	"testing"

	"sixfour/encap/tsp"
	"sixfour/internal/vectors"
)

// seeds adds the recorded datagrams to a corpus.
func seeds(f *testing.F) {
	f.Helper()
	for name, b := range vectors.Read(f) {
		if len(name) > 4 && name[:4] == "TSP-" {
			f.Add(b[28:])
		}
	}
}

// Any datagram is a message or not, and what is written again is the same.
func FuzzDatagram(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		h, text, ok := tsp.Parse(b)
		if ok && tsp.IsPacket(b) {
			t.Error("a packet is a message")
		}
		if ok && !bytes.Equal(append(h.Append(nil), text...), b) {
			t.Errorf("%x is not the same again", b)
		}
	})
}

// A stream of any bytes is divided without losing what is not complete.
func FuzzLines(f *testing.F) {
	seeds(f)
	f.Add([]byte("Content-length: 3\r\n200 Success\r\n\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		tsp.ParseVersion(b)
		tsp.ParseAuthenticate(b)
		tsp.ParseCapability(b)
		tsp.ParsePlain(b)
		if s, _, ok := tsp.ParseStatus(b); ok && len(s.Text) > 200 {
			t.Errorf("the text of a result is %d bytes long", len(s.Text))
		}
		for rest := b; ; {
			text, after, ok, err := tsp.Split(rest)
			if err != nil || !ok {
				return
			}
			if len(text)+len(after) > len(rest) || len(text) == 0 {
				t.Fatalf("%q becomes %q and %q", rest, text, after)
			}
			rest = after
		}
	})
}

// Any document is read in bounded time, and what it says is the same when it is written again.
func FuzzDocument(f *testing.F) {
	seeds(f)
	f.Add([]byte(`<tunnel action="info" type="v6v4"><client><router><prefix length="48">2001:db8::</prefix></router></client></tunnel>`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if i := bytes.IndexByte(b, '<'); i > 0 {
			b = b[i:]
		}
		d, err := tsp.ParseTunnel(b)
		if err != nil || d.Action != tsp.Info {
			return
		}
		again, err := tsp.ParseTunnel(d.AppendInfo(nil))
		if err != nil {
			return // longer than it was
		}
		if again.Type != d.Type || again.Client.Prefix != d.Client.Prefix || again.Client.IPv6 != d.Client.IPv6 {
			t.Errorf("%+v is %+v again", d, again)
		}
	})
}

// Any answer to a challenge is wrong, but for the right one.
func FuzzDigest(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		_, _ = tsp.ParseChallenge(b)
		_, _ = tsp.ParseProof(b)
		d, err := tsp.ParseDigest(b)
		if err != nil {
			return
		}
		if _, ok := d.Check(tsp.Challenge{Realm: "r", Nonce: "2b1c5a"}, "a password that nobody knows"); ok {
			t.Errorf("%+v is right", d)
		}
		if again, err := tsp.ParseDigest(d.Append(nil)); err == nil && again.User != d.User {
			t.Errorf("%+v is %+v again", d, again)
		}
	})
}

// backend knows one user.
type backend struct{}

func (backend) Secret(user string) (string, bool) { return "wonder", user == "alice" }
func (backend) Failed(string)                     {}
func (backend) Serve(string, *tsp.Tunnel) (*tsp.Tunnel, tsp.Status) {
	return &tsp.Tunnel{Action: tsp.Info}, tsp.StatusOf(tsp.Success)
}

// Both ends of a dialogue take any messages, in any order, and no answer to a stranger is much
// longer than what it asks.
func FuzzDialogue(f *testing.F) {
	f.Add([]byte("VERSION=2.0.2\r\n|AUTHENTICATE DIGEST-MD5\r\n|x|\r\n"), true)
	f.Add([]byte("CAPABILITY TUNNEL=V6UDPV4 AUTH=PLAIN\r\n||200 Success\r\n|Content-length: 13\r\n200 Success\r\n"), false)
	f.Fuzz(func(t *testing.T, b []byte, stream bool) {
		offer := tsp.Offer{Realm: "r", Capability: tsp.Capability{
			Tunnels: []tsp.Type{tsp.V6V4, tsp.V6UDPV4}, Auths: []tsp.Auth{tsp.Anonymous, tsp.Plain, tsp.DigestMD5},
		}}
		nonce := func() string { return "0123456789abcdef" }
		d := tsp.NewDialogue(&offer, nonce, stream)
		n := tsp.NewNegotiation(&tsp.Request{User: "alice", Password: "wonder", Want: tsp.V6AnyV4, Host: "h", Cnonce: nonce, Stream: stream})
		for text := range bytes.SplitSeq(b, []byte("|")) {
			known := d.Authenticated()
			if a := d.Receive(text, backend{}); !known && len(a.Text) > 4*len(text)+64 {
				t.Errorf("%q is answered by %d bytes", text, len(a.Text))
			}
			if _, err := n.Receive(text); err != nil {
				n = tsp.NewNegotiation(&tsp.Request{Want: tsp.V6UDPV4, Auth: tsp.Plain, User: "a", Host: "h", Cnonce: nonce, Stream: stream})
			}
		}
	})
}
