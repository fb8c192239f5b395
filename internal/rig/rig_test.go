package rig

import (
	"context"
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	left4, right4 = netip.MustParsePrefix("203.0.113.1/24"), netip.MustParsePrefix("203.0.113.2/24")
	left6, right6 = netip.MustParsePrefix("2001:db8::1/64"), netip.MustParsePrefix("2001:db8::2/64")
)

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func namespace(t testing.TB, name string) *Namespace {
	t.Helper()
	n, err := New(name)
	check(t, err)
	t.Cleanup(n.Close)
	return n
}

// pair returns
//
//	left (eth0: 203.0.113.1, 2001:db8::1) ---- right (eth0: 203.0.113.2, 2001:db8::2)
func pair(t testing.TB) (left, right *Namespace) {
	t.Helper()
	left, right = namespace(t, "left"), namespace(t, "right")
	check(t, Veth(left, "eth0", right, "eth0", 1500))
	check(t, left.AddAddr("eth0", left4))
	check(t, right.AddAddr("eth0", right4))
	check(t, left.AddAddr("eth0", left6))
	check(t, right.AddAddr("eth0", right6))
	settle(t, left, right6.Addr())
	return left, right
}

// settle waits until an address answers. On a busy machine the first neighbour
// solicitation of a new device may be lost; the next one is sent a second later.
func settle(t testing.TB, from *Namespace, to netip.Addr) {
	t.Helper()
	ctx := soon(t)
	for {
		r, err := Ping(ctx, from, to, PingOptions{})
		check(t, err)
		if r.Received > 0 {
			return
		}
	}
}

// line returns
//
//	left (eth0) ---- (eth0) router (eth1, MTU 1280) ---- (eth0, MTU 1280) right
//
// with 203.0.113.1 and 2001:db8::1 left, 198.51.100.2 and 2001:db8:1::2 right.
func line(t testing.TB) (left, router, right *Namespace) {
	t.Helper()
	left, router, right = namespace(t, "left"), namespace(t, "router"), namespace(t, "right")
	check(t, Veth(left, "eth0", router, "eth0", 1500))
	check(t, Veth(router, "eth1", right, "eth0", 1280))
	check(t, router.Forward())
	for _, a := range []struct {
		n         *Namespace
		dev, addr string
	}{
		{left, "eth0", "203.0.113.1/24"}, {left, "eth0", "2001:db8::1/64"},
		{router, "eth0", "203.0.113.2/24"}, {router, "eth0", "2001:db8::2/64"},
		{router, "eth1", "198.51.100.1/24"}, {router, "eth1", "2001:db8:1::1/64"},
		{right, "eth0", "198.51.100.2/24"}, {right, "eth0", "2001:db8:1::2/64"},
	} {
		check(t, a.n.AddAddr(a.dev, netip.MustParsePrefix(a.addr)))
	}
	for _, r := range []struct {
		n        *Namespace
		dst, via string
	}{
		{left, "198.51.100.0/24", "203.0.113.2"}, {left, "2001:db8:1::/64", "2001:db8::2"},
		{right, "203.0.113.0/24", "198.51.100.1"}, {right, "2001:db8::/64", "2001:db8:1::1"},
	} {
		check(t, r.n.AddRoute(netip.MustParsePrefix(r.dst), netip.MustParseAddr(r.via), ""))
	}
	settle(t, left, netip.MustParseAddr("2001:db8:1::2"))
	return left, router, right
}

