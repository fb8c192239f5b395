package importing

import (
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

var sectionOfNetworkd = regexp.MustCompile(`(?m)^[ \t]*\[(NetDev|Match)\][ \t\r]*$`)

func isNetworkd(data []byte) bool { return sectionOfNetworkd.Match(data) }

// section is a section of an INI file.
type section struct {
	name    string
	line    int
	options []option
}

func (s *section) get(key string) string {
	for _, o := range s.options {
		if strings.EqualFold(o.key, key) {
			return o.value
		}
	}
	return ""
}

// readINI reads sections as systemd writes them: the same key may be there several times,
// and "\" at the end continues a line.
func (h *host) readINI() (all []*section) {
	for i := 0; i < len(h.lines); i++ {
		line := i + 1
		text := strings.TrimSpace(h.lines[i])
		if text == "" || text[0] == '#' || text[0] == ';' {
			continue
		}
		for strings.HasSuffix(text, `\`) && i+1 < len(h.lines) {
			i++
			text = strings.TrimSuffix(text, `\`) + " " + strings.TrimSpace(h.lines[i])
		}
		if text[0] == '[' && strings.HasSuffix(text, "]") {
			all = append(all, &section{name: text[1 : len(text)-1], line: line})
			continue
		}
		key, value, ok := strings.Cut(text, "=")
		if !ok || len(all) == 0 {
			h.skip(line, "it is neither a section nor KEY=VALUE")
			continue
		}
		last := all[len(all)-1]
		last.options = append(last.options, option{strings.TrimSpace(key), strings.Trim(strings.TrimSpace(value), `"`), line})
	}
	return all
}

// skipSections records that sections are not taken over.
func (h *host) skipSections(all []*section, reason string) {
	for _, s := range all {
		h.skip(s.line, reason)
		for _, o := range s.options {
			h.skip(o.line, reason)
		}
	}
}

// readNetworkd reads a .netdev or .network file of systemd-networkd.
func readNetworkd(h *host, f File) error {
	all := h.readINI()
	if slices.ContainsFunc(all, func(s *section) bool { return s.name == "NetDev" }) {
		h.readNetdev(all)
		return nil
	}
	h.afterwards(func() { h.readNetwork(all) })
	return nil
}

// parametersOfNetdev are the keys of [Tunnel] with the parameters of ip link.
var parametersOfNetdev = map[string]string{
	"local": "local", "remote": "remote", "ttl": "ttl", "tos": "tos", "key": "key", "inputkey": "ikey", "outputkey": "okey", "mode": "mode",
	"encapsulationlimit": "encaplimit", "ipv6flowlabel": "flowlabel", "foudestinationport": "encap-dport", "fousourceport": "encap-sport",
	"ipv6rapiddeploymentprefix": "6rd-prefix",
}

func (h *host) readNetdev(all []*section) {
	var name, kind string
	line := 0
	for _, s := range all {
		if s.name == "NetDev" {
			name, kind, line = s.get("Name"), s.get("Kind"), s.line
		}
	}
	switch {
	case kind == "fou":
		h.readFOU(all)
		return
	case !kindOfTunnel(kind):
		h.skipSections(all, "an interface that is no tunnel: keep it")
		return
	}
	args := []string{"link", "add", "name", name, "type", kind}
	l := h.addLink(args, line)
	if l == nil {
		return
	}
	for _, s := range all {
		for _, o := range s.options {
			switch s.name {
			case "NetDev":
				h.netdevOption(l, o)
			case "Tunnel":
				h.tunnelOption(l, o)
			case "Match":
			default:
				h.skip(o.line, "there is no such setting here")
			}
		}
	}
}

// addLink reads a command that makes a link, and returns this.
func (h *host) addLink(args []string, line int) *link {
	before := len(h.order)
	h.readIP(args, line)
	if len(h.order) == before {
		return nil
	}
	return h.order[len(h.order)-1]
}

func (h *host) netdevOption(l *link, o option) {
	switch strings.ToLower(o.key) {
	case "name", "kind", "description":
	case "mtubytes":
		h.readIP([]string{"link", "set", l.name, "mtu", o.value}, o.line)
	default:
		h.skip(o.line, "there is no such setting here")
	}
}

func (h *host) tunnelOption(l *link, o option) {
	c := &command{h: h, line: o.line}
	key, value := strings.ToLower(o.key), o.value
	yes := slices.Contains([]string{"yes", "true", "on", "1"}, strings.ToLower(value))
	switch {
	case key == "local" && slices.Contains([]string{"ipv4_ll", "ipv6_ll", "dhcp4", "dhcp6", "slaac"}, value):
		h.skip(o.line, "the local address is the one that routing chooses")
		return
	case key == "ipv6flowlabel" && value != "inherit":
		c.number(l, &l.header, "flow_label", value)
		return
	case key == "tos": // decimal here
		if n, err := strconv.ParseUint(value, 10, 8); err == nil {
			value = strconv.FormatUint(n, 16)
		}
		c.args = []string{"tos", value}
	case parametersOfNetdev[key] != "":
		c.args = []string{parametersOfNetdev[key], value}
	case key == "discoverpathmtu" && !yes:
		c.args = []string{"nopmtudisc"}
	case key == "ignoredontfragment" && yes:
		c.args = []string{"ignore-df"}
	case key == "serializetunneledpackets" && yes:
		c.args = []string{"seq"}
	case key == "isatap" && yes:
		c.args = []string{"mode", "isatap"}
	case key == "foooverudp" && yes:
		if l.udp.get("encap") == "" {
			c.args = []string{"encap", "fou"}
		}
	case key == "encapsulation":
		c.args = []string{"encap", map[string]string{"FooOverUDP": "fou", "GenericUDPEncapsulation": "gue"}[value]}
	case slices.Contains([]string{"discoverpathmtu", "ignoredontfragment", "serializetunneledpackets", "isatap", "foooverudp", "independent", "assigntoloopback", "copydscp", "allowlocalremote"}, key):
	default:
		h.skip(o.line, "there is no such setting here")
		return
	}
	c.parameters(l)
}

// readFOU reads a .netdev file of the kind fou, a port.
func (h *host) readFOU(all []*section) {
	for _, s := range all {
		if s.name != "FooOverUDP" {
			continue
		}
		args := []string{"fou", "add", "port", s.get("Port")}
		if s.get("Encapsulation") == "GenericUDPEncapsulation" {
			args = append(args, "gue")
		} else {
			args = append(args, "ipproto", s.get("Protocol"))
		}
		h.readIP(args, s.line)
	}
}

// readNetwork reads a .network file.
func (h *host) readNetwork(all []*section) {
	matching := h.matching(all)
	if len(matching) == 0 {
		h.skipSections(all, "an interface that is no tunnel: keep it")
		return
	}
	for _, l := range matching {
		for _, s := range all {
			h.sectionOfNetwork(l, s)
		}
	}
}

func (h *host) matching(all []*section) (links []*link) {
	for _, s := range all {
		if s.name != "Match" {
			continue
		}
		for _, pattern := range strings.Fields(s.get("Name")) {
			for _, l := range h.order {
				if ok, err := path.Match(pattern, l.name); ok && err == nil && !slices.Contains(links, l) {
					links = append(links, l)
				}
			}
		}
	}
	return links
}

func (h *host) sectionOfNetwork(l *link, s *section) {
	switch s.name {
	case "Match":
		return
	case "Route":
		h.routeOfNetwork(l, s)
		return
	}
	for _, o := range s.options {
		switch s.name + "." + o.key {
		case "Network.Address", "Address.Address":
			args := []string{"addr", "add", o.value, "dev", l.name}
			if peer := s.get("Peer"); peer != "" {
				args = append(args, "peer", peer)
			}
			h.readIP(args, o.line)
		case "Network.Gateway":
			h.readIP([]string{"route", "add", "default", "via", o.value, "dev", l.name}, o.line)
		case "Link.MTUBytes":
			h.readIP([]string{"link", "set", l.name, "mtu", o.value}, o.line)
		case "Network.Description", "Address.Peer", "Network.DefaultRouteOnDevice":
			if strings.HasPrefix(o.key, "DefaultRoute") && o.value != "no" && o.value != "false" {
				h.readIP([]string{"route", "add", "default", "dev", l.name}, o.line)
			}
		default:
			h.skip(o.line, "there is no such setting here")
		}
	}
}

func (h *host) routeOfNetwork(l *link, s *section) {
	destination, six := s.get("Destination"), strings.Contains(s.get("Gateway"), ":")
	if destination == "" {
		destination = "default"
	}
	args := []string{"route", "add", destination}
	if six {
		args = append([]string{"-6"}, args...)
	}
	for _, o := range s.options {
		switch o.key {
		case "Destination", "Scope", "GatewayOnLink":
		case "Gateway":
			args = append(args, "via", o.value)
		case "Metric", "Table", "MTUBytes":
			args = append(args, strings.TrimSuffix(strings.ToLower(o.key), "bytes"), o.value)
		default:
			h.skip(o.line, "there is no such setting here")
		}
	}
	h.readIP(append(args, "dev", l.name), s.line)
}
