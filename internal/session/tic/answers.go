package tic

import (
	"net/netip"
	"strconv"
	"strings"

	wire "sixfour/encap/tic"
	"sixfour/transport/access"
)

// memberCommands are those that need a user who has logged in.
var memberCommands = map[string]func(x *session, args []string){
	"tunnel list": (*session).tunnelList,
	"tunnel show": (*session).tunnelShow,
	"tunnel set":  (*session).tunnelSet,
	"route list":  (*session).routeList,
	"route show":  (*session).routeShow,
	"pop list":    (*session).popList,
	"pop show":    (*session).popShow,
}

// member answers a command of a user who has logged in.
func (x *session) member(c wire.Command) {
	do, ok := memberCommands[c.Name]
	switch {
	case !ok:
		x.sorry("Unknown command, try help")
	case x.account.Name == "":
		x.sorry("Log in first: starttls, username, challenge, authenticate")
	default:
		do(x, c.Args)
	}
}

// current returns the account as it is now: it may have been changed since the user has
// logged in, or removed.
func (x *session) current() (access.Account, bool) {
	a, err := x.server.config.Authority.Named(x.account.Name)
	if err != nil || a.Secret != x.account.Secret {
		x.end("400 The account has been changed, log in again")
		return a, false
	}
	x.account = a
	return a, true
}

// tunnel returns the user's tunnel.
func (x *session) tunnel() (t wire.Tunnel, ok bool) {
	a, ok := x.current()
	if !ok {
		return t, false
	}
	c := &x.server.config
	t = wire.Tunnel{ID: "T" + number(a), Client: a.Endpoint.Client, Broker: a.Endpoint.Broker, Bits: 64, MTU: a.MTU,
		Name: wire.Printable(a.Name), POP: c.POP.ID, Password: a.Secret, Interval: c.Interval}
	if a.Type == "6in4" && c.Outer != nil {
		t.Outer = c.Outer(a.Name)
	}
	// What the account says comes first, and then what there is.
	kinds := []string{wire.TypeHeartbeat, wire.TypeAYIYA}
	switch {
	case t.Outer.IsValid():
		kinds = []string{wire.Type6in4}
	case a.Type == "ayiya":
		kinds = []string{wire.TypeAYIYA, wire.TypeHeartbeat}
	}
	for _, t.Type = range kinds {
		if t.Server, ok = c.End(t.Type); ok {
			if !t.Server.IsValid() {
				t.Server = endpoint(x.raw.LocalAddr()).Addr()
			}
			if t.Server.Is4() {
				return t, true
			}
		}
	}
	x.sorry("There is no tunnel that this server can offer here: the operator must let AYIYA or heartbeat listen at an IPv4 address, at its own port")
	return t, false
}

func number(a access.Account) string { return strconv.FormatUint(a.Number, 10) }

func (x *session) tunnelList([]string) {
	if t, ok := x.tunnel(); ok {
		x.list("201 Listing tunnels", []string{t.Listed()}, "202 <tunnel_id> <ipv6_endpoint> <ipv4_endpoint> <pop_name>")
	}
}

// own reports whether an identifier is that of the user's tunnel, or of its route: with the
// letter, or without it as some clients have it.
func (x *session) own(letter string, args []string) bool {
	return len(args) > 0 && strings.TrimPrefix(strings.ToUpper(args[0]), letter) == number(x.account)
}

func (x *session) tunnelShow(args []string) {
	t, ok := x.tunnel()
	switch {
	case !ok:
	case !x.own("T", args):
		x.sorry("No such tunnel: yours is %s", t.ID)
	default:
		x.list("201 Showing tunnel information for "+t.ID, t.Lines(), "202 Done")
	}
}

// tunnelSet refuses what the server does not need to be told, or what is not for users.
func (x *session) tunnelSet(args []string) {
	switch {
	case !x.own("T", args):
		x.sorry("No such tunnel: yours is T%s", number(x.account))
	case len(args) == 3 && strings.EqualFold(args[1], "endpoint"):
		x.sorry("The endpoint is where the last heartbeat or AYIYA packet of the client came from, and cannot be set")
	case len(args) == 3 && strings.EqualFold(args[1], "state"):
		x.sorry("The operator of this server enables and disables accounts")
	default:
		x.sorry("Say \"tunnel set <tunnel_id> endpoint <address>|current\" or \"tunnel set <tunnel_id> state enabled|disabled\"")
	}
}

// prefix returns the prefix that is routed to the user.
func (x *session) prefix() (p netip.Prefix, ok bool) {
	a, ok := x.current()
	if ok && x.server.config.Prefix != nil {
		p = x.server.config.Prefix(a.Name)
	}
	return p, ok
}

func (x *session) routeList([]string) {
	p, ok := x.prefix()
	if !ok {
		return
	}
	var lines []string
	if p.IsValid() {
		lines = append(lines, "R"+number(x.account)+" T"+number(x.account)+" "+p.String())
	}
	x.list("201 Listing routes", lines, "202 <route_id> <tunnel_id> <route_prefix>")
}

func (x *session) routeShow(args []string) {
	p, ok := x.prefix()
	switch {
	case !ok:
	case !p.IsValid() || !x.own("R", args):
		x.sorry("No such route")
	default:
		id := number(x.account)
		x.list("201 Showing route information for R"+id, []string{"RouteId: R" + id, "TunnelId: T" + id, "IPv6 Prefix: " + p.String()}, "202 Done")
	}
}

func (x *session) popList([]string) {
	x.list("201 Listing PoPs", []string{x.server.config.POP.ID}, "202 <pop_name>")
}

func (x *session) popShow(args []string) {
	p := x.server.config.POP
	if len(args) != 1 || !strings.EqualFold(args[0], p.ID) {
		x.sorry("No such PoP: this is %s", p.ID)
		return
	}
	if at := endpoint(x.raw.LocalAddr()).Addr(); !p.IPv4.IsValid() && at.Is4() {
		p.IPv4 = at
	}
	x.list("201 Showing PoP information for "+p.ID, p.Lines(), "202 Done")
}
