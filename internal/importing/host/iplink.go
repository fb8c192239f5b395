package host

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// link reads ip link.
func (c *command) link() {
	switch verb := c.next(); {
	case IsWord(verb, "add", 1):
		c.linkAdd()
	case verb == "change" || verb == "replace":
		c.linkAdd()
	case IsWord(verb, "set", 3):
		c.linkSet()
	case IsWord(verb, "delete", 1):
		c.delete()
	case verb == "" || IsWord(verb, "show", 2) || IsWord(verb, "list", 1):
		c.part("it only shows interfaces")
	default:
		c.part("it is about no tunnel")
	}
}

// delete reads the rest of ip link delete or ip tunnel delete.
func (c *command) delete() {
	for len(c.args) > 0 {
		switch arg := c.next(); arg {
		case "dev", "name":
		case "type", "mode":
			c.next()
		default:
			c.h.remove(arg) // most scripts delete a tunnel before they make it
			return
		}
	}
}

// linkAdd reads ip link add [name] NAME [mtu N] type KIND ….
func (c *command) linkAdd() {
	var name, kind, mtu string
	for len(c.args) > 0 && kind == "" {
		switch arg := c.next(); arg {
		case "name", "dev":
			name = c.next()
		case "type":
			kind = c.next()
		case "mtu":
			mtu = c.next()
		case "link", "txqueuelen", "address", "index", "numtxqueues", "numrxqueues", "up":
			if arg != "up" {
				c.next()
			}
		default:
			name = arg
		}
	}
	if kind == "ipip6" || kind == "ip4ip6" || kind == "ip6ip6" {
		c.args = append([]string{"mode", kind}, c.args...)
		kind = "ip6tnl"
	}
	if !IsTunnel(kind) {
		c.part("it is not a tunnel")
		return
	}
	l := c.make(name, kind)
	if l == nil {
		return
	}
	if mtu != "" {
		c.number(l, &l.keys, "mtu", mtu)
	}
	c.parameters(l)
}

// IsTunnel reports whether a kind of links is one of tunnels.
func IsTunnel(kind string) bool {
	switch kind {
	case "sit", "ipip", "ip6tnl", "gre", "ip6gre":
		return true
	}
	return unsupported[kind] != ""
}

func (c *command) make(name, kind string) *Link {
	if name == "" {
		c.part("it names no interface")
		return nil
	}
	l := c.h.add(name, kind, c.line)
	if c.netns != "" {
		l.keys.set("netns", quote(c.netns))
	}
	return l
}

// linkSet reads ip link set NAME up mtu N.
func (c *command) linkSet() {
	var name, mtu, netns string
	for len(c.args) > 0 {
		switch arg := c.next(); arg {
		case "dev":
			name = c.next()
		case "mtu":
			mtu = c.next()
		case "netns":
			netns = c.next()
		case "up", "down", "arp", "on", "off":
		case "multicast", "txqueuelen", "qlen", "txqlen", "address", "alias", "addrgenmode":
			c.next()
		case "master", "name", "vrf", "group":
			c.part("%s %s: this is not taken over", arg, c.next())
		default:
			name = arg
		}
	}
	l := c.existing(name)
	if l == nil {
		return
	}
	if mtu != "" {
		c.number(l, &l.keys, "mtu", mtu)
	}
	if netns != "" {
		l.keys.set("netns", quote(netns))
	}
}

// tunnel reads ip tunnel.
func (c *command) tunnel() {
	switch verb := c.next(); {
	case IsWord(verb, "add", 1) || IsWord(verb, "change", 1):
		c.tunnelAdd()
	case IsWord(verb, "delete", 1):
		c.delete()
	case verb == "6rd":
		c.sixrd()
	case verb == "prl":
		c.prl()
	default:
		c.part("it only shows tunnels")
	}
}

// Kinds are the kinds of links with the modes of ip tunnel, and of the option -6.
var Kinds = map[string]string{
	"sit": "sit", "ipv6/ip": "sit", "ip6ip": "sit", "isatap": "sit", "ipip": "ipip", "ipip/ip": "ipip", "ip/ip": "ipip", "gre": "gre", "gre/ip": "gre", "vti": "vti",
	"ip6ip6": "ip6tnl", "ipv6/ipv6": "ip6tnl", "ipip6": "ip6tnl", "ip4ip6": "ip6tnl", "ipv4/ipv6": "ip6tnl", "ip/ipv6": "ip6tnl", "any/ipv6": "ip6tnl",
	"ip6gre": "ip6gre", "gre/ipv6": "ip6gre", "vti6": "vti6",
}

