package importing

import (
	"regexp"
	"slices"
	"strconv"
	"strings"

	"sixfour/internal/importing/host"
)

// Lines by which the configurations of clients are known.
var (
	lineOfAICCU  = regexp.MustCompile(`(?m)^[ \t]*(tunnel_id|ipv6_interface|daemonize|requiretls)[ \t=]|^[ \t]*protocol[ \t=]+(tic|tsp|l2tp)\b`)
	lineOfGogoc  = regexp.MustCompile(`(?m)^[ \t]*(auth_method|tunnel_mode|if_tunnel_v6v4|if_tunnel_v6udpv4)[ \t]*=`)
	lineOfMiredo = regexp.MustCompile(`(?m)^[ \t]*(RelayType|ServerAddress2?|ServerBindAddress2?|InterfaceName)[ \t=]`)
)

func isAICCU(data []byte) bool  { return lineOfAICCU.Match(data) }
func isGogoc(data []byte) bool  { return lineOfGogoc.Match(data) }
func isMiredo(data []byte) bool { return lineOfMiredo.Match(data) }

// Reasons for options of clients.
const (
	reasonProcess = "it is about the process of the other program"
	reasonPreset  = "sixfourd does this by itself"
)

// keysAndValues reads lines with a key and a value, with "=" or white space between them.
func (r *reader) keysAndValues() *section {
	all := &section{line: 1}
	for i, text := range r.Lines() {
		text, _, _ = strings.Cut(text, "#")
		text = strings.TrimSpace(text)
		if text == "" || text[0] == ';' || text[0] == '[' {
			continue
		}
		end := strings.IndexAny(text, " \t=")
		if end < 0 {
			r.Skip(i+1, "it has no value")
			continue
		}
		value := strings.TrimLeft(text[end:], " \t=")
		all.options = append(all.options, option{text[:end], strings.Trim(value, `"`), i + 1})
	}
	if len(all.options) > 0 {
		all.line = all.options[0].line
	}
	return all
}

// text sets a key of a link to the value of an option, if there is one.
func text(l *host.Link, key, value string) {
	if value != "" {
		l.SetKey(key, value)
	}
}

// directory is where files with secrets belong.
const directory = "/etc/sixfour/"

// secret puts a password into a file.
func (r *reader) secret(l *host.Link, key string, o option) {
	path := directory + strings.Map(func(c rune) rune {
		if c == '/' {
			return '_'
		}
		return c
	}, l.Name) + ".password"
	l.SetKey(key, path)
	r.AddSecret(host.Secret{Path: path, Value: o.value})
	r.Skip(o.line, "the password belongs into the file "+path+", mode 0600, which --apply writes")
}

func yes(s string) bool {
	return slices.Contains([]string{"true", "yes", "on", "1"}, strings.ToLower(s))
}

// option returns the option of a key.
func (s *section) option(key string) (option, bool) {
	for _, o := range s.options {
		if strings.EqualFold(o.key, key) {
			return o, true
		}
	}
	return option{}, false
}

// readAICCU reads aiccu.conf.
func readAICCU(r *reader, f File) error {
	s := r.keysAndValues()
	if p := s.get("protocol"); p != "" && p != "tic" {
		r.Skip(s.line, "the protocol "+p+" is not read: of AICCU's it is tic")
		return nil
	}
	name := s.get("ipv6_interface")
	if name == "" {
		name = "sixxs"
	}
	l := r.AddSession(name, "tic", s.line)
	text(l, "server", s.get("server"))
	text(l, "user", s.get("username"))
	if o, ok := s.option("password"); ok {
		r.secret(l, "password_file", o)
	}
	text(l, "tunnel_id", s.get("tunnel_id"))
	if yes(s.get("requiretls")) {
		l.SetKey("starttls", "require")
	}
	for _, o := range s.options {
		switch strings.ToLower(o.key) {
		case "server", "username", "password", "tunnel_id", "requiretls", "ipv6_interface", "protocol":
		case "defaultroute":
			if !yes(o.value) {
				l.SetKey("routes", []string{})
			}
		case "local_ipv4_override":
			text(l, "local", o.value)
		case "daemonize", "verbose", "pidfile", "automatic", "noconfigure", "setupscript":
			r.Skip(o.line, reasonProcess)
		case "makebeats", "behindnat":
			r.Skip(o.line, reasonPreset)
		default:
			r.Skip(o.line, "there is no such setting here")
		}
	}
	return nil
}

// authOfGogoc and wantOfGogoc are values of gogoc.conf with those of the keys here.
var (
	authOfGogoc = map[string]string{"any": "auto", "anonymous": "anonymous", "plain": "plain", "digest-md5": "digest-md5"}
	wantOfGogoc = map[string]string{"v6anyv4": "any", "v6v4": "v6v4", "v6udpv4": "v6udpv4"}
)

