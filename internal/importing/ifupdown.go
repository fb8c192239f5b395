package importing

import (
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

var stanzaOfIface = regexp.MustCompile(`(?m)^[ \t]*iface[ \t]+\S+[ \t]+inet6?[ \t]`)

func isIfupdown(data []byte) bool { return stanzaOfIface.Match(data) }

// option is a line of a stanza or section: a key and its value.
type option struct {
	key, value string
	line       int
}

// stanza is what follows "iface NAME FAMILY METHOD".
type stanza struct {
	name, family, method string
	line                 int
	options              []option
}

func (s *stanza) get(keys ...string) string {
	for _, o := range s.options {
		if slices.Contains(keys, o.key) {
			return o.value
		}
	}
	return ""
}

// stanzaWords begin something else than an option.
var stanzaWords = []string{"auto", "allow-hotplug", "allow-auto", "mapping", "source", "source-directory", "no-auto-down", "no-scripts", "rename", "template"}

// readIfupdown reads /etc/network/interfaces.
func readIfupdown(r *reader, f File) error {
	var all []*stanza
	var now *stanza
	for i := 0; i < len(r.Lines()); i++ {
		line := i + 1
		text := strings.TrimSpace(r.Lines()[i])
		for strings.HasSuffix(text, `\`) && i+1 < len(r.Lines()) {
			i++
			text = strings.TrimSuffix(text, `\`) + " " + strings.TrimSpace(r.Lines()[i])
		}
		fields := strings.Fields(text)
		switch {
		case len(fields) == 0 || fields[0][0] == '#':
		case fields[0] == "iface" && len(fields) >= 4:
			now = &stanza{name: fields[1], family: fields[2], method: fields[3], line: line}
			all = append(all, now)
		case fields[0] == "iface":
			now = nil
			r.Skip(line, "a stanza has the form iface NAME inet|inet6 METHOD")
		case fields[0] == "source" || fields[0] == "source-directory":
			now = nil
			r.Skip(line, "other files are not read: give them to this command, too")
		case slices.Contains(stanzaWords, fields[0]):
			if fields[0] == "mapping" {
				r.Skip(line, reasonOther)
			}
			now = nil
		case now != nil:
			key, value, _ := strings.Cut(text, " ")
			if k, v, ok := strings.Cut(text, "\t"); ok && len(k) < len(key) {
				key, value = k, v
			}
			now.options = append(now.options, option{strings.ReplaceAll(key, "_", "-"), strings.TrimSpace(value), line})
		default:
			r.Skip(line, reasonOther)
		}
	}
	for _, s := range all {
		r.readStanza(s)
	}
	return nil
}

// methods are the methods that make a tunnel, with the mode of ip tunnel.
var methods = map[string]string{"v4tunnel": "sit", "6to4": "sit", "tunnel": ""}

// tunnelOptions are options of tunnels with the parameter of ip tunnel.
var tunnelOptions = map[string]string{"endpoint": "remote", "dstaddr": "remote", "remote": "remote", "local": "local", "ttl": "ttl", "tos": "tos", "key": "key", "ikey": "ikey", "okey": "okey"}

func (r *reader) readStanza(s *stanza) {
	variables := map[string]string{"IFACE": s.name, "METHOD": s.method, "MODE": "start", "LOGICAL": s.name}
	used := map[string]bool{}
	run := func(keys ...string) {
		for _, o := range s.options {
			if slices.Contains(keys, o.key) {
				r.readCommands(o.value, o.line, variables)
				used[o.key] = true
			}
		}
	}
	run("pre-up")
	mode, makes := methods[s.method]
	if makes {
		if mode == "" {
			mode = s.get("mode")
			used["mode"] = true
		}
		args := []string{"tunnel", "add", s.name, "mode", strings.ToLower(mode)}
		if s.family == "inet6" && s.method == "tunnel" {
			args = append([]string{"-6"}, args...)
		}
		for _, o := range s.options {
			if word, ok := tunnelOptions[o.key]; ok && (o.key != "dstaddr" || s.get("endpoint") == "") {
				args = append(args, word, o.value)
				used[o.key] = true
			}
		}
		r.ReadIP(args, s.line)
	}
	if r.Find(s.name) == nil {
		r.Skip(s.line, "an interface that is no tunnel: keep it")
		for _, o := range s.options {
			if !used[o.key] {
				r.Skip(o.line, "an interface that is no tunnel: keep it")
			}
		}
		return
	}
	r.addressOfStanza(s, used)
	run("up", "post-up")
	for _, o := range s.options {
		switch {
		case used[o.key] || o.key == "down" || o.key == "pre-down" || o.key == "post-down":
		default:
			r.Skip(o.line, "there is no such setting here")
		}
	}
}

// addressOfStanza reads the addresses, the gateway and the MTU.
func (r *reader) addressOfStanza(s *stanza, used map[string]bool) {
	family := "-4"
	if s.family == "inet6" {
		family = "-6"
	}
	if s.method == "6to4" && s.get("address") == "" {
		if a, err := netip.ParseAddr(s.get("local")); err == nil && a.Is4() {
			b := a.As4()
			six := netip.AddrFrom16([16]byte{0x20, 0x02, b[0], b[1], b[2], b[3], 15: 1})
			r.ReadIP([]string{family, "addr", "add", six.String() + "/16", "dev", s.name}, s.line)
		} else {
			r.Skip(s.line, "6to4 needs the address local here")
		}
	}
	for _, o := range s.options {
		var args []string
		switch o.key {
		case "address":
			address := o.value
			if mask := s.get("netmask"); mask != "" && !strings.Contains(address, "/") {
				address += "/" + prefixLength(mask)
			}
			args = []string{family, "addr", "add", address, "dev", s.name}
			if peer := s.get("pointopoint", "dstaddr"); peer != "" && (s.get("endpoint") != "" || s.get("pointopoint") != "") {
				args = append(args, "peer", peer)
			}
		case "gateway":
			args = []string{family, "route", "add", "default", "via", o.value, "dev", s.name}
		case "mtu":
			args = []string{"link", "set", s.name, "mtu", o.value}
		case "netmask", "pointopoint", "dstaddr", "broadcast", "network", "dad-attempts", "accept-ra", "autoconf", "scope", "preferred-lifetime", "hwaddress":
		default:
			continue
		}
		used[o.key] = true
		if args != nil {
			r.ReadIP(args, o.line)
		}
	}
}

// prefixLength returns the length of a netmask, such as 255.255.255.0 or 24.
func prefixLength(mask string) string {
	a, err := netip.ParseAddr(mask)
	if err != nil || !a.Is4() {
		return mask
	}
	length := 0
	for _, b := range a.As4() {
		for ; b&0x80 != 0; b <<= 1 {
			length++
		}
	}
	return strconv.Itoa(length)
}
