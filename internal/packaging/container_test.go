package packaging

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sixfour/internal/rig"
	"sixfour/internal/rig/rigtest"
)

// image makes a root of what the container file says, and returns the command that
// is run there.
func image(t *testing.T) (dir string, command []string) {
	t.Helper()
	built, dir := t.TempDir(), t.TempDir()
	build := exec.Command("go", "build", "-o", built+"/", "./cmd/...")
	build.Dir = root
	build.Env = append(os.Environ(), "CGO_ENABLED=0") // static, as make has them: the image has no libraries
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", build, err, out)
	}
	b, err := os.ReadFile(filepath.Join(root, "cmd/sixfourd/dist/Containerfile"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		word, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch word {
		case "", "#":
		case "FROM":
			if rest != "scratch" {
				t.Fatalf("the image is made of %s: this test knows none but an empty one", rest)
			}
		case "COPY":
			files := strings.Fields(rest)
			to := filepath.Join(dir, files[len(files)-1])
			must(t, os.MkdirAll(to, 0o755))
			for _, f := range files[:len(files)-1] {
				program, err := os.ReadFile(filepath.Join(built, filepath.Base(f)))
				must(t, err)
				must(t, os.WriteFile(filepath.Join(to, filepath.Base(f)), program, 0o755))
			}
		case "ENTRYPOINT", "CMD":
			for _, arg := range strings.Split(strings.Trim(rest, "[]"), ",") {
				command = append(command, strings.Trim(strings.TrimSpace(arg), `"`))
			}
		default:
			t.Fatalf("the container file says %s, which this test does not know", word)
		}
	}
	return dir, command
}

var must = rigtest.Must

// The image runs with the two capabilities that its file names, the TUN device and a
// configuration, and nothing else.
func TestContainer(t *testing.T) {
	dir, command := image(t)
	sample, err := os.ReadFile(filepath.Join(root, "cmd/sixfourd/dist/sixfour.toml"))
	must(t, err)
	for _, d := range []string{"etc", "run/sixfour", "dev/net"} {
		must(t, os.MkdirAll(filepath.Join(dir, d), 0o755))
	}
	must(t, os.WriteFile(filepath.Join(dir, "etc/sixfour.toml"), sample, 0o600))
	must(t, unix.Mknod(filepath.Join(dir, "dev/net/tun"), unix.S_IFCHR|0o600, int(unix.Mkdev(10, 200))))
	var log rig.Log
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Path = command[0]
	cmd.Dir = "/"
	cmd.Stderr = &log
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: dir, Cloneflags: unix.CLONE_NEWNET, Pdeathsig: unix.SIGKILL}
	// What the bounding set of the thread that forks does not have, the program does
	// not get. The thread is thrown away with it.
	started, ended := make(chan error), make(chan struct{})
	go func() {
		runtime.LockOSThread()
		for c := uintptr(0); c <= unix.CAP_LAST_CAP; c++ {
			if c != unix.CAP_NET_ADMIN && c != unix.CAP_NET_RAW {
				_ = unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0) // one that the kernel does not know
			}
		}
		started <- cmd.Start()
		<-ended
	}()
	must(t, <-started)
	defer close(ended)
	var status string
	socket := filepath.Join(dir, "run/sixfour/control.sock")
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		out, err := exec.Command(filepath.Join(dir, "usr/bin/sixfourctl"), "status", "--socket", socket).CombinedOutput()
		if status = string(out); err == nil && strings.Contains(status, "six0  4in6in4  waiting") { // there is no uplink
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("status: %s\nlog: %s", status, log.String())
		}
	}
	proc, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(cmd.Process.Pid), "status"))
	must(t, err)
	for _, want := range []string{"CapPrm:\t0000000000003000", "CapEff:\t0000000000003000", "CapBnd:\t0000000000003000", "Seccomp:\t2", "NoNewPrivs:\t1"} {
		if !strings.Contains(string(proc), want) {
			t.Errorf("no %q in\n%s", want, proc)
		}
	}
	must(t, cmd.Process.Signal(unix.SIGTERM))
	if err := cmd.Wait(); err != nil {
		t.Errorf("%v\n%s", err, log.String())
	}
}
