package prober

import (
	"fmt"

	"sixfour/encap/icmp"
)

// Meaning describes an ICMP error.
func Meaning(e icmp.Error) string {
	names, unreachable, exceeded := unreachable4, byte(icmp.Unreachable4), byte(icmp.TimeExceeded4)
	if e.Version == 6 {
		names, unreachable, exceeded = unreachable6, icmp.Unreachable6, icmp.TimeExceeded6
	}
	switch {
	case e.Meaning() == icmp.TooBig:
		return fmt.Sprintf("that it is too big for an MTU of %d", e.Arg)
	case e.Type == exceeded && e.Code == 0:
		return "that the hop limit is exceeded"
	case e.Type == unreachable && names[e.Code] != "":
		return names[e.Code]
	}
	return fmt.Sprintf("an error of ICMPv%d type %d code %d", e.Version, e.Type, e.Code)
}

// Codes of "destination unreachable" (RFC 792, RFC 1812 section 5.2.7.1; RFC 4443 section
// 3.1). Linux sends "port unreachable" where RFC 2003 requires "protocol unreachable".
var (
	unreachable4 = map[byte]string{
		0: "that there is no route", 1: NoHost, 2: noTunnel, 3: noTunnel,
		9: prohibited, 10: prohibited, 13: prohibited,
	}
	unreachable6 = map[byte]string{
		0: "that there is no route", 1: prohibited, 3: NoHost, 4: noTunnel, 5: prohibited, 6: prohibited,
	}
)

const (
	noTunnel   = "that it has no tunnel with these addresses"
	NoHost     = "that the host is unreachable"
	prohibited = "that a firewall forbids it"
)
