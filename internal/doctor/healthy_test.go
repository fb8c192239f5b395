package doctor_test

import (
	"testing"

	"sixfour/internal/doctor"
	"sixfour/internal/doctor/finding"
)

// ends are two matching configurations, by mode.
var ends = []struct{ name, a, b string }{
	{"6in4", plain(outerA, outerB, 1), plain(outerB, outerA, 2)},
	{"4in6in4",
		config("4in6in4", outerA, outerB, `local6 = "fc00::1"`, `remote6 = "fc00::2"`, `address = ["10.0.0.1/30", "fc00::1/64"]`),
		config("4in6in4", outerB, outerA, `local6 = "fc00::2"`, `remote6 = "fc00::1"`, `address = ["10.0.0.2/30", "fc00::2/64"]`)},
	{"4in4", config("4in4", outerA, outerB, `address = ["10.0.0.1/30"]`), config("4in4", outerB, outerA, `address = ["10.0.0.2/30"]`)},
	{"gre", config("gre", outerA, outerB, `key = 7`, `address = ["10.0.0.1/30"]`), config("gre", outerB, outerA, `key = 7`, `address = ["10.0.0.2/30"]`)},
	{"gre without addresses", config("gre", outerA, outerB), config("gre", outerB, outerA)},
	{"4in6", config("4in6", outerA6, outerB6, `address = ["10.0.0.1/31"]`), config("4in6", outerB6, outerA6, `address = ["10.0.0.0/31"]`)},
	{"6in6", config("6in6", outerA6, outerB6, `address = ["fc00::1/127"]`), config("6in6", outerB6, outerA6, `address = ["fc00::/127"]`)},
	{"gre6", config("gre6", outerA6, outerB6, `address = ["10.0.0.1/30"]`), config("gre6", outerB6, outerA6, `address = ["10.0.0.2/30"]`)},
}

func TestHealthy(t *testing.T) {
	for _, test := range ends {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			h := newHosts(t)
			start(t, h.b, test.b, nil).ready(t)
			a := file(t, h.a, test.a)
			without := a.consult(t, nil)
			fails(t, without)
			a = start(t, h.a, test.a, nil).ready(t)
			with := a.consult(t, nil)
			fails(t, with)
			for _, r := range []doctor.Report{without, with} {
				for _, id := range []string{"tun", "route", "firewall_in", "firewall_out", "answer", "full_size", "icmp", "fragments", "ecn"} {
					verdict(t, r, id, finding.Pass, "")
				}
			}
			verdict(t, without, "daemon", finding.Skip, "sixfourd is not running")
			verdict(t, with, "daemon", finding.Pass, "process")
			verdict(t, with, "interface", finding.Pass, "six0 is up")
		})
	}
}

// If packets bypass all sockets, the daemon must send the probes.
func TestPastSockets(t *testing.T) {
	h := newHosts(t)
	b := start(t, h.b, plain(outerB, outerA, 2), nil).ready(t)
	a := start(t, h.a, plain(outerA, outerB, 1, `io = "xdp"`), nil).ready(t)
	a.says(t, `"io": "xdp"`)
	r := a.consult(t, nil)
	fails(t, r)
	verdict(t, r, "answer", finding.Pass, "answers the daemon's probes through the tunnel")
	verdict(t, r, "ecn", finding.Skip, "AF_XDP")
	verdict(t, r, "icmp", finding.Pass, "router 198.51.100.1")
	b.kill()
	fails(t, a.consult(t, nil), "answer")
}
