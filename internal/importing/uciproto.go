package importing

import (
	"cmp"
	"fmt"
	"sixfour/internal/importing/host"
	"slices"
	"strconv"
	"strings"
)

// protocol says how an interface of OpenWrt becomes a link: the kind, the options with the
// outer addresses, and what else there is to read.
type protocol struct {
	kind, mode    string
	local, remote string // options
	more          func(*reader, *host.Link, *uciSection)
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
func (r *reader) finishUCI() {
	if len(r.uci) == 0 {
		return
	}
	for _, s := range r.uci {
		s.resume()
		if p, ok := protocols[s.get("proto")]; ok && s.kind == "interface" && s.name != "" {
			r.uciTunnel(s, p)
		}
	}
	over := map[string]string{} // interfaces with addresses of others
	for _, s := range r.uci {
		if below, ok := strings.CutPrefix(cmp.Or(s.get("device"), s.get("ifname")), "@"); ok {
			over[s.name] = below
		}
	}
	for _, s := range r.uci {
		s.resume()
		_, tunnel := protocols[s.get("proto")]
		name := s.get("interface")
		if s.kind == "interface" {
			name = s.name
		}
		l := r.Find(cmp.Or(over[name], name))
		switch {
		case tunnel && s.kind == "interface" && s.name != "":
		case l != nil && s.kind == "interface" && s.get("proto") == "static":
			r.uciAddress(l, s)
		case l != nil && (s.kind == "route" || s.kind == "route6"):
			r.uciRoute(l, s)
		case s.get("proto") == "map" && s.get("type") == "map-e" && r.options.Set["prefix"] != "":
			r.uciMap(s)
		case s.get("proto") == "map" && s.get("type") == "map-e":
			r.skipUCI(s, "the prefix that the provider has delegated is not in this file: give it with --set prefix=PREFIX")
		case s.get("proto") == "map":
			r.skipUCI(s, "lw4o6 needs the binding of this customer: see docs/modes/lw4o6.md; there is no MAP-T")
		default:
			r.skipUCI(s, "it is no tunnel, or of none: keep it")
		}
	}
}

func (r *reader) skipUCI(s *uciSection, reason string) {
	r.Skip(s.line, reason)
	for _, o := range s.options {
		r.Skip(o.line, reason)
	}
}

// uciTunnel reads an interface that is a tunnel.
func (r *reader) uciTunnel(s *uciSection, p protocol) {
	if s.get("disabled") == "1" || s.get("auto") == "0" {
		r.Skip(s.line, "this interface is not started: the tunnel is taken over nevertheless")
	}
	l := r.Add(s.line, "link", "add", "name", s.name, "type", p.kind)
	if l == nil || !l.Supported() {
		return
	}
	if p.mode != "" {
		r.Set(l, s.line, "mode", p.mode)
	}
	for _, end := range []struct{ word, key string }{{"local", p.local}, {"remote", p.remote}} {
		if value := s.get(end.key); end.key != "" && value != "" {
			r.Set(l, s.line, end.word, value)
		}
	}
	for _, o := range s.options {
		r.uciOption(l, s, p, o)
	}
	if p.more != nil {
		p.more(r, l, s)
	}
}

func (r *reader) uciOption(l *host.Link, s *uciSection, p protocol, o option) {
	var args []string
	switch o.key {
	case "mtu":
		r.ReadIP([]string{"link", "set", l.Name, "mtu", o.value}, o.line)
	case "ttl":
		args = []string{"ttl", o.value}
	case "tos":
		args = []string{"tos", o.value}
	case "ikey", "okey", "key":
		args = []string{o.key, o.value}
	case "encaplimit":
		if o.value == "ignore" {
			return
		}
		args = []string{"encaplimit", o.value}
	case "df":
		if o.value == "0" {
			args = []string{"nopmtudisc"}
		}
	case "icsum", "ocsum", "iseqno", "oseqno":
		if o.value == "1" {
			args = []string{map[string]string{"icsum": "csum", "ocsum": "csum", "iseqno": "seq", "oseqno": "seq"}[o.key]}
		}
	case "fwmark":
		args = []string{"fwmark", o.value}
	case "tunlink":
		r.Skip(o.line, "outer packets go where the host's routing sends them; fwmark and a routing rule can choose an interface")
	case "ip6prefix", "ip6prefixlen", "ip4prefixlen", "ip6assign":
		if s.get("proto") != "6rd" {
			r.Skip(o.line, "addresses for networks behind this host are not given to them here: keep it, or configure them there")
		}
	case "tunnelid", "username", "password", "updatekey":
		r.Skip(o.line, "the account of a broker, for reports of a new address: see update_url in docs/moving.md; the key belongs into a file")
	case "metric":
		r.Skip(o.line, "routes have no metric here")
	default:
		if !slices.Contains(ignoredUCI, o.key) {
			r.Skip(o.line, "there is no such setting here")
		}
	}
	r.Set(l, o.line, args...)
}

func uci6in4(r *reader, l *host.Link, s *uciSection) {
	for _, o := range s.all("ip6addr") {
		r.ReadIP([]string{"addr", "add", o.value, "dev", l.Name}, o.line)
	}
	r.uciDefault(l, s, "::/0")
}

// uciDefault adds the default route, which interfaces have unless they are told otherwise.
func (r *reader) uciDefault(l *host.Link, s *uciSection, prefix string) {
	if s.get("defaultroute") != "0" {
		r.ReadIP([]string{"route", "add", prefix, "dev", l.Name}, s.line)
	}
}

func uci6to4(r *reader, l *host.Link, s *uciSection) {
	r.addressOfStanza(&stanza{name: l.Name, family: "inet6", method: "6to4", line: s.line, options: []option{{"local", l.Local, s.line}}}, map[string]bool{})
	l.SetRelay("192.88.99.1")
	r.uciDefault(l, s, "2000::/3")
}

func uci6rd(r *reader, l *host.Link, s *uciSection) {
	args := []string{"6rd-prefix", fmt.Sprintf("%s/%s", s.get("ip6prefix"), s.get("ip6prefixlen"))}
	if n := s.get("ip4prefixlen"); n != "" && n != "0" {
		args = append(args, "6rd-relay_prefix", s.get("peeraddr")+"/"+n)
	}
	r.Set(l, s.line, args...)
	l.SetRelay(s.get("peeraddr"))
	r.uciDefault(l, s, "::/0")
}

func uciDSLite(r *reader, l *host.Link, s *uciSection) {
	r.ReadIP([]string{"addr", "add", "192.0.0.2/29", "dev", l.Name}, s.line)
	r.uciDefault(l, s, "0.0.0.0/0")
}

// uciAddress reads a static interface on top of a tunnel.
func (r *reader) uciAddress(l *host.Link, s *uciSection) {
	for _, key := range []string{"ipaddr", "ip6addr"} {
		for _, o := range s.all(key) {
			address := o.value
			if mask := s.get("netmask"); mask != "" && key == "ipaddr" && !strings.Contains(address, "/") {
				address += "/" + prefixLength(mask)
			}
			r.ReadIP([]string{"addr", "add", address, "dev", l.Name}, o.line)
		}
	}
	for _, o := range s.options {
		switch o.key {
		case "gateway":
			r.ReadIP([]string{"-4", "route", "add", "default", "via", o.value, "dev", l.Name}, o.line)
		case "ip6gw":
			r.ReadIP([]string{"-6", "route", "add", "default", "via", o.value, "dev", l.Name}, o.line)
		case "proto", "device", "ifname", "ipaddr", "ip6addr", "netmask":
		default:
			r.Skip(o.line, "there is no such setting here")
		}
	}
}

func (r *reader) uciRoute(l *host.Link, s *uciSection) {
	target := s.get("target")
	if mask := s.get("netmask"); mask != "" && !strings.Contains(target, "/") {
		target += "/" + prefixLength(mask)
	}
	args := []string{"route", "add", target, "dev", l.Name}
	for _, o := range s.options {
		switch o.key {
		case "gateway":
			args = append(args, "via", o.value)
		case "metric", "table", "mtu":
			args = append(args, o.key, o.value)
		}
	}
	r.ReadIP(args, s.line)
}

// uciMap reads the rule of MAP-E.
func (r *reader) uciMap(s *uciSection) {
	l := r.AddSession(s.name, "map_e", s.line)
	l.SetKey("role", "ce")
	l.SetKey("prefix", r.options.Set["prefix"])
	l.SetKey("border_relay", s.get("peeraddr"))
	rule := fmt.Sprintf("ipv6 = %q, ipv4 = %q", s.get("ip6prefix")+"/"+s.get("ip6prefixlen"), s.get("ipaddr")+"/"+s.get("ip4prefixlen"))
	for _, k := range []struct{ option, key string }{{"ealen", "ea_bits"}, {"offset", "offset"}, {"psidlen", "psid_len"}, {"psid", "psid"}} {
		if n, err := strconv.Atoi(s.get(k.option)); err == nil && (k.key != "psid_len" || s.get("psid") != "") {
			rule += fmt.Sprintf(", %s = %d", k.key, n)
		}
	}
	l.SetKey("rules", host.TOML("[{ "+rule+" }]"))
	if s.get("legacymap") == "1" {
		l.SetKey("draft03", host.TOML("true"))
	}
}