// readGogoc reads gogoc.conf, or tspc.conf of its predecessor.
func readGogoc(r *reader, f File) error {
	s := r.keysAndValues()
	mode := s.get("tunnel_mode")
	name := s.get("if_tunnel_v6udpv4")
	if mode == "v6v4" || name == "" {
		name = s.get("if_tunnel_v6v4")
	}
	if name == "" {
		name = "tun"
	}
	l := r.AddSession(name, "tsp", s.line)
	text(l, "server", s.get("server"))
	if s.get("auth_method") != "anonymous" && s.get("userid") != "" {
		text(l, "user", s.get("userid"))
		if o, ok := s.option("passwd"); ok && o.value != "" {
			r.secret(l, "password_file", o)
		}
	}
	router := s.get("host_type") == "router"
	for _, o := range s.options {
		switch key := strings.ToLower(o.key); key {
		case "server", "userid", "passwd", "host_type", "if_tunnel_v6v4", "if_tunnel_v6udpv4":
		case "auth_method":
			if auth, ok := authOfGogoc[o.value]; !ok {
				r.Skip(o.line, "there is no such method here: the client and the server choose one")
			} else if auth != "auto" {
				l.SetKey("auth", auth)
			}
		case "tunnel_mode":
			if want, ok := wantOfGogoc[o.value]; !ok {
				r.Skip(o.line, "there is no such tunnel here: IPv6 over IPv4 is asked for")
			} else if want != "any" {
				l.SetKey("want", want)
			}
		case "prefixlen":
			if n, err := strconv.Atoi(o.value); err == nil && router {
				l.SetKey("prefix_length", n)
			}
		case "if_prefix", "dns_server":
			if router && o.value != "" {
				r.Skip(o.line, "networks behind this host get no addresses from sixfourd: configure them there")
			}
		case "client_v4":
			if o.value != "auto" {
				text(l, "local", o.value)
			}
		case "keepalive":
			if !yes(o.value) {
				l.SetKey("keepalive", "0s")
			}
		case "keepalive_interval":
			if n, err := strconv.Atoi(o.value); err == nil && n > 0 && yes(s.get("keepalive")) {
				l.SetKey("keepalive", o.value+"s")
			}
		case "retry_delay", "auto_retry_connect", "retry_delay_max", "client_v6", "haccess_proxy_enabled":
			r.Skip(o.line, reasonPreset)
		default:
			r.Skip(o.line, reasonProcess)
		}
	}
	return nil
}

// readMiredo reads miredo.conf or miredo-server.conf.
func readMiredo(r *reader, f File) error {
	s := r.keysAndValues()
	name := s.get("InterfaceName")
	if name == "" {
		name = "teredo"
	}
	l := r.AddSession(name, "teredo", s.line)
	role := map[string]string{"": "client", "client": "client", "autoclient": "client", "cone": "relay", "restricted": "relay"}[s.get("RelayType")]
	if s.get("ServerBindAddress") != "" {
		role = "server"
		bind := []string{s.get("ServerBindAddress")}
		if second := s.get("ServerBindAddress2"); second != "" {
			bind = append(bind, second)
		} else {
			r.Skip(s.line, "the server needs two addresses: bind = [FIRST, SECOND]")
		}
		l.SetKey("bind", bind)
	}
	text(l, "role", role)
	for _, o := range s.options {
		switch o.key {
		case "InterfaceName", "RelayType", "ServerBindAddress", "ServerBindAddress2":
		case "ServerAddress":
			text(l, "server", o.value)
		case "ServerAddress2":
			text(l, "server2", o.value)
		case "BindAddress":
			text(l, "local", o.value)
		case "BindPort":
			if n, err := strconv.Atoi(o.value); err == nil {
				l.SetKey("port", n)
			}
		case "InterfaceMTU":
			if n, err := strconv.Atoi(o.value); err == nil && n != 1280 {
				l.SetKey("mtu", n)
			}
		case "SyslogFacility":
			r.Skip(o.line, reasonProcess)
		default:
			r.Skip(o.line, "there is no such setting here")
		}
	}
	if role == "relay" {
		if prefix := r.options.Set["prefix"]; prefix != "" {
			l.SetKey("prefix", []string{prefix})
		} else {
			r.Skip(s.line, "a relay needs the prefix of the hosts that it serves: give it with --set prefix=PREFIX")
		}
		if s.get("BindAddress") == "" {
			l.SetKey("local", "auto")
		}
	}
	return nil
}
