// Package rendezvous is the protocol by which one end of a tunnel over UDP learns the
// address and the port of the other end, through NATs and after each change of them.
//
// The caller is the end that knows where the other one is. It sends a hello to the port for
// tunnel packets, again and again. The listener answers, and sends its tunnel packets to the
// address and port from which the last valid hello came. Tunnel packets change nothing. Both
// ends share a secret of at least 16 bytes, from which an identifier and a key for
// HMAC-SHA-256 are derived. The identifier is in each message, so that a listener with any
// number of peers finds the right key with one look-up.
//
// The package opens no sockets and reads no clock: see Caller and Listener.
//
// # Messages
//
// Messages are the payload of UDP datagrams. They have 96 bytes, so an answer is never longer
// than what it answers. Numbers are big-endian.
//
//	 0 ┌──────────┬──────────┬──────────┬──────────┬───────────────────────────────┐
//	   │ mark f5  │ ver. × 8 │ 1 hello  │ outcome  │ counter                       │
//	   │          │      + 7 │ 2 answer │          │                               │
//	 8 ├──────────┴──────────┴──────────┴──────────┴───────────────────────────────┤
//	   │ identifier of the secret                                                  │
//	16 ├───────────────────────────────────────────────────────────────────────────┤
//	   │ caller's time: seconds since 1970                                         │
//	24 ├───────────────────────────────────────────┬───────────────┬───────────────┤
//	   │ nanoseconds                               │ lifetime, s   │ port          │
//	32 ├───────────────────────────────────────────┴───────────────┴───────────────┤
//	   │ address from which the hello came, an IPv4 address as ::ffff:a.b.c.d      │
//	   │                                                                           │
//	48 ├───────────────────────────────────────────────────────────────────────────┤
//	   │ cookie                                                                    │
//	   │                                                                           │
//	64 ├───────────────────────────────────────────────────────────────────────────┤
//	   │ listener's time: seconds since 1970                                       │
//	72 ├───────────────────────────────────────────┬───────────────────────────────┤
//	   │ nanoseconds                               │ 0                             │
//	80 ├───────────────────────────────────────────┴───────────────────────────────┤
//	   │ first 16 bytes of HMAC-SHA-256 over the bytes before                      │
//	96 └───────────────────────────────────────────────────────────────────────────┘
//
// A hello has an outcome, a port, an address and a listener's time of 0; its lifetime is how
// long the listener may send to the address without another hello. An answer repeats the
// caller's time and counter, and has a lifetime of 0. It tells the caller from which address
// and port the hello came, so the caller knows whether there is a NAT.
//
// The first two bytes differ from those of all tunnel packets: IP version 15, GUE variant 3,
// and GRE with all four flags and version 7. A Linux kernel drops such a packet.
//
// # Which hellos count
//
// A hello is accepted if
//
//   - its MAC is right;
//   - its time is within 90 s of the listener's;
//   - its time and counter are greater than those of the last one that was accepted;
//   - its cookie is one that this listener gave to this address and port within the last two
//     minutes.
//
// The cookie is a MAC over the addresses and ports of both ends, with a key that the listener
// chooses at random when it starts. The listener needs no memory for it. Each answer has the
// cookie for the address to which it is sent. So a hello from a new address, or to a listener
// that was restarted, is first answered with a challenge, and accepted at the second attempt:
// two more messages. At other times a hello and an answer are all.
//
// A caller whose clock is wrong learns the listener's time from the answer, and uses it in its
// next hellos, so hosts without a battery for their clock can connect. Both ends report how
// far the clocks are apart.
//
// # Threats
//
// A stranger, who does not have the secret, gets no answer, and changes nothing that the
// listener remembers. Without a valid identifier the listener does not compute a MAC. MACs
// and cookies are compared in constant time. Messages of one direction are not valid in the
// other, because the type is under the MAC.
//
// Somebody who reads messages and sends copies from another address, at once or later, gets
// a challenge for that address or, if the original was accepted, at most one answer in a
// second, of the same length. The cookie that it contains is under the MAC, so it is of no
// use in a copy, and only the holder of the secret can put it into a hello. Copies with the
// original source address have an old time and counter, or are the original itself, and move
// nothing. That is also true after a restart, when the listener has forgotten which times
// were used: the cookies of before are not valid any more. A hello that was held back, and
// is sent later, is older than the last one that was accepted. If none was accepted since, the
// endpoint is still the one that the hello was sent from.
//
// A copy of an answer is not accepted either: the caller accepts one answer to each of its
// hellos, and tells them apart by time and counter.
//
// Somebody on the path who forwards everything in both directions, and gives the packets a
// source address of his own, cannot be told from a NAT. He gets the tunnel's packets, which
// passed him anyway. He can do no more than drop, delay or read them; the tunnel's packets are
// neither encrypted nor authenticated by this protocol.
//
// The identifier is the same in all messages with one secret: it shows that two addresses
// belong to one host. Whoever has a message can test guesses of the secret, which must
// therefore be random.
package rendezvous
