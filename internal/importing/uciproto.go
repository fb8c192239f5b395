package importing

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// protocol says how an interface of OpenWrt becomes a link: the kind, the options with the
// outer addresses, and what else there is to read.
type protocol struct {
	kind, mode    string
	local, remote string // options
	more          func(*host, *link, *uciSection)
}

// protocols are the protocols of OpenWrt that are tunnels.
var protocols = map[string]protocol{
	"6in4":   {"sit", "", "ipaddr", "peeraddr", uci6in4},
	"6to4":   {"sit", "", "ipaddr", "", uci6to4},
	"6rd":    {"sit", "", "ipaddr", "", uci6rd},
	"ipip":   {"ipip", "", "ipaddr", "peeraddr", nil},
	"gre":    {"gre", "", "ipaddr", "peeraddr", nil},
	"grev6":  {"ip6gre", "", "ip6addr", "peer6addr", nil},
	"dslite": {"ip6tnl", "ipip6", "ip6addr", "peeraddr", uciDSLite},
	"ipip6":  {"ip6tnl", "ipip6", "ip6addr", "peeraddr", nil},
	"gretap": {"gretap", "", "", "", nil}, "grev6tap": {"ip6gretap", "", "", "", nil},
	"vti": {"vti", "", "", "", nil}, "vtiv6": {"vti6", "", "", "", nil}, "vxlan": {"vxlan", "", "", "", nil}, "wireguard": {"wireguard", "", "", "", nil},
}

// ignoredUCI are options that have no meaning here, or are read elsewhere.
var ignoredUCI = []string{"proto", "auto", "disabled", "defaultroute", "ipaddr", "peeraddr", "ip6addr", "peer6addr", "zone", "force_link", "device", "ifname", "name", "peerdns", "delegate", "enabled"}

// finishUCI reads the sections of all files.
func (h *host) finishUCI() {
	if len(h.uci) == 0 {
		return
	}
	for _, s := range h.uci {
		h.file, h.lines = s.file, s.lines
		if p, ok := protocols[s.get("proto")]; ok && s.kind == "interface" && s.name != "" {
			h.uciTunnel(s, p)
		}
	}
	over := map[string]string{} // interfaces with addresses of others
	for _, s := range h.uci {
		if below, ok := strings.CutPrefix(cmp.Or(s.get("device"), s.get("ifname")), "@"); ok {
			over[s.name] = below
		}
	}
	for _, s := range h.uci {
		h.file, h.lines = s.file, s.lines
		_, tunnel := protocols[s.get("proto")]
		name := s.get("interface")
		if s.kind == "interface" {
			name = s.name
		}
		l := h.links[cmp.Or(over[name], name)]
		switch {
		case tunnel && s.kind == "interface" && s.name != "":
		case l != nil && s.kind == "interface" && s.get("proto") == "static":
			h.uciAddress(l, s)
		case l != nil && (s.kind == "route" || s.kind == "route6"):
			h.uciRoute(l, s)
		case s.get("proto") == "map":
			h.skipUCI(s, "for map_e and lw4o6 sixfour needs the provider's rules and the prefix that it has delegated: see docs/modes/map_e.md and docs/modes/lw4o6.md")
		default:
			h.skipUCI(s, "it is no tunnel, or of none: keep it")
		}
	}
}

func (h *host) skipUCI(s *uciSection, reason string) {
	h.skip(s.line, reason)
	for _, o := range s.options {
		h.skip(o.line, reason)
	}
}

// uciTunnel reads an interface that is a tunnel.
func (h *host) uciTunnel(s *uciSection, p protocol) {
	if s.get("disabled") == "1" || s.get("auto") == "0" {
		h.skip(s.line, "this interface is not started: the tunnel is taken over nevertheless")
	}
	l := h.addLink([]string{"link", "add", "name", s.name, "type", p.kind}, s.line)
	if l == nil || unsupported[l.kind] != "" {
		return
	}
	l.mode = p.mode
	c := &command{h: h, line: s.line}
	for _, end := range []struct{ word, key string }{{"local", p.local}, {"remote", p.remote}} {
		if value := s.get(end.key); end.key != "" && value != "" {
			c.args = []string{end.word, value}
			c.parameters(l)
		}
	}
	for _, o := range s.options {
		h.uciOption(l, s, p, o)
	}
	if p.more != nil {
		p.more(h, l, s)
	}
}

