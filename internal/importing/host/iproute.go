package host

import (
	"fmt"
	"net/netip"
	"path"
	"strconv"
	"strings"
)

// command is a command of iproute2 that is being read.
type command struct {
	h     *Host
	line  int
	args  []string // that are left
	six   bool     // -6
	netns string
}

func (c *command) next() string {
	if len(c.args) == 0 {
		return ""
	}
	a := c.args[0]
	c.args = c.args[1:]
	return a
}

// part records that a part of the command is not in the result.
func (c *command) part(format string, args ...any) {
	c.h.Skip(c.line, fmt.Sprintf(format, args...))
}

// IsWord reports whether a word of a command is an abbreviation of another one, as
// iproute2 has it, with at least as many letters.
func IsWord(arg, word string, least int) bool {
	return len(arg) >= least && strings.HasPrefix(word, arg)
}

// ReadIP reads the arguments of the program ip.
func (h *Host) ReadIP(args []string, line int) {
	h.commands++
	c := &command{h: h, line: line, args: args}
	for len(c.args) > 0 && strings.HasPrefix(c.args[0], "-") {
		switch option := strings.TrimPrefix(c.next(), "-"); option {
		case "6":
			c.six = true
		case "f", "family", "-family":
			c.six = c.next() == "inet6"
		case "n", "netns", "-netns":
			c.netns = c.next()
		case "b", "batch", "-batch", "force":
			c.part("commands in a file are not read: give the file to this command, too")
			return
		}
	}
	switch object := c.next(); {
	case object == "":
	case IsWord(object, "link", 1):
		c.link()
	case IsWord(object, "tunnel", 1) || object == "tunl":
		c.tunnel()
	case IsWord(object, "address", 1):
		c.address()
	case IsWord(object, "route", 1):
		c.route()
	case object == "fou":
		c.fou()
	case IsWord(object, "netns", 3):
		c.inNetns()
	case IsWord(object, "rule", 2):
		c.part("rules of routing are the host's: keep them")
	default:
		c.part("it is about no tunnel")
	}
}

func (c *command) inNetns() {
	if c.next() != "exec" || len(c.args) < 2 {
		c.part("namespaces are made before sixfourd starts: keep it")
		return
	}
	name, program := c.next(), c.next()
	if path.Base(program) != "ip" {
		c.part("it is about no tunnel")
		return
	}
	c.h.ReadIP(append([]string{"-n", name}, c.args...), c.line)
}

// fou reads ip fou add port PORT ipproto PROTOCOL, or gue.
func (c *command) fou() {
	if verb := c.next(); verb != "add" {
		c.part("it changes no tunnel")
		return
	}
	p := udpPort{protocol: -1}
	for len(c.args) > 0 {
		switch arg := c.next(); arg {
		case "port":
			p.port, _ = strconv.Atoi(c.next())
		case "ipproto":
			p.protocol = protocolNumber(c.next())
		case "gue":
			p.protocol = 0
		case "-6":
		default:
			c.part("%s %s: this parameter is not taken over", arg, c.next())
		}
	}
	if p.port == 0 || p.protocol < 0 {
		c.part("it needs a port, and ipproto or gue")
		return
	}
	c.h.ports = append(c.h.ports, p)
}

func protocolNumber(s string) int {
	switch s {
	case "ipip", "ipencap", "ipv4":
		return 4
	case "ipv6", "ip6":
		return 41
	case "gre":
		return 47
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		return -1
	}
	return n
}

// existing returns a link that commands before this one have made.
func (c *command) existing(name string) *Link {
	l := c.h.links[name]
	switch {
	case name == "":
		c.part("it names no interface")
	case l == nil && (strings.HasPrefix(name, "sit") || strings.HasPrefix(name, "tunl") || strings.HasPrefix(name, "ip6tnl")) && strings.HasSuffix(name, "0"):
		c.part("the kernel's own interface of the module is not needed")
	case l == nil:
		c.part("%s is no tunnel of this input", name)
	}
	if l != nil && c.netns != "" {
		l.keys.set("netns", quote(c.netns))
	}
	return l
}

// addressArg reads an address with or without a prefix length.
func addressArg(s string) (netip.Prefix, bool) {
	if p, err := netip.ParsePrefix(s); err == nil {
		return p, true
	}
	a, err := netip.ParseAddr(s)
	if err != nil || a.Zone() != "" {
		return netip.Prefix{}, false
	}
	return netip.PrefixFrom(a, a.BitLen()), true
}

