package config

import (
	"net"
	"net/netip"
	"strconv"
)

var metricsKeys = []key[*Metrics]{
	{"listen", readListen},
}

// readListen reads the address on which the metrics are served. Without a host, all
// addresses of this host are used.
func readListen(r *report, e entry, m *Metrics) {
	want := "an address and a port, such as " + quote(defaultListen) + ` or "[::]:9640"`
	text, ok := stringOf(r, e, want)
	if !ok {
		return
	}
	host, port, err := net.SplitHostPort(text)
	if err != nil || !isListenHost(host) {
		refuse(r, e, want)
		return
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		r.add(e.at, "%s has the port %s: it must be a number from 1 to 65535", e.name, quote(port))
		return
	}
	if a, err := netip.ParseAddr(host); err == nil && (a.IsMulticast() || a == broadcast) {
		r.doubt(e.at, "%s is %s, at which nothing can listen: it must be an address of this host", e.name, quote(text))
	}
	m.Listen = text
}

// isListenHost reports whether a text can be a local address.
func isListenHost(s string) bool {
	_, err := netip.ParseAddr(s)
	return err == nil || s == "" || isDNSName(s)
}