func (c *command) tunnelAdd() {
	name, mode := "", ""
	var rest []string
	for len(c.args) > 0 {
		switch arg := c.next(); arg {
		case "mode":
			mode = c.next()
		case "name":
			name = c.next()
		default:
			switch {
			case name == "" && len(rest) == 0 && !tunnelWord[arg]:
				name = arg
			default:
				rest = append(rest, arg)
			}
		}
	}
	// The name may also stand after parameters: its place is known by what is no parameter.
	kind, ok := Kinds[mode]
	switch {
	case mode == "any" && c.six:
		kind, ok = "ip6tnl", true
	case mode == "gre" && c.six:
		kind, ok = "ip6gre", true
	case mode == "" && c.h.links[name] != nil:
		c.args = rest
		c.parameters(c.h.links[name])
		return
	case mode == "" && c.six:
		kind, mode, ok = "ip6tnl", "ip6ip6", true
	}
	if !ok {
		c.part("%q is not a mode of ip tunnel", mode)
		return
	}
	if name == "" {
		name, rest = strayName(rest)
	}
	l := c.make(name, kind)
	if l == nil {
		return
	}
	l.mode = map[string]string{"isatap": "isatap", "ip6ip6": "ip6ip6", "ipv6/ipv6": "ip6ip6", "ipip6": "ipip6", "ip4ip6": "ipip6", "ipv4/ipv6": "ipip6", "ip/ipv6": "ipip6"}[mode]
	c.args = rest
	c.parameters(l)
}

// tunnelWord are the words of ip tunnel add that are followed by a value, or none.
var tunnelWord = map[string]bool{
	"local": true, "remote": true, "ttl": true, "hoplimit": true, "tos": true, "tclass": true, "dsfield": true, "key": true, "ikey": true, "okey": true,
	"dev": true, "encaplimit": true, "flowlabel": true, "fwmark": true, "seq": false, "csum": false,
}

// strayName removes the name from parameters among which it stands.
func strayName(args []string) (string, []string) {
	for i := 0; i < len(args); i++ {
		value, known := tunnelWord[args[i]]
		switch {
		case known && value:
			i++
		case !known && !flags[args[i]]:
			return args[i], append(args[:i:i], args[i+1:]...)
		}
	}
	return "", args
}

// flags are parameters without a value that are not taken over, because they are the
// normal case here.
var flags = map[string]bool{
	"pmtudisc": true, "nopmtudisc": true, "seq": true, "iseq": true, "oseq": true, "csum": true, "icsum": true, "ocsum": true, "noseq": true, "nocsum": true, "noicsum": true, "noocsum": true,
	"noiseq": true, "nooseq": true, "ignore-df": true, "noignore-df": true, "nokey": true, "external": true, "noexternal": true, "nodad": true,
	"encap-csum": true, "noencap-csum": true, "encap-udp6-csum": true, "noencap-udp6-csum": true, "encap-remcsum": true, "noencap-remcsum": true,
	"allow-localremote": true, "noallow-localremote": true, "up": true,
}

// parameters reads the parameters of a tunnel.
func (c *command) parameters(l *Link) {
	any := func(s string) string {
		if s == "any" || s == "default" || s == "0.0.0.0" || s == "::" || s == "0" {
			return ""
		}
		return s
	}
	for len(c.args) > 0 {
		arg := c.next()
		if flags[arg] {
			c.flag(l, arg)
			continue
		}
		value := c.next()
		switch arg {
		case "local":
			l.Local = any(value)
		case "remote":
			l.remote = any(value)
		case "mode":
			l.mode = value
		case "ttl", "hoplimit", "hlim":
			if value == "inherit" || value == "0" {
				l.header.set("hops", `"inherit"`)
			} else {
				c.number(l, &l.header, "hops", value)
			}
		case "tos", "tclass", "dsfield", "tc":
			c.tos(l, value)
		case "encaplimit":
			if value == "none" {
				l.header.set("encap_limit", `"none"`)
			} else {
				c.number(l, &l.header, "encap_limit", value)
			}
		case "flowlabel", "flow":
			c.flowLabel(l, value)
		case "key", "ikey", "okey":
			if _, err := strconv.ParseUint(value, 0, 32); err != nil {
				value = quote(value)
			}
			l.gre.set(arg, value)
		case "fwmark":
			c.number(l, &l.keys, "fwmark", value)
		case "dev":
			c.part("dev %s: outer packets go where the host's routing sends them; fwmark and a routing rule can choose an interface", value)
		case "encap":
			if value == "fou" || value == "gue" {
				l.udp.set("encap", quote(value))
			} else if value != "none" {
				c.part("encap %s: there is no such encapsulation", value)
			}
		case "encap-sport":
			l.udp.set("sport", value)
		case "encap-dport":
			l.udp.set("dport", value)
		case "6rd-prefix", "6rd-relay_prefix", "6rd-relayprefix":
			c.sixrdParameter(l, arg, value)
		default:
			c.part("%s: this parameter is not taken over", strings.TrimSpace(arg+" "+value))
		}
	}
}