// soon returns a context that ends tests that hang. Tests that pass are much faster.
func soon(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// where returns the network namespace of the calling thread.
func where() string {
	s, _ := os.Readlink("/proc/thread-self/ns/net")
	return s
}

func TestDoEntersNamespace(t *testing.T) {
	n := namespace(t, "a")
	var inside string
	check(t, n.Do(func() error { inside = where(); return nil }))
	var st unix.Stat_t
	check(t, unix.Stat(n.Path(), &st))
	if want := "net:[" + strconv.FormatUint(st.Ino, 10) + "]"; inside != want {
		t.Errorf("inside is %s, and %s leads to %s", inside, n.Path(), want)
	}
	for range 100 { // on any thread, none of which may be inside the namespace
		outside := make(chan string)
		go func() { outside <- where() }()
		if s := <-outside; s == inside || s == "" {
			t.Fatalf("outside is %q, inside %q", s, inside)
		}
	}
}

func TestDoReturnsError(t *testing.T) {
	n := namespace(t, "a")
	if err := n.Do(func() error { return unix.ENOTTY }); !errors.Is(err, unix.ENOTTY) {
		t.Errorf("an error comes back as %v", err)
	}
	if err := n.Do(func() error { runtime.Goexit(); return nil }); !errors.Is(err, errGoexit) {
		t.Errorf("t.Fatal comes back as %v", err)
	}
	var here *Namespace
	check(t, here.Do(func() error { return nil }))
	n.Close()
	n.Close()
	if err := n.Do(func() error { return nil }); err == nil {
		t.Error("a closed namespace can be entered")
	}
}

func TestSysctlIsPerNamespace(t *testing.T) {
	read := func(n *Namespace) (s string) {
		check(t, n.Do(func() error {
			b, err := os.ReadFile("/proc/sys/net/ipv4/ip_forward")
			s = strings.TrimSpace(string(b))
			return err
		}))
		return s
	}
	a, b := namespace(t, "a"), namespace(t, "b")
	check(t, b.Sysctl("net/ipv4/ip_forward", "0"))
	check(t, a.Forward())
	if read(a) != "1" || read(b) != "0" {
		t.Errorf("ip_forward is %s and %s, want 1 and 0", read(a), read(b))
	}
	if err := a.Sysctl("net/ipv4/no_such_setting", "1"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an unknown setting is %v", err)
	}
}

func TestLinks(t *testing.T) {
	a, b := pair(t)
	reach := func(want int) {
		t.Helper()
		if want > 0 { // a link is up a while after it was set up
			settle(t, a, right4.Addr())
		}
		r, err := Ping(soon(t), a, right4.Addr(), PingOptions{Timeout: 200 * time.Millisecond})
		check(t, err)
		if r.Received != want {
			t.Fatalf("%d answers, want %d: %+v", r.Received, want, r)
		}
	}
	reach(1)
	check(t, b.LinkDown("eth0"))
	reach(0)
	check(t, b.LinkUp("eth0"))
	reach(1)
	check(t, b.DelAddr("eth0", right4))
	reach(0)
	// The address moves from the link to loopback, and is routed there.
	check(t, b.AddAddr("lo", netip.MustParsePrefix("203.0.113.2/32")))
	check(t, b.AddRoute(left4, netip.Addr{}, "eth0"))
	reach(1)
	check(t, b.DelRoute(left4, netip.Addr{}, "eth0"))
	reach(0)
	check(t, a.SetMTU("eth0", 1400))
	if mtu, err := a.MTU("eth0"); mtu != 1400 || err != nil {
		t.Errorf("MTU is %d, %v", mtu, err)
	}
	check(t, a.DelLink("eth0"))
	if _, err := b.MAC("eth0"); err == nil {
		t.Error("the other end of a deleted pair is still there")
	}
	if err := a.LinkUp("eth0"); err == nil || !strings.Contains(err.Error(), "namespace left: device eth0: set up: ") {
		t.Errorf("error is %v", err)
	}
}

func TestStart(t *testing.T) {
	n := namespace(t, "a")
	var inside string
	check(t, n.Do(func() error { inside = where(); return nil }))
	cmd := exec.Command("readlink", "/proc/self/ns/net")
	var out strings.Builder
	cmd.Stdout = &out
	check(t, n.Start(cmd))
	check(t, cmd.Wait())
	if got := strings.TrimSpace(out.String()); got != inside {
		t.Errorf("the process is in %s, want %s", got, inside)
	}
	if err := n.Start(exec.Command("/no/such/program")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("error is %v", err)
	}
}

func TestCloseEndsProcesses(t *testing.T) {
	n := namespace(t, "a")
	cmd := exec.Command("sleep", "600")
	check(t, n.Start(cmd))
	runtime.GC() // makes the runtime start and stop threads
	n.Close()
	err := cmd.Wait()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGTERM {
		t.Errorf("the process ended with %v, want SIGTERM", err)
	}
}
