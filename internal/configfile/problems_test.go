package configfile

import (
	"errors"
	"strings"
	"testing"

	"sixfour/encap"
	"sixfour/internal/config/keys"
	"sixfour/internal/config/problem"
)

// Tunnels without a problem. Rows add lines to them, from line 6 and from line 8.
const (
	single = "[[tunnel]]\nname = 'a'\nmode = '6in4'\nlocal = '192.0.2.1'\nremote = '192.0.2.2'\n"
	double = "[[tunnel]]\nname = 'a'\nmode = '4in6in4'\nlocal = '192.0.2.1'\nremote = '192.0.2.2'\nlocal6 = 'fc00::1'\nremote6 = 'fc00::2'\n"
)

// The lists of modes in problems: for a mode, for an item of a stack, and for modes with
// IPv6. A new mode must be added to each list to which it belongs.
var (
	allModes  = problem.Alternatives(problem.QuoteAll(append(keys.Modes(keys.AnyMode), "stack")))
	itemModes = problem.Alternatives(problem.QuoteAll(keys.Modes(keys.CanBeItem)))
	carrying6 = problem.Alternatives(problem.QuoteAll(keys.Modes(func(m encap.Mode) bool { return m.Carries(6) })))
)

func TestListsOfModes(t *testing.T) {
	for _, c := range []struct{ list, begins, ends string }{
		{allModes, `"4in6in4", "6in4", "6to4", `, `"tsp", "json" or "stack"`},
		{itemModes, `"4in6in4", "6in4", "6to4", `, `"gre6" or "seal"`},
		{carrying6, `"4in6in4", "6in4", "6to4", `, `"tic", "tsp" or "json"`},
	} {
		if !strings.HasPrefix(c.list, c.begins) || !strings.HasSuffix(c.list, c.ends) {
			t.Error(c.list)
		}
	}
}

// without returns a text without the lines of some keys.
func without(text string, keys ...string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		keep := true
		for _, k := range keys {
			keep = keep && !strings.HasPrefix(line, k+" =")
		}
		if keep {
			b.WriteString(line)
		}
	}
	return b.String()
}

// named returns single with another value of name.
func named(value string) string { return strings.Replace(single, "'a'", value, 1) }

// between returns single between other endpoints, between6 double with others in the
// IPv6 layer.
func between(local, remote string) string {
	return strings.NewReplacer("192.0.2.1", local, "192.0.2.2", remote).Replace(single)
}

func between6(local6, remote6 string) string {
	return strings.NewReplacer("fc00::1", local6, "fc00::2", remote6).Replace(double)
}

// inMode returns single in another mode.
func inMode(mode string) string { return strings.Replace(single, "6in4", mode, 1) }

// tunnel returns the beginning of a tunnel of a mode between two ends; "" omits a key.
func tunnel(mode, local, remote string) string {
	var b strings.Builder
	b.WriteString("[[tunnel]]\nname = 'a'\n")
	for _, line := range [][2]string{{"mode", mode}, {"local", local}, {"remote", remote}} {
		if line[1] != "" {
			b.WriteString(line[0] + " = '" + line[1] + "'\n")
		}
	}
	return b.String()
}

// Tunnels of other modes, without a problem except for what they lack.
var (
	greTunnel   = tunnel("gre", "192.0.2.1", "192.0.2.2")
	over6Tunnel = tunnel("4in6", "2001:db8::1", "2001:db8::2")
	stackTunnel = tunnel("stack", "192.0.2.1", "192.0.2.2") // lacks stack
	hubTunnel   = tunnel("4in4", "192.0.2.1", "")           // lacks peers
)

// second and third return a tunnel with another name.
func second(tunnel string) string { return strings.Replace(tunnel, "'a'", "'b'", 1) }
func third(tunnel string) string  { return strings.Replace(tunnel, "'a'", "'c'", 1) }

// peer returns a peer of a hub.
func peer(name, remote, allowed string) string {
	return "[[tunnel.peer]]\nname = '" + name + "'\nremote = '" + remote + "'\nallowed = ['" + allowed + "']\n"
}

// problemRow is a file and its problems, one per line, without the file name.
type problemRow struct{ file, want string }

func checkProblems(t *testing.T, rows []problemRow) {
	t.Helper()
	for _, row := range rows {
		c, err := Parse("f", []byte(row.file))
		got := ""
		if err != nil {
			var problems problem.List
			if !errors.As(err, &problems) || len(problems) == 0 || c != nil {
				t.Errorf("%s\ngot %v and %#v", row.file, c, err)
				continue
			}
			got = strings.ReplaceAll("\n"+err.Error(), "\nf:", "\n")[1:]
		}
		if got != row.want {
			t.Errorf("%s\ngot\n%s\nwant\n%s\n", row.file, got, row.want)
		}
	}
}

// lines joins several problems.
func lines(l ...string) string { return strings.Join(l, "\n") }
