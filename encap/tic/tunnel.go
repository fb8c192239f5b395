package tic

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// Types of tunnels, as the field Type names them.
const (
	Type6in4      = "6in4"
	TypeHeartbeat = "6in4-heartbeat"
	TypeAYIYA     = "ayiya"
)

// Tunnel is what "tunnel show" says.
type Tunnel struct {
	ID       string        // such as T17
	Type     string        // one of the types, or another one that the server has
	Client   netip.Addr    // the client's end of the tunnel ("IPv6 Endpoint")
	Broker   netip.Addr    // the broker's end of the tunnel ("IPv6 POP")
	Bits     int           // length of the prefix in which both are
	MTU      int           // in bytes
	Name     string        // chosen by the user
	POP      string        // name of the point of presence
	Outer    netip.Addr    // the client's outer address; the zero Addr: not a fixed one
	Server   netip.Addr    // the broker's outer address ("IPv4 POP")
	Disabled string        // who has disabled it: "user" or "administrator"; "": it is enabled
	Password string        // of heartbeats and AYIYA
	Interval time.Duration // of heartbeats
}

const (
	minMTU          = 1280 // RFC 8200 5
	maxMTU          = 65535
	defaultInterval = time.Minute
	minInterval     = 5 * time.Second
	maxInterval     = time.Hour
)

// Lines returns the lines of "tunnel show", between the first and the last one.
func (t *Tunnel) Lines() []string {
	return said([]string{
		"TunnelId: " + t.ID,
		"Type: " + t.Type,
		"IPv6 Endpoint: " + t.Client.String(),
		"IPv6 POP: " + t.Broker.String(),
		"IPv6 PrefixLength: " + strconv.Itoa(t.Bits),
		"Tunnel MTU: " + strconv.Itoa(t.MTU),
		"Tunnel Name: " + t.Name,
		"POP Id: " + t.POP,
		"IPv4 Endpoint: " + t.outer(),
		"IPv4 POP: " + t.Server.String(),
		"UserState: " + state(t.Disabled != "user"),
		"AdminState: " + state(t.Disabled != "administrator"),
		"Password: " + t.Password,
		"Heartbeat_Interval: " + strconv.Itoa(int(t.Interval/time.Second)),
	})
}

// said returns the lines that say something: AICCU reads beyond the end of a line without a
// value.
func said(lines []string) (all []string) {
	for _, l := range lines {
		if !strings.HasSuffix(l, ": ") {
			all = append(all, l)
		}
	}
	return all
}

// Listed returns the line of "tunnel list".
func (t *Tunnel) Listed() string {
	return strings.Join([]string{t.ID, t.Client.String(), t.outer(), t.POP}, " ")
}

// outer returns the field "IPv4 Endpoint".
func (t *Tunnel) outer() string {
	switch {
	case t.Outer.IsValid():
		return t.Outer.String()
	case t.Type == TypeHeartbeat:
		return "heartbeat"
	}
	return t.Type
}

func state(enabled bool) string {
	if enabled {
		return "enabled"
	}
	return "disabled"
}

// ParseListed reads the name of the tunnel in a line of "tunnel list". The fields after it are
// not the same at all servers.
func ParseListed(line string) (id string, ok bool) {
	if f := strings.Fields(line); len(f) > 0 && f[0] == Printable(f[0]) {
		return f[0], true
	}
	return "", false
}

// field is a line "Key: value" of "tunnel show".
type field struct{ key, value string }