func (h *host) uciOption(l *link, s *uciSection, p protocol, o option) {
	c := &command{h: h, line: o.line}
	switch o.key {
	case "mtu":
		c.number(l, &l.keys, "mtu", o.value)
	case "ttl":
		c.args = []string{"ttl", o.value}
	case "tos":
		c.args = []string{"tos", o.value}
	case "ikey", "okey", "key":
		c.args = []string{o.key, o.value}
	case "encaplimit":
		if o.value == "ignore" {
			return
		}
		c.args = []string{"encaplimit", o.value}
	case "df":
		if o.value == "0" {
			c.args = []string{"nopmtudisc"}
		}
	case "icsum", "ocsum", "iseqno", "oseqno":
		if o.value == "1" {
			c.args = []string{map[string]string{"icsum": "csum", "ocsum": "csum", "iseqno": "seq", "oseqno": "seq"}[o.key]}
		}
	case "fwmark":
		c.args = []string{"fwmark", o.value}
	case "tunlink":
		h.skip(o.line, "outer packets go where the host's routing sends them; fwmark and a routing rule can choose an interface")
	case "ip6prefix", "ip6prefixlen", "ip4prefixlen", "ip6assign":
		if s.get("proto") != "6rd" {
			h.skip(o.line, "addresses for networks behind this host are not given to them here: keep it, or configure them there")
		}
	case "tunnelid", "username", "password", "updatekey":
		h.skip(o.line, "the account of a broker, for reports of a new address: see update_url in docs/moving.md; the key belongs into a file")
	case "metric":
		h.skip(o.line, "routes have no metric here")
	default:
		if !slices.Contains(ignoredUCI, o.key) {
			h.skip(o.line, "there is no such setting here")
		}
	}
	if len(c.args) > 0 {
		c.parameters(l)
	}
}

func uci6in4(h *host, l *link, s *uciSection) {
	for _, o := range s.all("ip6addr") {
		h.readIP([]string{"addr", "add", o.value, "dev", l.name}, o.line)
	}
	h.uciDefault(l, s, "::/0")
}

// uciDefault adds the default route, which interfaces have unless they are told otherwise.
func (h *host) uciDefault(l *link, s *uciSection, prefix string) {
	if s.get("defaultroute") != "0" {
		h.readIP([]string{"route", "add", prefix, "dev", l.name}, s.line)
	}
}

func uci6to4(h *host, l *link, s *uciSection) {
	h.addressOfStanza(&stanza{name: l.name, family: "inet6", method: "6to4", line: s.line, options: []option{{"local", l.local, s.line}}}, map[string]bool{})
	l.sixrd.relay = "192.88.99.1"
	h.uciDefault(l, s, "2000::/3")
}

func uci6rd(h *host, l *link, s *uciSection) {
	c := &command{h: h, line: s.line}
	c.args = []string{"6rd-prefix", fmt.Sprintf("%s/%s", s.get("ip6prefix"), s.get("ip6prefixlen"))}
	if n := s.get("ip4prefixlen"); n != "" && n != "0" {
		c.args = append(c.args, "6rd-relay_prefix", s.get("peeraddr")+"/"+n)
	}
	c.parameters(l)
	l.sixrd.relay = s.get("peeraddr")
	h.uciDefault(l, s, "::/0")
}

func uciDSLite(h *host, l *link, s *uciSection) {
	h.readIP([]string{"addr", "add", "192.0.0.2/29", "dev", l.name}, s.line)
	h.uciDefault(l, s, "0.0.0.0/0")
}

// uciAddress reads a static interface on top of a tunnel.
func (h *host) uciAddress(l *link, s *uciSection) {
	for _, key := range []string{"ipaddr", "ip6addr"} {
		for _, o := range s.all(key) {
			address := o.value
			if mask := s.get("netmask"); mask != "" && key == "ipaddr" && !strings.Contains(address, "/") {
				address += "/" + prefixLength(mask)
			}
			h.readIP([]string{"addr", "add", address, "dev", l.name}, o.line)
		}
	}
	for _, o := range s.options {
		switch o.key {
		case "gateway":
			h.readIP([]string{"-4", "route", "add", "default", "via", o.value, "dev", l.name}, o.line)
		case "ip6gw":
			h.readIP([]string{"-6", "route", "add", "default", "via", o.value, "dev", l.name}, o.line)
		case "proto", "device", "ifname", "ipaddr", "ip6addr", "netmask":
		default:
			h.skip(o.line, "there is no such setting here")
		}
	}
}

func (h *host) uciRoute(l *link, s *uciSection) {
	target := s.get("target")
	if mask := s.get("netmask"); mask != "" && !strings.Contains(target, "/") {
		target += "/" + prefixLength(mask)
	}
	args := []string{"route", "add", target, "dev", l.name}
	for _, o := range s.options {
		switch o.key {
		case "gateway":
			args = append(args, "via", o.value)
		case "metric", "table", "mtu":
			args = append(args, o.key, o.value)
		}
	}
	h.readIP(args, s.line)
}