func (c *command) flag(l *Link, arg string) {
	switch arg {
	case "nopmtudisc":
		l.keys.set("pmtu", `"static"`)
	case "ignore-df":
		l.keys.set("ignore_df", "true")
	case "csum", "icsum", "ocsum":
		l.gre.set("checksum", "true")
		if arg != "csum" {
			c.part("%s: checksum is for both directions here", arg)
		}
	case "seq", "iseq", "oseq":
		l.gre.set("sequence", "true")
		if arg != "seq" {
			c.part("%s: sequence is for both directions here", arg)
		}
	case "noencap-csum", "noencap-udp6-csum":
		l.udp.set("csum", "false")
	case "encap-csum", "encap-udp6-csum":
		l.udp.set("csum", "true")
	case "external":
		c.part("external: tunnels whose packets another program directs are not possible here")
	}
}

// number sets a key to a number, which may be hexadecimal.
func (c *command) number(l *Link, s *settings, key, value string) {
	n, err := strconv.ParseUint(value, 0, 32)
	if err != nil {
		c.part("%q is not a number", value)
		return
	}
	s.set(key, strconv.FormatUint(n, 10))
}

// tos reads the TOS field, in hexadecimal without a prefix.
func (c *command) tos(l *Link, value string) {
	if value == "inherit" || strings.HasPrefix(value, "inherit/") {
		l.header.set("dscp", `"inherit"`)
		return
	}
	n, err := strconv.ParseUint(strings.TrimPrefix(value, "0x"), 16, 8)
	switch {
	case err != nil:
		c.part("%q is not a TOS field", value)
	case n&1 != 0:
		l.header.set("dscp", `"inherit"`)
	default:
		l.header.set("dscp", strconv.FormatUint(n>>2, 10))
	}
}

func (c *command) flowLabel(l *Link, value string) {
	n, err := strconv.ParseUint(strings.TrimPrefix(value, "0x"), 16, 20)
	switch {
	case value == "inherit":
		l.header.set("flow_label", `"inner"`)
	case err != nil:
		c.part("%q is not a flow label", value)
	case n != 0:
		l.header.set("flow_label", strconv.FormatUint(n, 10))
	}
}

// sixrd reads ip tunnel 6rd dev NAME 6rd-prefix PREFIX.
func (c *command) sixrd() {
	var l *Link
	for len(c.args) > 0 {
		switch arg, value := c.next(), c.next(); {
		case arg == "dev":
			if l = c.existing(value); l == nil {
				return
			}
		case l == nil:
			c.part("it names no interface before %s", arg)
			return
		default:
			c.sixrdParameter(l, arg, value)
		}
	}
}

func (c *command) sixrdParameter(l *Link, arg, value string) {
	p, err := netip.ParsePrefix(value)
	switch {
	case err != nil:
		c.part("%s %q: this is not a prefix", arg, value)
	case arg == "6rd-prefix":
		l.sixrd.prefix = p.Masked()
	case arg == "6rd-relay_prefix" || arg == "6rd-relayprefix":
		l.sixrd.common = p.Masked()
	default:
		c.part("%s: this parameter is not taken over", arg)
	}
}

// prl reads ip tunnel prl prl-default ROUTER dev NAME, the routers of ISATAP.
func (c *command) prl() {
	var routers []string
	name := ""
	for len(c.args) > 0 {
		switch arg, value := c.next(), c.next(); arg {
		case "dev":
			name = value
		case "prl-default", "prl-nodefault":
			routers = append(routers, value)
		default:
			c.part("%s", fmt.Sprintf("%s: this parameter is not taken over", arg))
		}
	}
	if l := c.existing(name); l != nil {
		l.routers = append(l.routers, routers...)
	}
}
