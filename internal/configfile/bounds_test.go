package configfile

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"sixfour/internal/config/problem"
	"sixfour/internal/config/tree"
)

// TestBounds: a file that exceeds a limit costs little time, and is reported in one
// line.
func TestBounds(t *testing.T) {
	const file = ", so that it cannot be a configuration: name the right file with -config"
	for _, c := range []struct{ name, file, want string }{
		{"nested arrays", "a = " + strings.Repeat("[", 17) + strings.Repeat("]", 17), "1:5: arrays and tables are nested more than 16 levels deep here" + file},
		{"nested tables", "a = " + strings.Repeat("{a = ", 17) + "1" + strings.Repeat("}", 17), "1:85: arrays and tables are nested more than 16 levels deep here" + file},
		{"a deep key", strings.Repeat("a.", 16) + "a = 1", "1:1: a key has more than 16 parts here" + file},
		{"a deep table", "[" + strings.Repeat("a.", 16) + "a]", "1:2: a key has more than 16 parts here" + file},
		{"many values", "a = [" + strings.Repeat("1,", tree.MaxValues) + "]", fmt.Sprintf("1:%d: the file has more than 3145728 values here", 2*tree.MaxValues+4) + file},
		{"many tables", strings.Repeat("[[x]]\n", tree.MaxValues+1), "3145729:3: the file has more than 3145728 values here" + file},
		{"many tunnels", strings.Repeat("[[tunnel]]\n", maxTunnels+1), "10001:3: there are 10001 tunnels: at most 10000 are possible: name the right file with -config, or give a tunnel many peers ([[tunnel.peer]])"},
	} {
		_, err := Parse("f", []byte(c.file))
		if err == nil || err.Error() != "f:"+c.want {
			t.Errorf("%s: %.300v, want %s", c.name, err, c.want)
		}
	}
}

// A file of many peers, each with a comment, is valid.
func TestFileOfManyPeers(t *testing.T) {
	var b strings.Builder
	b.WriteString(tunnel("4in4", "192.0.2.1", ""))
	const n = 120_000
	for i := range n {
		fmt.Fprintf(&b, "[[tunnel.peer]]\nname = 'customer-%d'\nremote = '10.%d.%d.%d'\nallowed = ['172.%d.%d.%d/32']\n# The customer's contract, address and contact person are in the inventory.\n",
			i, i>>16, i>>8&255, i&255, 16+i>>16, i>>8&255, i&255)
	}
	if b.Len() < 17<<20 {
		t.Fatalf("the file has only %d bytes", b.Len())
	}
	path := filepath.Join(t.TempDir(), "f.toml")
	if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	if c, err := Load(path); err != nil || len(c.Tunnels[0].Peers) != n {
		t.Errorf("%.500v", err)
	}
}

// TestManyProblems: of a file with many errors only the first ones are reported, with a
// note that there may be more.
func TestManyProblems(t *testing.T) {
	hub := tunnel("4in4", "192.0.2.1", "")
	for name, file := range map[string]string{
		"peers":    hub + strings.Repeat("[[tunnel.peer]]\nname = ''\nremot = 1\nallowed = ['x', 7]\n", 20_000),
		"tunnels":  strings.Repeat("[[tunnel]]\nmode = 'x'\nname = 7\n", 9_000),
		"prefixes": hub + peer("a", "192.0.2.2", strings.Repeat("x', '", 100_000)),
		"keys":     strings.Repeat("a = 1\n", 100_000) + single,
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := Parse("f", []byte(file))
		runtime.ReadMemStats(&after)
		var problems problem.List
		if !errors.As(err, &problems) || len(problems) != problem.MaxProblems+1 || problems[problem.MaxProblems].Text != "there may be more problems: correct these first" {
			t.Errorf("%s: %d problems, the last %v", name, len(problems), problems[len(problems)-1])
		}
		if used := after.TotalAlloc - before.TotalAlloc; used > 150*uint64(len(file))+1<<20 {
			t.Errorf("%s: %d MB for a file of %d kB", name, used>>20, len(file)>>10)
		}
	}
}