// ParseShow reads the lines of "tunnel show" between the first and the last one. Servers write
// the keys with capital letters of their own, and have keys of their own, which are passed
// over. It refuses what cannot be a tunnel.
func ParseShow(lines []string) (Tunnel, error) {
	t := Tunnel{Bits: 64, MTU: minMTU, Interval: defaultInterval}
	for _, line := range lines {
		key, value, ok := strings.Cut(line, ":")
		if !ok {
			continue
		}
		if err := t.read(field{key, strings.TrimSpace(value)}); err != nil {
			return Tunnel{}, err
		}
	}
	switch {
	case t.Type == "":
		return Tunnel{}, missing("Type")
	case !t.Client.IsValid():
		return Tunnel{}, missing("IPv6 Endpoint")
	case !t.Broker.IsValid():
		return Tunnel{}, missing("IPv6 POP")
	case t.Client == t.Broker:
		return Tunnel{}, fmt.Errorf("the server says that both ends of the tunnel are %v", t.Client)
	case !t.Server.IsValid():
		return Tunnel{}, missing("IPv4 POP")
	}
	return t, nil
}

func missing(key string) error { return fmt.Errorf("the server does not say %q", key) }

func wrong(f field) error {
	return fmt.Errorf("the server says %q: %q, which is not possible", f.key, Printable(f.value))
}

// read reads a field.
func (t *Tunnel) read(f field) (err error) {
	switch strings.ToLower(strings.TrimSpace(f.key)) {
	case "tunnelid":
		t.ID = Printable(f.value)
	case "type":
		t.Type = Printable(strings.ToLower(f.value))
	case "tunnel name":
		t.Name = Printable(f.value)
	case "pop id", "pop name":
		t.POP = Printable(f.value)
	case "password":
		if t.Password = f.value; f.value != Printable(f.value) {
			return fmt.Errorf("the server says a password with characters that cannot be in one")
		}
	case "ipv6 endpoint":
		t.Client, err = f.address(true)
	case "ipv6 pop":
		t.Broker, err = f.address(true)
	case "ipv4 pop":
		t.Server, err = f.address(false)
	case "ipv4 endpoint": // an address, or the name of a protocol
		if a, err := netip.ParseAddr(f.value); err == nil && a.Is4() {
			t.Outer = a
		}
	case "ipv6 prefixlength":
		t.Bits, err = f.number(1, 127)
	case "tunnel mtu":
		t.MTU, err = f.number(minMTU, maxMTU)
	case "heartbeat_interval":
		var n int
		n, err = f.number(0, 1<<30)
		if t.Interval = time.Duration(n) * time.Second; n == 0 {
			t.Interval = defaultInterval
		}
		t.Interval = min(max(t.Interval, minInterval), maxInterval)
	case "userstate":
		if !strings.EqualFold(f.value, "enabled") {
			t.Disabled = "user"
		}
	case "adminstate":
		if !strings.EqualFold(f.value, "enabled") {
			t.Disabled = "administrator"
		}
	}
	return err
}

// address reads an address that a host can have.
func (f field) address(v6 bool) (netip.Addr, error) {
	a, err := netip.ParseAddr(f.value)
	if err != nil || a.Zone() != "" || a.Is4() == v6 || a.Is4In6() || a.IsUnspecified() || a.IsMulticast() || a == broadcast {
		return netip.Addr{}, wrong(f)
	}
	return a, nil
}

var broadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})

func (f field) number(least, most int) (int, error) {
	n, err := strconv.Atoi(f.value)
	if err != nil || n < least || n > most {
		return 0, wrong(f)
	}
	return n, nil
}

// POP is what "pop show" says of a point of presence, which is a server of the broker.
type POP struct {
	ID, City, Country string
	IPv4, IPv6        netip.Addr
	Short, Name       string // of the provider
	Website, ASN, LIR string // of the provider
}

// Lines returns the lines of "pop show", between the first and the last one.
func (p *POP) Lines() []string {
	address := func(a netip.Addr) string {
		if !a.IsValid() {
			return ""
		}
		return a.String()
	}
	return said([]string{
		"POPId: " + p.ID,
		"City: " + p.City,
		"Country: " + p.Country,
		"IPv4: " + address(p.IPv4),
		"IPv6: " + address(p.IPv6),
		"ISP Short: " + p.Short,
		"ISP Name: " + p.Name,
		"ISP Website: " + p.Website,
		"ISP ASN: " + p.ASN,
		"ISP LIR: " + p.LIR,
	})
}
