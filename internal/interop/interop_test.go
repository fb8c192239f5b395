//go:build interop

package interop

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"sixfour/internal/api"
	"sixfour/internal/control/client"
	"sixfour/internal/rig"
)

// way is a pair of addresses inside a tunnel, and the protocol that carries them.
type way struct {
	layers       string
	ours, theirs string
	device       string // in the machine: the device through which packets to us leave
}

// sit returns commands for the kernel's end of IPv6 in IPv4, with a peer and an address;
// double adds the device for IPv4 in IPv6 over it.
const (
	sit = `
		ip tunnel add sit6to4 mode sit local ` + theirs + ` remote %s
		ip link set sit6to4 mtu 1480 up
		ip addr add %s dev sit6to4 nodad`
	double = `
		ip -6 tunnel add ipip6 mode ipip6 local fc00::1 remote fc00::2 encaplimit %s
		ip link set ipip6 up
		ip addr add 10.0.0.1/30 dev ipip6`
	tearDown = `
		for d in far far2 ipip6 sit6to4; do ! [ -e /sys/class/net/$d ] || ip link del $d; done
		ip link set eth0 gro_max_size 65536; ip link set sit0 down; ip addr flush dev lo scope global; ip addr flush dev eth0 to ` + theirs2 + `
		for p in 4754 5555 6080; do for f in -4 -6; do ip $f fou del port $p 2>/dev/null || :; done; done
		ip route flush cache; ip -6 route flush cache`
)

// The daemon's double encapsulation against the kernel's: an ip6tnl device over a sit
// device. The tunnel encapsulation limit (RFC 2473), which the kernel sends by default, may
// be present or absent, in either direction.
func TestDouble(t *testing.T) {
	for _, c := range []struct{ kernel, daemon string }{
		{"4", `"none"`}, // both with their defaults
		{"none", `"none"`},
		{"4", `4`},
	} {
		t.Run(fmt.Sprintf("encap limit of kernel %s, of sixfourd %s", c.kernel, strings.Trim(c.daemon, `"`)), func(t *testing.T) {
			kernel(t, fmt.Sprintf(sit, ours, "fc00::1/64")+fmt.Sprintf(double, c.kernel))
			w := watch(t, protocol41)
			socket := daemon(t, lab.ns, `
				mode = "4in6in4"
				local = "`+ours+`"
				remote = "`+theirs+`"
				local6 = "fc00::2"
				remote6 = "fc00::1"
				address = ["10.0.0.2/30", "fc00::2/64"]
				encap_limit = `+c.daemon)
			waitAnswered(t, socket)
			if strings.Trim(c.daemon, `"`) == c.kernel {
				sameMTU(t, "six0", "ipip6")
			}
			both(t, way{"IPv4 in IPv6 in IPv4", "10.0.0.2", "10.0.0.1", "ipip6"}, full)
			both(t, way{"IPv6 in IPv4", "fc00::2", "fc00::1", "sit6to4"}, full)
			w.report(t, c.daemon != `"none"`, c.kernel != "none")
		})
	}
}

// The daemon's 6in4 against a sit device.
func Test6in4(t *testing.T) {
	kernel(t, fmt.Sprintf(sit, ours, "2001:db8:6::1/64"))
	w := watch(t, protocol41)
	socket := daemon(t, lab.ns, `
		mode = "6in4"
		local = "`+ours+`"
		remote = "`+theirs+`"
		address = ["2001:db8:6::2/64"]`)
	waitAnswered(t, socket)
	sameMTU(t, "six0", "sit6to4")
	both(t, way{"IPv6 in IPv4", "2001:db8:6::2", "2001:db8:6::1", "sit6to4"}, full)
	w.report(t, false, false)
}

