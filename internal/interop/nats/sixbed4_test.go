package nats

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/netip"
	"os/exec"
	"testing"
	"time"

	"sixfour/internal/rig"
	"sixfour/internal/rig/rigtest"
)

// Two 6bed4 peers get addresses from a router and reach each other and a native host. Where
// their NATs let packets pass, they need the router no longer. After a while without it, the
// router is back, and they go on.
func TestSixBed4(t *testing.T) {
	for _, k := range []struct {
		natA, natB string
		direct     bool
	}{
		{"port-restricted", "port-restricted", true},
		{"restricted", "none", true},
		{"symmetric", "port-restricted", false},
	} {
		t.Run(k.natA+" and "+k.natB, func(t *testing.T) {
			t.Parallel()
			n := newInternet(t, k.natA, k.natB)
			const (
				router = "role = \"router\"\nlocal = \"198.51.100.120\"\nprefix = \"2001:db8:b:b::/64\"\naddress = [\"2001:db8:b:b::1/64\"]\n"
				peer   = "role = \"peer\"\nrouter = \"198.51.100.120\"\n"
			)
			rigtest.Must(t, n.s.Forward())
			n.route(n.i, "2001:db8:b:b::/64", "2001:db8:1::2", "is")
			stop := n.daemon(n.s, "6bed4", router)
			n.daemon(n.a, "6bed4", peer)
			n.daemon(n.b, "6bed4", peer)
			a, b := n.address(n.a, "six0", "2001:db8:b:b::/64"), n.address(n.b, "six0", "2001:db8:b:b::/64")
			n.reaches(n.a, native, "a reaches a native host")
			n.reaches(n.h, b, "a native host reaches b")
			n.reaches(n.a, b, "a reaches b")
			n.reaches(n.b, a, "b reaches a")
			if !k.direct {
				return
			}
			n.findDirectWay(b)
			stop()
			n.reaches(n.a, b, "a reaches b without the router")
			n.daemon(n.s, "6bed4", router)
			n.reaches(n.a, native, "a reaches a native host again")
		})
	}
}

// findDirectWay exchanges packets between a and b until they do not pass the router. If the
// first attempt fails, because there were no packets to say that probes have arrived, there
// is another one after 25 s.
func (n *internet) findDirectWay(b netip.Addr) {
	n.t.Helper()
	for end := time.Now().Add(80 * time.Second); time.Now().Before(end); {
		before := n.received(n.s, "six0")
		r, err := rig.Ping(n.t.Context(), n.a, b, rig.PingOptions{Count: 8, Interval: 250 * time.Millisecond})
		if err != nil {
			n.t.Fatal(err)
		}
		if r.Received > 0 && n.received(n.s, "six0") == before {
			return
		}
	}
	n.t.Fatal("packets still pass the router")
}

// received returns how many packets an interface has received.
func (n *internet) received(ns *rig.Namespace, dev string) int {
	n.t.Helper()
	var out bytes.Buffer
	cmd := exec.Command("ip", "-s", "-j", "link", "show", "dev", dev)
	cmd.Stdout = &out
	rigtest.Must(n.t, errors.Join(ns.Start(cmd), cmd.Wait()))
	var links []struct {
		Stats struct{ RX struct{ Packets int } } `json:"stats64"`
	}
	rigtest.Must(n.t, json.Unmarshal(out.Bytes(), &links))
	return links[0].Stats.RX.Packets
}
