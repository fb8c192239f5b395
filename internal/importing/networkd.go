package importing

import (
	"path"
	"regexp"
	"sixfour/internal/importing/host"
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
func (r *reader) readINI() (all []*section) {
	for i := 0; i < len(r.Lines()); i++ {
		line := i + 1
		text := strings.TrimSpace(r.Lines()[i])
		if text == "" || text[0] == '#' || text[0] == ';' {
			continue
		}
		for strings.HasSuffix(text, `\`) && i+1 < len(r.Lines()) {
			i++
			text = strings.TrimSuffix(text, `\`) + " " + strings.TrimSpace(r.Lines()[i])
		}
		if text[0] == '[' && strings.HasSuffix(text, "]") {
			all = append(all, &section{name: text[1 : len(text)-1], line: line})
			continue
		}
		key, value, ok := strings.Cut(text, "=")
		if !ok || len(all) == 0 {
			r.Skip(line, "it is neither a section nor KEY=VALUE")
			continue
		}
		last := all[len(all)-1]
		last.options = append(last.options, option{strings.TrimSpace(key), strings.Trim(strings.TrimSpace(value), `"`), line})
	}
	return all
}

// skipSections records that sections are not taken over.
func (r *reader) skipSections(all []*section, reason string) {
	for _, s := range all {
		r.Skip(s.line, reason)
		for _, o := range s.options {
			r.Skip(o.line, reason)
		}
	}
}

// readNetworkd reads a .netdev or .network file of systemd-networkd.
func readNetworkd(r *reader, f File) error {
	all := r.readINI()
	if slices.ContainsFunc(all, func(s *section) bool { return s.name == "NetDev" }) {
		r.readNetdev(all)
		return nil
	}
	r.afterwards(func() { r.readNetwork(all) })
	return nil
}

// parametersOfNetdev are the keys of [Tunnel] with the parameters of ip link.
var parametersOfNetdev = map[string]string{
	"local": "local", "remote": "remote", "ttl": "ttl", "tos": "tos", "key": "key", "inputkey": "ikey", "outputkey": "okey", "mode": "mode",
	"encapsulationlimit": "encaplimit", "ipv6flowlabel": "flowlabel", "foudestinationport": "encap-dport", "fousourceport": "encap-sport",
	"ipv6rapiddeploymentprefix": "6rd-prefix",
}

func (r *reader) readNetdev(all []*section) {
	var name, kind string
	line := 0
	for _, s := range all {
		if s.name == "NetDev" {
			name, kind, line = s.get("Name"), s.get("Kind"), s.line
		}
	}
	switch {
	case kind == "fou":
		r.readFOU(all)
		return
	case !host.IsTunnel(kind):
		r.skipSections(all, "an interface that is no tunnel: keep it")
		return
	}
	args := []string{"link", "add", "name", name, "type", kind}
	l := r.Add(line, args...)
	if l == nil {
		return
	}
	for _, s := range all {
		for _, o := range s.options {
			switch s.name {
			case "NetDev":
				r.netdevOption(l, o)
			case "Tunnel":
				r.tunnelOption(l, s, o)
			case "Match":
			default:
				r.Skip(o.line, "there is no such setting here")
			}
		}
	}
}

func (r *reader) netdevOption(l *host.Link, o option) {
	switch strings.ToLower(o.key) {
	case "name", "kind", "description":
	case "mtubytes":
		r.ReadIP([]string{"link", "set", l.Name, "mtu", o.value}, o.line)
	default:
		r.Skip(o.line, "there is no such setting here")
	}
}

func (r *reader) tunnelOption(l *host.Link, s *section, o option) {
	var args []string
	key, value := strings.ToLower(o.key), o.value
	yes := slices.Contains([]string{"yes", "true", "on", "1"}, strings.ToLower(value))
	switch {
	case key == "local" && slices.Contains([]string{"ipv4_ll", "ipv6_ll", "dhcp4", "dhcp6", "slaac"}, value):
		r.Skip(o.line, "the local address is the one that routing chooses")
		return
	case key == "ipv6flowlabel" && value != "inherit":
		if n, err := strconv.ParseUint(value, 0, 20); err == nil { // decimal here
			value = strconv.FormatUint(n, 16)
		}
		args = []string{"flowlabel", value}
	case key == "tos": // decimal here
		if n, err := strconv.ParseUint(value, 10, 8); err == nil {
			value = strconv.FormatUint(n, 16)
		}
		args = []string{"tos", value}
	case parametersOfNetdev[key] != "":
		args = []string{parametersOfNetdev[key], value}
	case key == "discoverpathmtu" && !yes:
		args = []string{"nopmtudisc"}
	case key == "ignoredontfragment" && yes:
		args = []string{"ignore-df"}
	case key == "serializetunneledpackets" && yes:
		args = []string{"seq"}
	case key == "isatap" && yes:
		args = []string{"mode", "isatap"}
	case key == "foooverudp" && yes:
		if s.get("Encapsulation") == "" {
			args = []string{"encap", "fou"}
		}
	case key == "encapsulation":
		args = []string{"encap", map[string]string{"FooOverUDP": "fou", "GenericUDPEncapsulation": "gue"}[value]}
	case slices.Contains([]string{"discoverpathmtu", "ignoredontfragment", "serializetunneledpackets", "isatap", "foooverudp", "independent", "assigntoloopback", "copydscp", "allowlocalremote"}, key):
	default:
		r.Skip(o.line, "there is no such setting here")
		return
	}
	r.Set(l, o.line, args...)
}

// readFOU reads a .netdev file of the kind fou, a port.
func (r *reader) readFOU(all []*section) {
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
		r.ReadIP(args, s.line)
	}
}

// readNetwork reads a .network file.
func (r *reader) readNetwork(all []*section) {
	matching := r.matching(all)
	if len(matching) == 0 {
		r.skipSections(all, "an interface that is no tunnel: keep it")
		return
	}
	for _, l := range matching {
		for _, s := range all {
			r.sectionOfNetwork(l, s)
		}
	}
}

func (r *reader) matching(all []*section) (links []*host.Link) {
	for _, s := range all {
		if s.name != "Match" {
			continue
		}
		for _, pattern := range strings.Fields(s.get("Name")) {
			for _, l := range r.Links() {
				if ok, err := path.Match(pattern, l.Name); ok && err == nil && !slices.Contains(links, l) {
					links = append(links, l)
				}
			}
		}
	}
	return links
}

func (r *reader) sectionOfNetwork(l *host.Link, s *section) {
	switch s.name {
	case "Match":
		return
	case "Route":
		r.routeOfNetwork(l, s)
		return
	}
	for _, o := range s.options {
		switch s.name + "." + o.key {
		case "Network.Address", "Address.Address":
			args := []string{"addr", "add", o.value, "dev", l.Name}
			if peer := s.get("Peer"); peer != "" {
				args = append(args, "peer", peer)
			}
			r.ReadIP(args, o.line)
		case "Network.Gateway":
			r.ReadIP([]string{"route", "add", "default", "via", o.value, "dev", l.Name}, o.line)
		case "Link.MTUBytes":
			r.ReadIP([]string{"link", "set", l.Name, "mtu", o.value}, o.line)
		case "Network.Description", "Address.Peer", "Network.DefaultRouteOnDevice":
			if strings.HasPrefix(o.key, "DefaultRoute") && o.value != "no" && o.value != "false" {
				r.ReadIP([]string{"route", "add", "default", "dev", l.Name}, o.line)
			}
		default:
			r.Skip(o.line, "there is no such setting here")
		}
	}
}

func (r *reader) routeOfNetwork(l *host.Link, s *section) {
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
			r.Skip(o.line, "there is no such setting here")
		}
	}
	r.ReadIP(append(args, "dev", l.Name), s.line)
}