// waitAnswered waits until the kernel has answered a probe through the tunnel.
func waitAnswered(t *testing.T, socket string) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for {
		s, err := client.Status(t.Context(), socket)
		if err != nil {
			t.Fatal(err)
		}
		if one := s.Tunnels[0]; one.State.Phase == api.Up && one.Liveness.RTT > 0 {
			report(t, "RTT  %.1f ms, of probes that the kernel answers", 1000*one.Liveness.RTT)
			return
		} else if time.Now().After(deadline) {
			t.Fatalf("%+v %+v", one.State, one.Liveness)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// sameMTU checks that both ends, which add the same headers, have the same MTU.
func sameMTU(t *testing.T, ours, theirs string) {
	t.Helper()
	a, err := daemonEnd{lab.ns}.mtu(t.Context(), ours)
	b, kerr := kernelEnd{lab.ns}.mtu(t.Context(), theirs)
	if a != b || err != nil || kerr != nil {
		t.Errorf("MTU of %s is %d, of the kernel's %s %d (%v, %v)", ours, a, theirs, b, err, kerr)
	}
	report(t, "MTU  %d on both sides", a)
}

// both exchanges traffic in both directions.
func both(t *testing.T, w way, l load) {
	t.Run(w.layers, func(t *testing.T) {
		exchange(t, daemonEnd{lab.ns}, kernelEnd{lab.ns}, netip.MustParseAddr(w.theirs), "six0", l)
		exchange(t, kernelEnd{lab.ns}, daemonEnd{lab.ns}, netip.MustParseAddr(w.ours), w.device, l)
	})
}

// kernel makes the tunnel devices in the machine, until the end of the test.
func kernel(t *testing.T, commands string) {
	t.Helper()
	if _, err := lab.vm.Run(t.Context(), "set -e"+tearDown+commands); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if _, err := lab.vm.Run(ctx, "set -e"+tearDown); err != nil {
			t.Error(err)
		}
	})
}

// daemon runs sixfourd with one tunnel, six0, as sixfourd does.
func daemon(t *testing.T, ns *rig.Namespace, section string) (socket string) {
	t.Helper()
	return sixfourd(t, ns, "[[tunnel]]\nname = \"six0\"\n"+section)
}

// sixfourd runs sixfourd with an interface six0 until the end of the test. It must become
// ready, and end without an error. If the test fails, its log is shown. It returns the path
// of the control socket.
func sixfourd(t *testing.T, ns *rig.Namespace, tables string) (socket string) {
	t.Helper()
	dir := t.TempDir()
	tables = strings.ReplaceAll(tables, "\t", "")
	socket = filepath.Join(dir, "control.sock")
	config := fmt.Sprintf("[log]\nlevel = \"debug\"\n[control]\nsocket = %q\n%s\n", socket, tables)
	file := filepath.Join(dir, "sixfour.toml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	log := &logBuffer{ready: make(chan struct{})}
	cmd := exec.Command(lab.daemon, "-config", file, "-log-format", "json")
	cmd.Stderr = log
	if err := ns.Start(cmd); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		defer func() {
			if t.Failed() {
				t.Logf("configuration:\n%s\nlog of sixfourd:\n%s", config, log)
			}
		}()
		if len(ended) > 0 {
			t.Error("sixfourd ended before its time")
		}
		_ = cmd.Process.Signal(syscall.SIGTERM)
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("sixfourd after SIGTERM: %v", err)
			}
		case <-time.After(30 * time.Second):
			_ = cmd.Process.Kill()
			t.Errorf("sixfourd did not end within 30 s of SIGTERM: %v", <-ended)
		}
		if _, err := ns.MTU("six0"); err == nil {
			t.Error("sixfourd left its interface behind")
		}
	})
	select {
	case <-log.ready:
	case err := <-ended:
		ended <- err
		t.Fatalf("sixfourd ended: %v", err)
	case <-time.After(30 * time.Second):
		t.Fatal("sixfourd was not ready within 30 s")
	}
	return socket
}

// logBuffer stores a log, and closes ready when the log has that line.
type logBuffer struct {
	mu    sync.Mutex
	text  strings.Builder
	ready chan struct{}
	said  bool
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text.Write(p)
	if !l.said && strings.Contains(l.text.String(), `"ready"`) {
		l.said = true
		close(l.ready)
	}
	return len(p), nil
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}
