package configfile

import (
	"fmt"
	"testing"
)

// nested returns a tunnel over a remote, to which a network is routed.
func nested(name, mode, remote, routes string) string {
	s := fmt.Sprintf("[[tunnel]]\nname = '%s'\nmode = '%s'\nlocal = '192.0.2.1'\nremote = '%s'\n", name, mode, remote)
	if mode == "4in6in4" {
		s += "local6 = 'fc00::1'\nremote6 = 'fc00::2'\n"
	}
	if routes != "" {
		s += "routes = ['" + routes + "']\n"
	}
	return s
}

func TestNesting(t *testing.T) {
	const double, plain = "4in6in4", "6in4"
	checkProblems(t, []problemRow{
		{nested("a", double, "192.0.2.2", "10.1.0.0/16") + nested("b", double, "10.1.0.2", "10.2.0.0/16"), ""},
		{nested("a", double, "192.0.2.2", "10.1.0.0/16") + nested("b", double, "10.1.0.2", "10.2.0.0/16") + nested("c", plain, "10.2.0.2", ""),
			`21:10: remote 10.2.0.2 is reached through tunnel "b" (line 9), and packets would be encapsulated more than 4 times, or endlessly: give it another remote, or route that elsewhere`},
		{nested("a", double, "10.2.0.2", "10.1.0.0/16") + nested("b", double, "10.1.0.2", "10.2.0.0/16"),
			lines(
				`5:10: remote 10.2.0.2 is reached through tunnel "b" (line 9), whose own packets come back into this one: give one of them another remote, or route that elsewhere`,
				`13:10: remote 10.1.0.2 is reached through tunnel "a" (line 1), whose own packets come back into this one: give one of them another remote, or route that elsewhere`,
			)},
		// The longest prefix decides. With a mark or a namespace, other routes decide.
		{nested("a", double, "192.0.2.2", "10.0.0.0/8") + nested("b", double, "10.1.0.2", "10.2.0.0/16") + nested("c", plain, "10.3.0.2", ""), ""},
		{nested("a", double, "10.2.0.2", "10.1.0.0/16") + "fwmark = 1\n" + nested("b", double, "10.1.0.2", "10.2.0.0/16"), ""},
		{nested("a", plain, "10.2.0.2", "") + nested("b", "6on4", "10.2.0.3", "10.2.0.0/16"),
			`8:8: mode is "6on4": it must be ` + allModes + `: did you mean "6in4"?`},
		{nested("a", double, "192.0.2.2", "0.0.0.0/0") + nested("b", double, "10.1.0.2", "10.2.0.0/16"), ""}, // with a host route to 192.0.2.2
		{nested("a", double, "10.2.0.2", "10.1.0.0/16") + "netns = 'x'\n" + nested("b", double, "10.1.0.2", "10.2.0.0/16"), ""},
		{nested("a", double, "name.example", "10.1.0.0/16") + nested("b", double, "10.1.0.2", "10.2.0.0/16"), ""},
	})
}