// address reads ip address add ADDRESS dev NAME.
func (c *command) address() {
	verb := c.next()
	switch {
	case verb == "" || IsWord(verb, "show", 1) || IsWord(verb, "list", 1):
		c.part("it only shows addresses")
		return
	case !IsWord(verb, "add", 1) && !IsWord(verb, "replace", 3) && !IsWord(verb, "change", 2):
		c.part("only addresses that are added are taken over")
		return
	}
	var name, text, peer string
	for len(c.args) > 0 {
		switch arg := c.next(); arg {
		case "dev":
			name = c.next()
		case "local":
			text = c.next()
		case "peer", "remote":
			peer = c.next()
		case "broadcast", "brd", "scope", "label", "valid_lft", "preferred_lft", "proto":
			c.next()
		case "nodad", "noprefixroute", "mngtmpaddr", "optimistic", "home", "autojoin":
		case "metric", "priority", "preference":
			c.part("metric %s: routes have no metric here", c.next())
		default:
			text = arg
		}
	}
	l := c.existing(name)
	if l == nil {
		return
	}
	p, ok := addressArg(text)
	if !ok {
		c.part("%q is not an address", text)
		return
	}
	l.address = append(l.address, p)
	if peer != "" {
		if other, ok := addressArg(peer); ok && !p.IsSingleIP() && p.Contains(other.Addr()) {
			return // the subnet has it
		} else if ok {
			l.address[len(l.address)-1] = netip.PrefixFrom(p.Addr(), p.Addr().BitLen())
			l.routes = append(l.routes, c.h.routeTo(other, c.line))
		} else {
			c.part("%q is not an address", peer)
		}
	}
}

// route reads ip route add PREFIX [via ADDRESS] dev NAME.
func (c *command) route() {
	verb := c.next()
	switch {
	case verb == "" || IsWord(verb, "show", 1) || IsWord(verb, "list", 1) || IsWord(verb, "get", 1):
		c.part("it only shows routes")
		return
	case !IsWord(verb, "add", 1) && !IsWord(verb, "replace", 1) && !IsWord(verb, "append", 2) && !IsWord(verb, "change", 1) && !IsWord(verb, "prepend", 1):
		c.part("only routes that are added are taken over")
		return
	}
	r := c.h.routeTo(netip.Prefix{}, c.line)
	var name, text string
	var parts []string
	for len(c.args) > 0 {
		switch arg := c.next(); arg {
		case "dev", "oif":
			name = c.next()
		case "via":
			via := c.next()
			if via == "inet" || via == "inet6" {
				via = c.next()
			}
			r.via, _ = netip.ParseAddr(via)
		case "to", "unicast":
		case "metric", "table", "src", "mtu", "advmss", "initcwnd", "pref", "tos", "priority", "preference":
			if value := c.next(); arg != "src" && !(arg == "table" && value == "main") {
				parts = append(parts, arg+" "+value)
			}
		case "scope", "proto", "protocol", "realm":
			c.next()
		case "onlink", "pervasive":
		case "blackhole", "unreachable", "prohibit", "throw", "local", "broadcast", "multicast", "nat", "nexthop":
			c.part("routes of the type %q are the host's: keep it", arg)
			return
		default:
			text = arg
		}
	}
	var ok bool
	if r.prefix, ok = c.destination(text, r.via); !ok {
		return
	}
	if name == "" {
		c.h.routes = append(c.h.routes, r)
		return
	}
	l := c.h.links[name]
	if l == nil {
		c.part(reasonOtherRoute)
		return
	}
	for _, p := range parts {
		c.part("%s: routes have no such attribute here; the route itself is taken over", p)
	}
	l.routes = append(l.routes, r)
}

// destination reads the destination of a route, which may be the word default.
func (c *command) destination(text string, via netip.Addr) (netip.Prefix, bool) {
	switch {
	case text == "default" && (c.six || via.Is6()):
		return default6, true
	case text == "default":
		return default4, true
	case text == "all" && c.six:
		return default6, true
	}
	p, ok := addressArg(text)
	if !ok {
		c.part("%q is not a prefix", text)
	}
	return p, ok
}
