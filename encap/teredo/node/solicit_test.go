package node

import (
	"testing"

	"sixfour/encap/header"
	"sixfour/encap/resolve"
	"sixfour/encap/teredo"
)

// The answer to a question about the NAT must have its nonce, and be signed if there is a key.
func TestSolicitation(t *testing.T) {
	const nonce = 7
	at := header.Mapping{Addr: 0xcb007105, Port: 40000}
	server := header.Mapping{Addr: 0xc6336478, Port: teredo.Port}
	answer := func(m Client, change func(*teredo.Message)) []byte {
		a := teredo.Message{Auth: &teredo.Auth{Nonce: nonce}, Origin: at, Packet: teredo.AppendAdvertisement(nil, server, teredo.SolicitationSource)}
		if change != nil {
			change(&a)
		}
		m.Key.sign(&a)
		return teredo.Append(nil, &a)
	}
	open := NewClient(0, resolve.Host{}, resolve.Host{})
	keyed := open.With(NewKey("lab", "/file", "correct horse"))
	for _, c := range []struct {
		name       string
		client, by Client
		change     func(*teredo.Message)
		ok         bool
	}{
		{"an answer", open, open, nil, true},
		{"another nonce", open, open, func(m *teredo.Message) { m.Auth.Nonce++ }, false},
		{"no mapping", open, open, func(m *teredo.Message) { m.Origin = header.Mapping{} }, false},
		{"a refusal", open, open, func(m *teredo.Message) { m.Auth.Confirmation = 1 }, false},
		{"another packet", open, open, func(m *teredo.Message) { m.Packet = teredo.AppendBubble(nil, header.Word6{}, header.Word6{}) }, false},
		{"a signed answer", keyed, keyed, nil, true},
		{"an answer without a signature", keyed, open, nil, false},
	} {
		got, ok := c.client.Mapping(answer(c.by, c.change), nonce)
		if ok != c.ok || ok && got != at {
			t.Errorf("%s: %v %v", c.name, got, ok)
		}
	}
	for _, other := range []bool{false, true} {
		m, err := teredo.Parse(keyed.Solicitation(nonce, other))
		cone, ok := teredo.Solicitation(m.Packet)
		if err != nil || !ok || cone != other || m.Auth.Nonce != nonce || !keyed.Key.accepts(&m) {
			t.Errorf("a solicitation: %v, cone %v %v", err, cone, ok)
		}
	}
}
