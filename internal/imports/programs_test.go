package imports

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// built returns the size of a program, in bytes, and the names of its symbols. It is built
// without symbols for debuggers, as a release is, except for those names.
func built(t *testing.T, name string) (size int64, symbols []string) {
	t.Helper()
	program := filepath.Join(t.TempDir(), name)
	for _, args := range [][]string{{"build", "-trimpath", "-ldflags=-w", "-o", program, "./cmd/" + name}, {"tool", "nm", program}} {
		cmd := exec.Command("go", args...)
		cmd.Dir = "../.."
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("go %v: %v", args, err)
		}
		for line := range strings.Lines(string(out)) {
			fields := strings.Fields(line)
			symbols = append(symbols, fields[len(fields)-1])
		}
	}
	file, err := os.Stat(program)
	if err != nil {
		t.Fatal(err)
	}
	return file.Size(), symbols
}

// has reports each symbol of a program that begins with one of some prefixes.
func has(t *testing.T, name string, symbols, prefixes []string) {
	t.Helper()
	for _, s := range symbols {
		if slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(s, p) }) {
			t.Errorf("cmd/%s has %s", name, s)
		}
	}
}

// TestPrograms: The daemon starts no other program, so no function that could is in it.
// (A library that it uses has os/exec among its imports, for its own tests.) The
// operator's tool sends requests to the daemon: it is clearly smaller. It contains no
// part of text/template, with which the linker would keep the exported methods of all
// types, and no TLS.
func TestPrograms(t *testing.T) {
	daemon, symbols := built(t, "sixfourd")
	has(t, "sixfourd", symbols, []string{"os/exec.", "os.StartProcess", "syscall.forkExec", "syscall.forkAndExecInChild", "syscall.Exec"})
	tool, symbols := built(t, "sixfourctl")
	has(t, "sixfourctl", symbols, []string{"text/template.(*state)", "net/http.(*Transport).RoundTrip", "crypto/tls.(*Conn).Handshake"})
	if tool > daemon*3/4 {
		t.Errorf("sixfourctl has %d bytes and sixfourd has %d: it should have 3/4 of them at most", tool, daemon)
	}
}

// The operator's tool shows what the daemon reports. It contains nothing that makes tunnels,
// carries their packets or answers at the control socket. (Doctor sends its probes through
// the raw sockets of transport, so that they are routed as the daemon's packets are.)
func TestToolDependencies(t *testing.T) {
	without := []string{
		"sixfour/internal/control", "sixfour/internal/datapath", "sixfour/internal/discovery", "sixfour/internal/engine",
		"sixfour/internal/gateway", "sixfour/internal/icmpreply", "sixfour/internal/iface", "sixfour/internal/logging",
		"sixfour/internal/metrics", "sixfour/internal/ports", "sixfour/internal/privilege", "sixfour/internal/probing",
		"sixfour/internal/systemd", "sixfour/transport/xdp", "sixfour/tun",
		"github.com/cilium/ebpf", "github.com/coreos/", "github.com/prometheus/", "go.uber.org/zap", "golang.zx2c4.com/", "google.golang.org/protobuf",
	}
	for _, dep := range goList(t, "-deps", "./cmd/sixfourctl") {
		if slices.ContainsFunc(without, func(path string) bool {
			return dep == path || strings.HasPrefix(dep, strings.TrimSuffix(path, "/")+"/") && path != "sixfour/internal/control"
		}) {
			t.Errorf("cmd/sixfourctl depends on %s", dep)
		}
	}
}
