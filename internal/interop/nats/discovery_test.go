package nats

import (
	"testing"

	"sixfour/internal/rig"
	"sixfour/internal/rig/rigtest"
)

// lan makes a bridge of the inside of a's NAT, and returns a second host there.
func (n *internet) lan() (c *rig.Namespace) {
	n.t.Helper()
	box := n.boxes["a"]
	c = rigtest.Namespace(n.t, "c")
	rigtest.Must(n.t, rig.Veth(box, "in2", c, "h0", 1500))
	n.command(box, "sh", "-ec", "ip link add lan type bridge; ip link set in master lan; ip link set in2 master lan; ip addr del 10.0.0.1/24 dev in; ip addr add 10.0.0.1/24 dev lan; ip link set in2 up; ip link set lan up")
	n.command(c, "sh", "-ec", "ip addr add 10.0.0.6/24 dev h0; ip link set h0 up; ip route add default via 10.0.0.1")
	return c
}

// Two clients on a link find each other by multicast: they reach each other when their server
// is gone.
func TestDiscovery(t *testing.T) {
	t.Parallel()
	n := newInternet(t, "port-restricted", "none")
	c := n.lan()
	stop := n.daemon(n.s, "teredo", "role = \"server\"\nbind = [\"198.51.100.120\", \"198.51.100.121\"]\n")
	n.client(ours, n.a)
	second := n.client(ours, c)
	stop()
	n.reaches(n.a, second, "a reaches the other client on its link")
}
