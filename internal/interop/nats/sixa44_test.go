package nats

import (
	"fmt"
	"testing"
	"time"

	"sixfour/internal/rig"
	"sixfour/internal/rig/rigtest"
)

// 6a44 clients of two sites reach each other and a native host through a relay. Two clients of
// one site reach each other without it, by protocol 41.
func TestSixA44(t *testing.T) {
	t.Parallel()
	n := newInternet(t, "port-restricted", "restricted")
	const (
		relay  = "role = \"relay\"\nlocal = \"198.51.100.120\"\nprefix = \"2001:db8:44::/48\"\n"
		client = "role = \"client\"\nrelay = \"198.51.100.120\"\n"
		prefix = "2001:db8:44::/48"
	)
	n.route(n.i, prefix, "2001:db8:1::2", "is")
	c := rigtest.Namespace(t, "c") // a second host behind the NAT of a
	n.wire(n.boxes["a"], "in2", c, "h0", []string{"10.0.2.1/24"}, []string{"10.0.2.5/24"})
	n.route(c, "0.0.0.0/0", "10.0.2.1", "h0")
	stop := n.daemon(n.s, "6a44", relay)
	for _, ns := range []*rig.Namespace{n.a, n.b} {
		n.daemon(ns, "6a44", client)
	}
	stopSecond := n.daemon(c, "6a44", client)
	a, b, second := n.address(n.a, "six0", prefix), n.address(n.b, "six0", prefix), n.address(c, "six0", prefix)
	n.reaches(n.a, native, "a reaches a native host")
	n.reaches(n.h, b, "a native host reaches b")
	n.reaches(n.a, b, "a reaches b")
	n.reaches(n.b, second, "b reaches c")
	before := n.received(n.a, "six0")
	n.reaches(n.a, second, "a reaches c")
	if n.received(n.a, "six0") == before {
		t.Error("nothing was received")
	}
	stop()
	n.reaches(n.a, second, "a reaches c without the relay")
	n.reaches(c, a, "c reaches a without the relay")
	stopSecond() // c answers protocol 41 with ICMP errors, which a sends on to the program
	eventually(t, "a hears that c is away", func() error {
		res, err := rig.Ping(t.Context(), n.a, second, rig.PingOptions{Count: 2, Timeout: 300 * time.Millisecond})
		if err == nil && len(res.ICMP) == 0 {
			err = fmt.Errorf("%+v", res)
		}
		return err
	})
}
