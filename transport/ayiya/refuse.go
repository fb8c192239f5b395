package ayiya

import (
	"errors"
	"net/netip"
	"time"

	"sixfour/encap/ayiya"
	"sixfour/encap/header"
	"sixfour/transport/access"
)

// protocol is the name of the protocol for the broker.
const protocol = "ayiya"

// Why packets are refused. There is one value for each reason, because anybody can send such
// packets.
var (
	otherIdentity = access.Refuse(access.UnknownAccount, "the identity is not an IPv6 address")
	otherHash     = access.Refuse(access.Unsupported, "the method of hashing is not one that the server accepts")
	noAccount     = access.Refuse(access.UnknownAccount, "no account has this identity")
	wrongSecret   = access.Refuse(access.WrongSecret, "the signature is not made with the account's secret")
	noSecret      = access.Refuse(access.WrongSecret, "the account has no secret, without which there is no signature")
	replayed      = access.Refuse(access.Replay, "the packet was received before")
	tooMany       = access.Refuse(access.TooMany, "the source sends too many packets that prove nothing")
	busy          = access.Refuse(access.TooMany, "too many clients arrive at the same time")
	failed        = access.Refuse(access.Unavailable, "the broker does not answer")

	malformed = func() map[error]*access.Refusal {
		all := map[error]*access.Refusal{}
		for _, err := range []error{
			ayiya.ErrTruncated, ayiya.ErrIdentity, ayiya.ErrHash, ayiya.ErrAuthentication,
			ayiya.ErrOperation, ayiya.ErrNextHeader, ayiya.ErrLength, ayiya.ErrExtended,
		} {
			all[err] = access.Refuse(access.BadMessage, "%v", err)
		}
		return all
	}()
)

// refusalOf returns the refusal for an error of Parse.
func refusalOf(err error) *access.Refusal { return malformed[err] }

// badClock returns the refusal for a packet of another time.
func badClock(skew time.Duration) *access.Refusal {
	if skew > 0 {
		return access.Refuse(access.BadClock, "the client's clock is %v ahead of the server's", skew)
	}
	return access.Refuse(access.BadClock, "the client's clock is %v behind the server's", -skew)
}

// refusalFrom returns the refusal in an error of the broker.
func refusalFrom(err error, otherwise *access.Refusal) *access.Refusal {
	var r *access.Refusal
	if errors.As(err, &r) {
		return r
	}
	return otherwise
}

func (s *Server) refuse(from netip.AddrPort, account string, why *access.Refusal) {
	s.config.Authority.Refuse(protocol, from, account, why)
}

// refuseLate reports a packet with a right signature that is not accepted, for each client not
// too often: a busy client sends many.
func (s *Server) refuseLate(client *member, account string, m *ayiya.Message, o *header.Outer, now time.Time) {
	at := max(1, s.elapsed(now))
	client.mu.Lock()
	same := client.last.from == o.From
	report := client.refused == 0 || at-client.refused >= int64(s.config.reports)
	skew := ayiya.Skew(m.Epoch, now)
	if !s.skewed(skew) && m.Op == ayiya.Noop && same { // old clients send several in one second
		report = false
	}
	if report {
		client.refused = at
	}
	client.mu.Unlock()
	switch {
	case !report:
	case s.skewed(skew):
		s.refuse(o.From, account, badClock(skew))
	default:
		s.refuse(o.From, account, replayed)
	}
}
