package node

import (
	"sixfour/encap/header"
	"sixfour/encap/teredo"
)

// solicitation returns a signed router solicitation.
func solicitation(key *Key, source header.Word6, nonce uint64) []byte {
	m := teredo.Message{Auth: &teredo.Auth{Nonce: nonce}, Packet: teredo.AppendSolicitation(nil, source)}
	key.sign(&m)
	return teredo.Append(nil, &m)
}

// Solicitation returns the payload of a router solicitation with a nonce, as a client sends it.
// It serves programs that find out what NAT there is without being a client: the answer has the
// mapping from which the solicitation came. With otherAddress, the server answers from the
// other one of its two addresses.
func (m Client) Solicitation(nonce uint64, otherAddress bool) []byte {
	source := teredo.SolicitationSource
	if otherAddress {
		source = teredo.ConeSource
	}
	return solicitation(&m.Key, source, nonce)
}

// Mapping returns the mapping in the answer to a Solicitation with a nonce. Ok is false if the
// payload is not that answer, or not by a server with the client's key.
func (m Client) Mapping(payload []byte, nonce uint64) (at header.Mapping, ok bool) {
	a, err := teredo.Parse(payload)
	if err != nil || a.Auth == nil || a.Auth.Nonce != nonce || a.Auth.Confirmation != 0 || !m.Key.accepts(&a) {
		return at, false
	}
	_, ok = teredo.Advertisement(a.Packet)
	return a.Origin, ok && a.Origin != (header.Mapping{})
}
