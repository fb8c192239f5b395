package address

import (
	"fmt"
	"strings"
)

// String is the answer as a block of lines, the first of which is the mechanism.
func (a Answer) String() string {
	var b strings.Builder
	line := func(name, format string, args ...any) {
		fmt.Fprintf(&b, "  %-13s %s\n", name, fmt.Sprintf(format, args...))
	}
	fmt.Fprintf(&b, "%s\n", a.Mechanism)
	server := a.Mechanism == "teredo" && a.Cone == nil // the address itself was taken for one
	switch {
	case server:
	case !a.IPv4.IsValid():
		line("IPv4", "none: it is not a peer's address, but the router's own")
	default:
		line("IPv4", "%v%s", a.IPv4, remark(a.Martian))
	}
	if a.Server.IsValid() {
		line(map[bool]string{true: "router", false: "server"}[a.Mechanism == "6bed4"], "%v%s", a.Server, remark(a.ServerMartian))
	}
	if a.Prefix.IsValid() {
		line("prefix", "%v", a.Prefix)
	}
	if a.Subnet != nil {
		line("subnet", "%x", *a.Subnet)
	}
	if a.IPv6.IsValid() {
		line("address", "%v", a.IPv6)
	}
	if a.LinkLocal.IsValid() {
		line("link-local", "%v", a.LinkLocal)
	}
	if a.BorderRelay.IsValid() {
		line("border relay", "%v", a.BorderRelay)
	}
	if a.Port != 0 || a.Cone != nil {
		line("port", "%d", a.Port)
	}
	if a.Sharing != nil {
		a.Sharing.lines(line)
	}
	if a.Cone != nil {
		line("flags", "%s, cone bit %s", a.Flags, map[bool]string{true: "set", false: "not set"}[*a.Cone])
	}
	return b.String()
}

// lines prints how the address is shared.
func (s *Sharing) lines(line func(name, format string, args ...any)) {
	if s.Inside.IsValid() {
		line("inside", "%v", s.Inside)
	}
	if s.PSID == nil {
		return
	}
	line("PSID", "%d (0x%x) of %d bits, after %d bits", *s.PSID, *s.PSID, s.PSIDLen, s.Offset)
	line("ports", "%s", strings.Join(s.Ports, " "))
}

func remark(martian bool) string {
	if martian {
		return " (martian: not globally unique)"
	}
	return ""
}
