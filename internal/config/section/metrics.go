package section

import (
	"net"
	"net/netip"
	"strconv"

	"sixfour/internal/config"
	"sixfour/internal/config/problem"
	"sixfour/internal/config/tree"
	"sixfour/internal/config/value"
)

var metricsKeys = []tree.Key[*config.Metrics]{
	{Name: "listen", Read: readListen},
}

// readListen reads the address on which the metrics are served. Without a host, all
// addresses of this host are used.
func readListen(r *problem.Report, e tree.Entry, m *config.Metrics) {
	want := "an address and a port, such as " + problem.Quote(defaultListen) + ` or "[::]:9640"`
	text, ok := value.String(r, e, want)
	if !ok {
		return
	}
	host, port, err := net.SplitHostPort(text)
	if err != nil || !isListenHost(host) {
		value.Refuse(r, e, want)
		return
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		r.Add(e.At, "%s has the port %s: it must be a number from 1 to 65535", e.Name, problem.Quote(port))
		return
	}
	if a, err := netip.ParseAddr(host); err == nil && (a.IsMulticast() || a == config.Broadcast) {
		r.Doubt(e.At, "%s is %s, at which nothing can listen: it must be an address of this host", e.Name, problem.Quote(text))
	}
	m.Listen = text
}

// isListenHost reports whether a text can be a local address.
func isListenHost(s string) bool {
	_, err := netip.ParseAddr(s)
	return err == nil || s == "" || value.IsDNSName(s)
}
