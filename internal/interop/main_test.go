//go:build interop

package interop

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"sixfour/internal/interop/vm"
	"sixfour/internal/rig"
)

const (
	tap       = "tap0"
	ours      = "203.0.113.2" // on the tap
	theirs    = "203.0.113.1" // on the machine's eth0
	ours6     = "fd00::2"     // the same over IPv6
	theirs6   = "fd00::1"
	guestPort = 7000 // of the traffic server in the machine
)

// lab is the network that all tests share; making it takes longer than most of them.
var lab struct {
	ns     *rig.Namespace
	vm     *vm.VM
	daemon string // path of the program
}

func TestMain(m *testing.M) {
	code, err := setUp(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "interop:", err)
		code = 1
	}
	os.Exit(code)
}

// setUp makes the lab, runs the tests and removes everything. If the program dies in
// between, the kernel ends the machine and the daemon with it.
func setUp(m *testing.M) (code int, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	image, err := machineImage(ctx)
	if err != nil {
		return 1, err
	}
	tmp, err := os.MkdirTemp("", "sixfour-interop-")
	if err != nil {
		return 1, err
	}
	defer os.RemoveAll(tmp)
	for _, pkg := range []string{"sixfour/cmd/sixfourd", "sixfour/cmd/sixfourctl", "sixfour/internal/interop/guest"} {
		build := exec.CommandContext(ctx, "go", "build", "-o", tmp, pkg)
		build.Env = append(os.Environ(), "CGO_ENABLED=0") // there are no libraries in the machine
		if out, err := build.CombinedOutput(); err != nil {
			return 1, fmt.Errorf("build %s: %w\n%s", pkg, err, out)
		}
	}
	lab.daemon = filepath.Join(tmp, "sixfourd")
	if lab.ns, err = rig.New("interop"); err != nil {
		return 1, err
	}
	defer lab.ns.Close()
	lab.vm, err = vm.Boot(ctx, vm.Options{
		Kernel: filepath.Join(image, "vmlinuz"), Initrd: filepath.Join(image, "initrd.gz"), Namespace: lab.ns, Tap: tap,
	})
	if err != nil {
		return 1, err
	}
	defer lab.vm.Close()
	for _, s := range []string{"accept_ra", "router_solicitations"} {
		if err := lab.ns.Sysctl("net/ipv6/conf/"+tap+"/"+s, "0"); err != nil {
			return 1, err
		}
	}
	for _, a := range []string{ours + "/24", ours6 + "/64"} {
		if err := lab.ns.AddAddr(tap, netip.MustParsePrefix(a)); err != nil {
			return 1, err
		}
	}
	for _, program := range []string{"guest", "sixfourd", "sixfourctl"} {
		if err := lab.vm.Put(ctx, filepath.Join(tmp, program), "/bin/"+program); err != nil {
			return 1, err
		}
	}
	out, err := lab.vm.Run(ctx, fmt.Sprintf(`set -e
		cd /proc/sys/net; for s in accept_ra router_solicitations accept_dad; do echo 0 >ipv6/conf/eth0/$s; done
		for s in ipv4/icmp_ratelimit ipv6/icmp/ratelimit; do echo 0 >$s; done # no error is held back
		ip addr add %s/24 dev eth0; ip addr add %s/64 dev eth0; ip link set eth0 up
		guest serve %d >/run/serve 2>&1 &
		until [ -s /run/serve ]; do sleep 0.1; done
		grep -q '^ready' /run/serve || { cat /run/serve >&2; exit 1; }
		uname -r`, theirs, theirs6, guestPort))
	if err != nil {
		return 1, err
	}
	fmt.Printf("kernel %s in an emulated machine at %s, sixfourd at %s\n", out[:len(out)-1], theirs, ours)
	return m.Run(), nil
}

// machineImage returns the directory with the machine's kernel and initial file system.
// They are built if they are missing, or older than their sources.
func machineImage(ctx context.Context) (string, error) {
	dir := os.Getenv("SIXFOUR_LAB")
	if dir == "" {
		dir = filepath.Join(os.TempDir(), "sixfour-lab") // $TMPDIR or /tmp
	}
	if _, err := exec.LookPath("qemu-system-x86_64"); err != nil {
		return "", fmt.Errorf("%w: run internal/interop/fetch", err)
	}
	sources, err := filepath.Glob(filepath.Join(dir, "deb", "linux-image-*.deb"))
	if err != nil {
		return "", err
	}
	made, err := modified(filepath.Join(dir, "image", "initrd.gz"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	stale := err != nil
	for _, s := range append(sources, "vm/build", "vm/guest-init") {
		t, err := modified(s)
		if err != nil {
			return "", err
		}
		stale = stale || t.After(made)
	}
	if stale {
		build := exec.CommandContext(ctx, "vm/build")
		build.Env = append(os.Environ(), "SIXFOUR_LAB="+dir)
		build.Stdout, build.Stderr = os.Stdout, os.Stderr
		if err := build.Run(); err != nil {
			return "", fmt.Errorf("vm/build: %w", err)
		}
	}
	return filepath.Join(dir, "image"), nil
}

func modified(path string) (time.Time, error) {
	st, err := os.Stat(path)
	if err != nil {
		return time.Time{}, err
	}
	return st.ModTime(), nil
}
