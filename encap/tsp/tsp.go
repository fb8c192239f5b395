// Package tsp is the wire format of the Tunnel Setup Protocol (RFC 5572): the header over UDP,
// the lines and XML documents of the dialogue, and its authentication. It opens no sockets and
// reads no clock. A message is a text:
//
//	C: VERSION=2.0.2
//	S: CAPABILITY TUNNEL=V6V4 TUNNEL=V6UDPV4 AUTH=ANONYMOUS AUTH=PLAIN AUTH=DIGEST-MD5
//	C: AUTHENTICATE DIGEST-MD5
//	S: a challenge;  C: the response;  S: the server's proof;  C: nothing
//	S: 200 Success
//	C: Content-length and <tunnel action="create" …>
//	S: Content-length, 200 Success and <tunnel action="info" …>
//	C: Content-length and <tunnel action="accept">
//
// A message over UDP is one datagram, and each message of the client is answered by one
// datagram, which has no text where the dialogue has no answer.
package tsp

// Port is the number of the UDP and TCP port of a broker.
const Port = 3653

// Type is a type of tunnel, as in the documents.
type Type string

// The types. AnyV4 is only asked for: the server chooses one of the others.
const (
	V6V4    Type = "v6v4"    // IPv6 in IPv4, protocol 41
	V6UDPV4 Type = "v6udpv4" // IPv6 in UDP over IPv4, between the addresses and ports of the dialogue
	V6AnyV4 Type = "v6anyv4" // V6V4, or V6UDPV4 if there is a NAT
)

// Auth is a method of authentication, as in the lines.
type Auth string

// The methods. Auto is the best one that a server offers: DIGEST-MD5, then PLAIN, then
// ANONYMOUS; PLAIN only where the server offers no DIGEST-MD5.
const (
	Auto      Auth = ""
	Anonymous Auth = "ANONYMOUS"
	Plain     Auth = "PLAIN"
	DigestMD5 Auth = "DIGEST-MD5"
)
