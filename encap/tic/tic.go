// Package tic reads and writes the lines of TIC, the tunnel information and control protocol
// of SixXS, by which the user of a tunnel broker learns how a tunnel is configured.
//
// The client connects to TCP port 3874. It sends a command in a line, and the server answers
// with a line that begins with three digits: 2xx is good, 4xx is bad. A list begins with 201,
// and ends with 202:
//
//	S: 200 SixXS TIC Service on tic.example ready
//	C: client TIC/draft-00 AICCU/2007.01.15-console-linux Linux/6.18
//	S: 200 Client Identity accepted
//	C: get unixtime
//	S: 200 1796032883
//	C: starttls
//	S: 200 Start the TLS handshake              (TLS from here on)
//	C: username alice
//	S: 200 Choose your authentication challenge please
//	C: challenge md5
//	S: 200 0123456789abcdef0123456789abcdef
//	C: authenticate md5 0b18c965ed880d8cf9c24b9f721fe793
//	S: 200 Successfully logged in using md5 as alice
//	C: tunnel list
//	S: 201 Listing tunnels
//	S: T17 2001:db8:2ff:1::2 ayiya pop1
//	S: 202 <tunnel_id> <ipv6_endpoint> <ipv4_endpoint> <pop_name>
//	C: tunnel show T17
//	S: 201 Showing tunnel information for T17
//	S: Type: ayiya                              (and others: see Tunnel)
//	S: 202 Done
//	C: QUIT
//
// The protocol has no specification but the pages of SixXS' service, which has ended, and its
// client. What clients and servers do differently is in docs/broker-clients.md.
//
// # Threats
//
// Without TLS, whoever is on the path reads the answer to the challenge, against which guesses
// of the password can be tested, and the password of the tunnel as it is. He can also change
// everything that the server says.
//
// The package opens no sockets and reads no clock.
package tic

import (
	"crypto/md5"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
)

// Port is the TCP port of the service.
const Port = 3874

// MaxLine is the length of the longest line, in bytes, without what ends it.
const MaxLine = 1023

// MaxAnswer is the length of the longest answer, in bytes, with all its lines. AICCU gives up
// when it has received more at once, even if there are line ends in it.
const MaxAnswer = 1000

// Method is how a user proves to know the password.
type Method string

// The methods.
const (
	Clear  Method = "clear"  // the password itself
	MD5    Method = "md5"    // of SixXS
	SHA256 Method = "sha256" // in place of MD5; in descendants of AICCU
)

// sum returns a digest in hexadecimal.
func (m Method) sum(text string) string {
	if m == SHA256 {
		b := sha256.Sum256([]byte(text))
		return hex.EncodeToString(b[:])
	}
	b := md5.Sum([]byte(text))
	return hex.EncodeToString(b[:])
}

// Answer returns the answer to a challenge.
func (m Method) Answer(challenge, password string) string {
	if m == Clear {
		return password
	}
	return m.sum(challenge + m.sum(password))
}

// Verify reports whether an answer is right. The pages of SixXS put the password first, and
// AICCU puts the challenge first: both are right. Every wrong answer of a length takes the same
// time.
func (m Method) Verify(answer, challenge, password string) bool {
	if m == Clear {
		// Digests, so that the time does not depend on the length of the password.
		a, b := sha256.Sum256([]byte(answer)), sha256.Sum256([]byte(password))
		return subtle.ConstantTimeCompare(a[:], b[:]) == 1
	}
	usual, reverse := m.Answer(challenge, password), m.sum(m.sum(password)+challenge)
	return subtle.ConstantTimeCompare([]byte(answer), []byte(usual))|subtle.ConstantTimeCompare([]byte(answer), []byte(reverse)) == 1
}
